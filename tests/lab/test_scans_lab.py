"""Images on a real K3s: scanned by digest, kept off the list unless they passed, and named with node and pod otherwise.

Runs on an applied lab, with a registry beside it and a double of trivy and grype, which finds what the story plants: a
scanner of the test's own. A double of K3s has no containerd. It ends as it began.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab.applied import Lab, failing
from lab.image_archive import Images, first_layer
from unit import scanning, signing

pytestmark = pytest.mark.lab

HERE = Path(__file__).parent
PORT, LONG_AGO = 5443, "2015-06-01T00:00:00Z"
BASE = "docker.io/library/busybox:1.36"
SCANNED, LISTED, RECENT = "IMAGES-RUNNING-SCANNED", "IMAGES-LIST-SCANNED", "IMAGES-RUNNING-RECENT"
TAGS, BASES = "IMAGES-TAGS-CURRENT", "IMAGES-BASES-CURRENT"
SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Story:
    """A lab, a registry on the controller's side of its network, and a scanner with a plan of what it finds."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.plain, self.folder = lab, folder
        with socket.create_connection((lab.hosts[lab.server], 22)) as asking:
            self.registry = f"{asking.getsockname()[0]}:{PORT}"
        self.app = f"{self.registry}/app"
        self.images = self.made()
        self.tags: dict[str, dict[str, str]] = {"app": {"1": self.good}, "base": {"1": self.base}, "built": {"1": self.built}}
        self.point()
        self.key, self.list = signing.key(folder, "key"), folder / "images.json"
        signers = Path(lab.known["casemate_allowed_signers"]).read_text()
        public = self.key.with_name("key.pub").read_text()
        (folder / "signers").write_text(f'{signers}ops@example.org namespaces="casemate-images" {public}')
        self.scanner = scanning.settings(folder, built=now())
        self.archives = folder / "archives"
        self.archives.mkdir()
        self.plan()
        self.given: dict[str, Any] = {
            "casemate_allowed_signers": str(folder / "signers"),
            "casemate_image_scans": {**scanning.inventory(self.scanner), "archives": str(self.archives)},
            "casemate_image_updates": {"answers": str(self.scanner.results)},
            "casemate_image_max_age_days": 3650,
            "casemate_registries": [{"host": "docker.io"}, {"host": self.registry, "ca_file": str(folder / "ca.pem")}],
        }
        self.give()
        self.lab = Lab(lab.path, str(folder / "more.yml"))

    def made(self) -> Images:
        """The images of the registry: all of one layer of an image that nodes have."""
        exported = self.plain.root(self.plain.server, f"k3s ctr -n k8s.io images export - {BASE} | base64 -w0")
        images = Images(first_layer(base64.b64decode(exported)))
        self.good, self.bad, self.old = images.image("good"), images.image("bad"), images.image("old", LONG_AGO)
        self.moved, self.base, self.newer = images.image("moved"), images.image("base"), images.image("newer")
        built_on = {"name": f"{self.registry}/base:1", "digest": self.base}
        annotations = {f"org.opencontainers.image.base.{key}": value for key, value in built_on.items()}
        self.built = images.image("built", annotations=annotations)
        images.write(self.folder / "images.tar")
        return images

    def point(self) -> None:
        """Have tags lead where they do by now."""
        (self.folder / "tags.json").write_text(json.dumps(self.tags))

    def give(self, **more: Any) -> None:
        """Have the inventory say this, beside what it says already."""
        self.given.update(more)
        (self.folder / "more.yml").write_text(yaml.safe_dump({"all": {"vars": self.given}}))

    def plan(self, built: datetime.datetime | None = None, **does: Any) -> None:
        """Have the scanner find what is planted, by a database of that day, or misbehave."""
        told = {"configs": self.images.configs, "vulnerable": [self.bad, self.images.configs[self.bad]]}
        scanning.settings(self.folder, built=built or now(), found=[scanning.CVE], **told, **does)

    def said(self, *arguments: str) -> tuple[int, str]:
        """(exit code, what is said) of a command that writes no report."""
        argv = [str(Path(sys.executable).with_name("casemate")), *arguments, *self.lab.inventories]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
        return done.returncode, done.stdout + done.stderr

    def allow(self, digest: str, name: str = "app") -> tuple[int, str]:
        """What comes of putting an image on the list, which is signed then."""
        until = (now() + datetime.timedelta(days=9)).date().isoformat()
        about = ["--list", str(self.list), "--until", until, "--reason", "the lab's", "--owner", "ops"]
        code, said = self.said("images", "allow", f"{self.registry}/{name}@{digest}", *about)
        if code == 0:
            signing.sign(self.list, self.key, "casemate-images")
        return code, said

    def judged(self, *arguments: str) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
        """(exit code, (host, control) -> finding) of a run that looks at hosts."""
        code, report = self.lab.casemate(*arguments)
        return code, {(host["name"], one["control"]): one for host in report["hosts"] for one in host["findings"]}

    def pod(self, name: str, image: str, node: str, policy: str = "IfNotPresent") -> str:
        """What becomes of a pod on a node: Running, or why it is not pulled."""
        main = {"name": "main", "image": image, "command": ["/bin/busybox", "sleep", "9999"]}
        main |= {"imagePullPolicy": policy, "securityContext": SAFE}
        spec = {"containers": [main], "nodeName": node, "automountServiceAccountToken": False}
        spec["terminationGracePeriodSeconds"] = 0
        about = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        script = f"k3s kubectl apply -f - 2>&1 <<'END' || exit 0\n{json.dumps(about)}\nEND\n"
        asked = "{.status.phase} {..state.waiting.reason} {..state.waiting.message}"
        script += f"for i in $(seq 60); do said=$(k3s kubectl get pod {name} -o jsonpath='{asked}')\n"
        script += 'case $said in Running*|*ErrImagePull*|*BackOff*) break;; esac; sleep 1; done; echo "$said"'
        return self.plain.root(self.plain.server, script).removeprefix(f"pod/{name} created\n")


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@contextlib.contextmanager
def serving(story: Story) -> Iterator[None]:
    """The registry, with a certificate of an authority of its own."""
    folder, address = story.folder, story.registry.partition(":")[0]
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += ["-subj", "/CN=lab", "-addext", f"subjectAltName=IP:{address}", "-keyout", f"{folder}/tls.key"]
    subprocess.run([*argv, "-out", f"{folder}/ca.pem"], check=True, capture_output=True)
    files = [f"{folder}/{name}" for name in ("ca.pem", "tls.key", "images.tar", "tags.json")]
    with (folder / "registry.log").open("w") as log:
        command = [sys.executable, str(HERE / "registry.py"), address, str(PORT), *files]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(50):
            with contextlib.suppress(OSError), socket.create_connection((address, PORT)):
                break
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def story(lab: Lab, tmp_path: Path) -> Iterator[Story]:
    if not lab.has_api():
        pytest.skip("api_semantics: a double has no containerd")
    made = Story(lab, tmp_path)
    try:
        with serving(made):
            yield made
    finally:
        lab.root(lab.server, "k3s kubectl delete pod --ignore-not-found --now good bad old planted tagged built")
        code, report = lab.casemate("apply")
        assert code == 0, failing(report)


def test_images_are_let_in_once_they_passed_and_named_once_they_would_not(story: Story) -> None:
    lab, server, agent = story.lab, story.plain.server, story.plain.agent
    good, bad, old = (f"{story.app}@{digest}" for digest in (story.good, story.bad, story.old))
    wait_for_nothing_on_the_list(story, good, bad)
    for digest in (story.old, story.moved, story.good):
        assert story.said("images", "scan", f"{story.app}@{digest}")[0] == 0
        assert story.allow(digest)[0] == 0
    built = f"{story.registry}/built@{story.built}"
    assert story.said("images", "scan", built)[0] == 0
    assert story.allow(story.built, "built")[0] == 0
    story.give(casemate_image_list=str(story.list))
    lab.casemate("apply")

    assert story.pod("good", good, agent).startswith("Running")
    assert "is not on the list of images" in story.pod("bad", bad, server)
    what_runs_is_scanned_once_and_what_is_planted_is_named(story, bad)
    whatever_goes_wrong_with_the_scanner_nothing_passes(story)
    age_tags_and_bases_are_told(story, old, built)


def wait_for_nothing_on_the_list(story: Story, good: str, bad: str) -> None:
    """Neither what was not scanned goes on the list, nor what did not pass, with either scanner."""
    code, said = story.allow(story.good)
    assert (code, "it was not scanned" in said) == (1, True), said
    for kind in ("grype", "trivy"):
        story.give(casemate_image_scans={**story.given["casemate_image_scans"], "scanner": story.of_kind(kind)})
        code, said = story.said("images", "scan", "--again", bad)
        assert code == 2, said
        assert f"{bad}: vulnerable: CVE-2026-1 in openssl 3.0.1 (high, fixed in 3.0.2)" in said
        code, said = story.allow(story.bad)
        assert (code, "CVE-2026-1" in said) == (1, True), said
    assert not story.list.exists()
