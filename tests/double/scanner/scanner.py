#!/usr/bin/env python3
"""A double of trivy and of grype: it scans nothing, and says what plan.json in the folder of its database has it say.

plan.json: {"digests": [what the image is said to be], "configs": {digest: that of its configuration}, "found": [[id,
package, installed, fixed, severity]], "vulnerable": [digests that have these alone], "does": "hang" | "garbage" |
"fail"}. Run as `trivy image …` it answers as trivy, else as grype. Beside it, asked.json says how it was run last.
"""

import json
import os
import sys
import time
from typing import Any

IS_TRIVY = sys.argv[1] == "image"
FOLDER = sys.argv[sys.argv.index("--cache-dir") + 1] if IS_TRIVY else os.environ["GRYPE_DB_CACHE_DIR"]


def plan() -> dict[str, Any]:
    """What to say."""
    with open(f"{FOLDER}/plan.json", encoding="utf-8") as file:
        made: dict[str, Any] = json.load(file)
    return made


def images(said: dict[str, Any]) -> list[str]:
    """What the image is said to be, its configuration first: as planned, that of the layout, or what was asked for."""
    if said.get("digests"):
        return list(said["digests"])
    last = sys.argv[-1] if IS_TRIVY else sys.argv[1].partition(":")[2]
    if not os.path.isdir(last):
        digest = last.rpartition("@")[2]
        return [*said.get("configs", {}).get(digest, "").split(), digest]
    with open(f"{last}/index.json", encoding="utf-8") as index:
        digest = str(json.load(index)["manifests"][0]["digest"])
    with open(f"{last}/blobs/sha256/{digest.partition(':')[2]}", encoding="utf-8") as manifest:
        return [str(json.load(manifest)["config"]["digest"]), digest]


def trivy(known: list[str], found: list[list[str]]) -> dict[str, Any]:
    """As trivy's schema version 2 has it."""
    names = ("VulnerabilityID", "PkgName", "InstalledVersion", "FixedVersion", "Severity")
    listed = [dict(zip(names, one, strict=True)) for one in found]
    return {
        "SchemaVersion": 2,
        "Trivy": {"Version": "0.70.0"},
        "ArtifactType": "container_image",
        "Metadata": {"ImageID": known[0], "RepoDigests": [f"example.org/app@{digest}" for digest in known]},
        "Results": [{"Target": "app", "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": listed}]
        if listed
        else [],
    }


def grype(known: list[str], found: list[list[str]], built: Any) -> dict[str, Any]:
    """As grype's models have it."""
    matches = [
        {
            "vulnerability": {
                "id": advisory,
                "severity": severity.capitalize(),
                "fix": {"versions": [fixed] if fixed else [], "state": "fixed" if fixed else "not-fixed"},
            },
            "relatedVulnerabilities": [],
            "artifact": {"name": package, "version": version, "type": "deb"},
        }
        for advisory, package, version, fixed, severity in found
    ]
    target = {"imageID": known[0], "manifestDigest": known[-1], "repoDigests": []}
    about = {"name": "grype", "version": "0.110.0", "db": {"status": {"built": built}}}
    return {"matches": matches, "source": {"type": "image", "target": target}, "descriptor": about}


def main() -> None:
    """Answer once."""
    said = plan()
    with open(f"{FOLDER}/asked.json", "w", encoding="utf-8") as file:
        json.dump({"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}, file)
    does = said.get("does")
    if does == "hang":
        os.fork()  # what it started has to end, too
        time.sleep(3600)
    if does == "fail":
        sys.exit("FATAL no such image")
    if does == "garbage":
        print("<html>")
        return
    known = images(said)
    of_this = "vulnerable" not in said or set(said["vulnerable"]) & {*known, *sys.argv[-1].split("@")[-1:]}
    found = said.get("found", []) if of_this else []
    print(json.dumps(trivy(known, found) if IS_TRIVY else grype(known, found, said.get("built"))))


if __name__ == "__main__":
    main()
