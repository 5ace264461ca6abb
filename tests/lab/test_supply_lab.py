"""What machines are made of, and which advisories are about it: on a lab that was applied, with a real K3s."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from casemate.supply import bill

from .applied import Lab

CASEMATE = str(Path(sys.executable).with_name("casemate"))
GO = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
CURRENT = "/var/lib/rancher/k3s/data/current/bin"
CONTAINERD = "github.com/containerd/containerd/v2"
K3S, KUBELET = "NODE-ADVISORIES-ANSWERED", "PATCH-ADVISORIES-ANSWERED"
LATER = {"reason": "planted", "owner": "story", "expires": "2999-01-01"}


@pytest.fixture(autouse=True)
def real(lab: Lab) -> None:
    if not lab.has_api():
        pytest.skip("api_semantics: the double is no program of Go, so there is nothing to list")


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, Any]:
    """Inputs: data with one advisory about every containerd, by two names, and one about openssl of Debian."""
    ranges = [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "99.0.0"}]}]
    affected = [{"package": {"ecosystem": "Go", "name": CONTAINERD}, "ranges": ranges}]
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT00:00:00Z")
    entry = {"id": "GO-2999-1", "aliases": ["CVE-2999-1"], "modified": today, "affected": affected}
    (tmp_path / "osv").mkdir()
    (tmp_path / "osv/one.json").write_text(json.dumps(entry))
    here = {"status": "resolved", "fixed_version": "99:1-1", "urgency": "high", "repositories": {}}
    releases = {"bookworm": here, "trixie": here}
    (tmp_path / "tracker.json").write_text(json.dumps({"openssl": {"CVE-2999-2": {"releases": releases}}}))
    return {"casemate_advisory_data": [str(tmp_path / "osv"), str(tmp_path / "tracker.json")]}


def inventory(folder: Path, **inputs: Any) -> tuple[str, str]:
    path = folder / "more.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": inputs}}))
    return "-i", str(path)


def casemate(lab: Lab, *arguments: str) -> tuple[int, str]:
    argv = [CASEMATE, arguments[0], *lab.inventories, *arguments[1:]]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=lab.seconds, check=False)
    return done.returncode, done.stdout + done.stderr


def bills(lab: Lab, folder: Path) -> dict[str, dict[str, Any]]:
    """Host -> its bill of materials, which fits the official schema."""
    code, said = casemate(lab, "sbom", "--output", str(folder))
    assert code == 0, said
    texts = {path.name.removesuffix(".cdx.json"): path.read_text() for path in folder.iterdir()}
    assert texts.keys() == lab.hosts.keys()
    assert not any(map(bill.problem, texts.values()))
    return {host: json.loads(text) for host, text in texts.items()}


def listed(document: dict[str, Any], name: str) -> set[tuple[str, str]]:
    """(module, version) of what a bill of materials has found in an unpacked program, but for the standard library."""
    place = re.compile(rf"/var/lib/rancher/k3s/data/[0-9a-f]{{64}}/bin/{re.escape(name)}")
    return {
        (one["name"], one.get("version", ""))
        for one in document["components"]
        if str(one.get("purl", "")).startswith("pkg:golang/")
        and one["name"] != "stdlib"
        and any(place.fullmatch(seen["location"]) for seen in one["evidence"]["occurrences"])
    }


def told_by_go(program: Path) -> set[tuple[str, str]]:
    """The same by Go's own tool; of what was replaced, what took its place, unless that is a folder."""
    said = subprocess.run([str(GO), "version", "-m", str(program)], capture_output=True, text=True, check=True).stdout
    found: list[tuple[str, str]] = []
    for line in said.splitlines():
        word, *columns = line.strip().split("\t")
        if word == "=>":
            old, _ = found.pop()
            columns[0] = old if columns[0].startswith(("/", ".")) else columns[0]
        if word in ("mod", "dep", "=>"):
            found.append((columns[0], columns[1]))
    return set(found)


def test_the_bill_of_materials_fits_the_schema_and_is_the_same_again(lab: Lab, tmp_path: Path) -> None:
    first, second = (bills(lab, tmp_path / name) for name in ("first", "second"))
    for document in (*first.values(), *second.values()):
        document.pop("serialNumber")
        document["metadata"].pop("timestamp")
    assert first == second


@pytest.mark.skipif(not GO, reason="there is no Go to ask")
def test_its_modules_are_those_that_go_names_in_each_program(lab: Lab, tmp_path: Path) -> None:
    for host, document in bills(lab, tmp_path / "sbom").items():
        names = lab.root(host, f"find -H {CURRENT} -maxdepth 1 -type f -size +1M -printf '%f\\n'").split()
        assert {"k3s", "runc"} <= set(names)
        for name in names:
            program = tmp_path / f"{host}-{name}"
            copied(lab, host, f"{CURRENT}/{name}", program)
            wanted = told_by_go(program)
            # K3s was built from a folder: its version is what the linker wrote.
            ours = {
                (one, "(devel)" if one == "github.com/k3s-io/k3s" else version)
                for one, version in listed(document, name)
            }
            assert ours == wanted, f"{host}: {name}"


def copied(lab: Lab, host: str, source: str, target: Path) -> None:
    argv = ["ssh", *lab.known["ansible_ssh_common_args"].split(), "-o", "BatchMode=yes", "-o", "ControlPath=none"]
    argv += ["-i", lab.known["ansible_ssh_private_key_file"], f"ops@{lab.hosts[host]}", "sudo", "cat", source]
    with target.open("wb") as out:
        subprocess.run(argv, stdout=out, timeout=300, check=True)


def test_advisories_are_named_for_each_host_until_somebody_answers(
    lab: Lab, planted: dict[str, Any], tmp_path: Path
) -> None:
    code, said = casemate(lab, "advisories", *inventory(tmp_path, **planted), "--format", "json")
    assert code == 2
    found, _ = json.JSONDecoder().raw_decode(said[said.index("[\n") :])
    assert {one["name"] for one in found} == set(lab.hosts)
    for host in found:
        assert {one["id"]: one["fixed"] for one in host["open"]} == {"GO-2999-1": "99.0.0", "CVE-2999-2": "99:1-1"}, (
            host
        )
    waivers = {"CVE-2999-1": LATER, "CVE-2999-2": LATER}
    _, said = casemate(lab, "advisories", *inventory(tmp_path, **planted, casemate_advisory_waivers=waivers))
    assert said.count("0 to answer for, 2 answered") == len(lab.hosts), said


def findings(lab: Lab, *more: str) -> dict[tuple[str, str], dict[str, Any]]:
    _, report = lab.casemate("check", *more)
    every = [(host["name"], one) for host in report["hosts"] for one in host["findings"]]
    return {(host, one["control"]): one for host, one in every if one["control"] in (K3S, KUBELET)}


def test_the_controls_judge_what_is_installed_and_nothing_where_nobody_asks(
    lab: Lab, planted: dict[str, Any], tmp_path: Path
) -> None:
    unasked = findings(lab)
    assert {(one["status"], one["code"]) for one in unasked.values()} == {("not_evaluated", "unasked")}
    found = findings(lab, *inventory(tmp_path, **planted))
    assert len(found) == 2 * len(lab.hosts)
    for host in lab.hosts:
        assert found[host, K3S]["status"] == "fail"
        assert "fixed in 99.0.0" in found[host, K3S]["observed"]
        assert any(place.endswith("/bin/k3s") for place in found[host, K3S]["where"])
        assert found[host, KUBELET]["status"] == "fail"
        assert "CVE-2999-2, fixed in 99:1-1" in found[host, KUBELET]["observed"]


def signed(lock: Path) -> str:
    """The file of who may sign, once this key of the story has signed a lock."""
    key, signers = lock.with_name("key"), lock.with_name("signers")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", "casemate-lock", str(lock)], check=True)
    signers.write_text(f'story@example.org namespaces="casemate-lock" {key.with_suffix(".pub").read_text()}')
    return str(signers)


def test_another_k3s_with_an_advisory_is_refused_before_any_host_is_touched(
    lab: Lab, planted: dict[str, Any], tmp_path: Path
) -> None:
    """The same programs in other bytes, as the next build of this version."""
    given = Path(lab.known["casemate_artifact_dir"])
    lock = json.loads(Path(lab.known["casemate_artifact_lock"]).read_text())
    version = lab.known.get("casemate_k3s_version", lock["default"])
    release = tmp_path / "release"
    release.mkdir()
    data = (given / "k3s").read_bytes() + b"\0"
    (release / "k3s").write_bytes(data)
    files = {"k3s": hashlib.sha256(data).hexdigest()}
    other = version[:-1] + "9"
    releases = {**lock["releases"], other: {**lock["releases"][version], "files": files}}
    (tmp_path / "lock.json").write_text(json.dumps({**lock, "releases": releases}))
    inputs = {
        **planted,
        "casemate_k3s_version": other,
        "casemate_artifact_dir": str(release),
        "casemate_artifact_lock": str(tmp_path / "lock.json"),
        "casemate_allowed_signers": signed(tmp_path / "lock.json"),
    }
    before = {host: lab.root(host, "sha256sum /usr/local/bin/k3s") for host in lab.hosts}
    code, said = casemate(lab, "apply", *inventory(tmp_path, **inputs))
    assert code == 1
    assert f"K3s {other} has advisories that nobody answers for" in said
    assert f"GO-2999-1 (CVE-2999-1): {CONTAINERD}" in said
    assert before == {host: lab.root(host, "sha256sum /usr/local/bin/k3s") for host in lab.hosts}
    code, said = casemate(
        lab, "apply", "--plan", *inventory(tmp_path, **inputs, casemate_advisory_waivers={"GO-2999-1": LATER})
    )
    assert code == 0, said
    assert "has advisories" not in said
