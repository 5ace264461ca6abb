"""A signed list of images on a real K3s: what may be pulled, what is refused where, and what check names.

Runs on an applied lab, as a part of the drift story; a double has no containerd. It ends without a list, as it began.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab.applied import Lab, failing
from unit import signing

pytestmark = pytest.mark.lab

HERE = Path(__file__).parent
HOME, PORT = "/root/images", 5555
LISTS, VERIFIERS = "/etc/casemate/images", "/usr/local/lib/casemate/image-verifiers"
CONTAINERD = "/var/lib/rancher/k3s/agent/etc/containerd"
DROPIN, REGISTRIES = f"{CONTAINERD}/config-v3.toml.d/zz.toml", "/etc/rancher/k3s/registries.yaml"
BASE = "docker.io/library/busybox:1.36"
PULLED = {"digest", "tag", "index", "index by tag", "all as it was"}
NOT_BY_US = ("verifier hangs", "verifier emptied", "verifier without interpreter", "verifier not executable")
RESTART = "systemctl restart k3s; for i in $(seq 60); do k3s crictl info >/dev/null 2>&1 && break; sleep 1; done"
FOLLOWS = {"HOST-UNITS-VOUCHED", "CONTAINERD-NETWORKS-VOUCHED", "HOST-SOCKETS-VOUCHED"}
"""What tells of the registry of this test."""
SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Listed:
    """A lab with a signed list, and what is in the registry of its first server."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.plain, self.folder, self.host = lab, folder, lab.server
        self.key, self.stranger = signing.key(folder, "key"), signing.key(folder, "stranger")
        signers = Path(lab.known["casemate_allowed_signers"]).read_text()
        public = self.key.with_name("key.pub").read_text()
        (folder / "signers").write_text(f'{signers}ops@example.org namespaces="casemate-images" {public}')
        self.send("cases.py", (HERE / "image_cases.py").read_text())
        self.send("key", self.key.read_text())
        self.send("stranger", self.stranger.read_text())
        lab.root(self.host, f"k3s ctr -n k8s.io images export {HOME}/base.tar {BASE}; echo '{{}}' >{HOME}/tags.json")
        lab.root(self.host, f"systemd-run --quiet --unit lab-registry python3 {HOME}/cases.py serve; sleep 2")
        self.made: dict[str, str] = json.loads(lab.root(self.host, f"cat {HOME}/digests.json"))
        self.path = folder / "images.json"
        self.allow(f"127.0.0.1:{PORT}/app@{self.made['good']}", f"127.0.0.1:{PORT}/index@{self.made['index']}")
        given = {
            "casemate_allowed_signers": str(folder / "signers"),
            "casemate_image_list": str(self.path),
            "casemate_image_digests_only": True,
        }
        (folder / "more.yml").write_text(yaml.safe_dump({"all": {"vars": given}}))
        self.lab = Lab(lab.path, str(folder / "more.yml"))

    def send(self, name: str, text: str) -> None:
        self.plain.root(self.host, f"mkdir -p {HOME}; umask 077; cat >{HOME}/{name} <<'END'\n{text.rstrip()}\nEND")

    def allow(self, *references: str) -> None:
        until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=9)).date().isoformat()
        argv = [
            str(Path(sys.executable).with_name("casemate")),
            "images",
            "allow",
            *references,
            "--list",
            str(self.path),
        ]
        argv += ["--until", until, "--reason", "the lab's", "--owner", "ops"]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        signing.sign(self.path, self.key, "casemate-images")

    def named(self) -> set[str]:
        """The controls that a check names on the first server, but for those that tell of the registry."""
        _, report = self.lab.casemate("check")
        (host,) = [host for host in report["hosts"] if host["name"] == self.host]
        return {one["control"] for one in host["findings"] if one["status"] in ("fail", "error")} - FOLLOWS

    def pod(self, name: str, image: str, first: str = "", policy: str = "Always") -> str:
        """What becomes of a pod: Running, why it is not pulled, or why it is refused."""
        made = [{"name": "main", "image": image}, *([{"name": "first", "image": first}] if first else [])]
        for one in made:
            one |= {"command": ["/bin/busybox", "sleep", "999"], "imagePullPolicy": policy, "securityContext": SAFE}  # type: ignore[dict-item]
        spec: dict[str, Any] = {"containers": made[:1], "initContainers": made[1:], "terminationGracePeriodSeconds": 0}
        spec["automountServiceAccountToken"] = False
        about = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        script = f"k3s kubectl apply -f - 2>&1 <<'END' || exit 0\n{json.dumps(about)}\nEND\n"
        asked = "{.status.phase} {..state.waiting.reason} {..state.waiting.message}"
        script += f"for i in $(seq 40); do said=$(k3s kubectl get pod {name} -o jsonpath='{asked}')\n"
        script += 'case $said in Running*|*ErrImagePull*|*BackOff*) break;; esac; sleep 1; done; echo "$said"'
        return self.plain.root(self.host, script).removeprefix(f"pod/{name} created\n")


@pytest.fixture
def listed(lab: Lab, tmp_path: Path) -> Iterator[Listed]:
    if not lab.has_api():
        pytest.skip("api_semantics: a double has no containerd")
    try:
        yield Listed(lab, tmp_path)
    finally:
        pods = "k3s kubectl delete pod --ignore-not-found --now good bad first imported; rm -f " + DROPIN
        clean = f"{pods} {REGISTRIES}; rm -rf {HOME} {CONTAINERD}/certs.d/*:{PORT}; systemctl stop lab-registry || true"
        lab.root(lab.server, f"{clean}; {RESTART}")


def test_nodes_pull_what_is_on_the_signed_list_and_check_names_what_lets_more_through(listed: Listed) -> None:
    lab, host, made = listed.lab, listed.host, listed.made
    _, report = lab.casemate("apply")
    assert listed.named() == set(), failing(report)

    said = json.loads(lab.root(host, f"python3 {HOME}/cases.py").splitlines()[-1])
    assert len(said) == 28
    assert {case for case, (pulled, _) in said.items() if pulled} == PULLED, said
    refused = {case: why for case, (pulled, why) in said.items() if not pulled}
    unsaid = [case for case, why in refused.items() if "verifier" not in why]
    assert not unsaid, {case: refused[case] for case in unsaid}
    assert all("rejected image" in why for case, why in refused.items() if case not in NOT_BY_US)

    app = f"127.0.0.1:{PORT}/app"
    good, bad = f"{app}@{made['good']}", f"{app}@{made['bad']}"
    assert listed.pod("good", good).startswith("Running")
    assert "is not on the list of images" in listed.pod("bad", bad)
    assert "is not on the list of images" in listed.pod("first", good, bad)
    for refusal in (listed.pod("tag", f"{app}:1"), listed.pod("tag", good, f"{app}:1")):
        assert "images have to be named by digest" in refusal
    lab.root(host, f"k3s ctr -n k8s.io images pull --local --plain-http {app}@{made['imported']}")
    assert listed.pod("imported", f"{app}@{made['imported']}", policy="Never").startswith("Running")
    assert listed.named() == {"IMAGES-RUNNING-LISTED"}
    lab.root(host, "k3s kubectl delete pod --now imported bad first")
    assert listed.named() == set()

    installed, answers, asked = "IMAGES-VERIFIER-INSTALLED", "IMAGES-VERIFIER-ANSWERS", "IMAGES-VERIFIER-ASKED"
    for damage, names in (
        (f"rm {VERIFIERS}/casemate", {installed, answers}),
        (f"rm -r {VERIFIERS}", {installed, answers}),
        (f"printf '#!/bin/sh\\nexit 0\\n' >{VERIFIERS}/casemate", {installed, answers}),
        (f"cp {VERIFIERS}/casemate {VERIFIERS}/zz", {installed}),
        (f"sed -i s/ops/eve/ {LISTS}/list.json", {"IMAGES-LIST-INSTALLED", answers, "IMAGES-RUNNING-LISTED"}),
    ):
        lab.root(host, damage)
        assert listed.named() == names, damage
        lab.casemate("apply")
        assert listed.named() == set(), damage

    off = '[plugins."io.containerd.cri.v1.images"]\\nuse_local_image_pull = true\\n'
    lab.root(host, f"printf 'version = 3\\n{off}' >{DROPIN}")
    assert listed.named() == {asked, "CONTAINERD-DROPINS-DECLARED"}
    lab.root(host, f"{RESTART}; rm {DROPIN}")
    assert listed.named() == {asked}, "what was read and has gone still runs"
    lab.casemate("apply")
    assert listed.named() == set()
    login = f'configs:\\n  "127.0.0.1:{PORT}":\\n    auth: {{username: a, password: canary}}\\n'
    lab.root(host, f"umask 077; printf '{login}' >{REGISTRIES}; {RESTART}")
    assert listed.named() == {asked}
    lab.root(host, f"rm {REGISTRIES}; {RESTART}")
    assert listed.named() == set()

    listed.plain.casemate("apply")
    lab.root(host, f"test ! -e {LISTS}/list.json; test ! -e {VERIFIERS}/casemate; k3s crictl pull {bad}")
    lab.root(host, "! k3s kubectl get validatingadmissionpolicy casemate-images-by-digest")
