"""Images on a real K3s: scanned by digest, kept off the list unless they passed, and named with node and pod otherwise.

Two machines, a registry on their controller, and a double of trivy and grype, which finds what the story plants: a
scanner of the test's own. With --ansible-inventory it runs on a lab that was applied. A double has no containerd.
"""

from __future__ import annotations

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
from lab import registry
from lab.applied import Lab
from lab.image_archive import Images, exported, first_layer
from unit import scanning, signing

from casemate_lab import for_tests

pytestmark = pytest.mark.lab

HERE = Path(__file__).parent
PORT, HOSTS = 5443, "/var/lib/rancher/k3s/agent/etc/containerd/certs.d"
LONG_AGO, BASE = "2015-06-01T00:00:00Z", "docker.io/library/busybox:1.36"
SCANNED, LISTED, RECENT = "IMAGES-RUNNING-SCANNED", "IMAGES-LIST-SCANNED", "IMAGES-RUNNING-RECENT"
TAGS, BASES = "IMAGES-TAGS-CURRENT", "IMAGES-BASES-CURRENT"
PODS = "good old built tagged planted bad"
SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
Findings = dict[tuple[str, str], dict[str, Any]]
"""(host, control) -> what was found."""


class Story:
    """A lab, a registry on the controller's side of its network, and a scanner with a plan of what it finds."""

    def __init__(self, inventory: str, folder: Path) -> None:
        self.plain, self.folder = Lab(inventory), folder
        self.server, self.agent = self.plain.server, self.plain.agent
        self.address = self.plain.known["casemate_admin_sources"][0].partition("/")[0]
        self.registry = f"{self.address}:{PORT}"
        self.made()
        self.tags = {"app": {"1": self.good}, "base": {"1": self.base}, "built": {"1": self.built}}
        self.point()
        self.key, self.list = signing.key(folder, "key"), folder / "images.json"
        signers = Path(self.plain.known["casemate_allowed_signers"]).read_text()
        public = self.key.with_name("key.pub").read_text()
        (folder / "signers").write_text(f'{signers}ops@example.org namespaces="casemate-images" {public}')
        self.plan()
        (folder / "archives").mkdir()
        self.given: dict[str, Any] = {
            "casemate_allowed_signers": str(folder / "signers"),
            "casemate_registries": [{"host": "docker.io"}, {"host": self.registry, "ca_file": str(folder / "ca.pem")}],
            "casemate_image_updates": {"answers": str(self.scanner.results)},
            "casemate_image_max_age_days": 3650,
        }
        self.use("trivy")
        self.lab = Lab(inventory, str(folder / "more.yml"))

    def made(self) -> None:
        """Make the images of the registry: all of one layer of an image that nodes have."""
        images = Images(first_layer(exported(self.plain, self.server, BASE)))
        self.good, self.bad, self.old = images.image("good"), images.image("bad"), images.image("old", LONG_AGO)
        self.moved, self.base, self.newer = images.image("moved"), images.image("base"), images.image("newer")
        about = {"name": f"{self.registry}/base:1", "digest": self.base}
        annotations = {f"org.opencontainers.image.base.{key}": value for key, value in about.items()}
        self.built = images.image("built", annotations=annotations)
        images.write(self.folder / "images.tar")
        self.configs = images.configs

    def app(self, digest: str, name: str = "app") -> str:
        """An image of the registry by its digest."""
        return f"{self.registry}/{name}@{digest}"

    def point(self) -> None:
        """Have tags lead where they do by now."""
        (self.folder / "tags.json").write_text(json.dumps(self.tags))

    def give(self, **more: Any) -> None:
        """Have the inventory say this, beside what it says already."""
        self.given.update(more)
        (self.folder / "more.yml").write_text(yaml.safe_dump({"all": {"vars": self.given}}))

    def use(self, kind: str) -> None:
        """Have the inventory name a scanner of this kind."""
        given = scanning.inventory(self.scanner)
        tool = {**given["scanner"], "kind": kind, "timeout": 10}
        self.give(casemate_image_scans={**given, "scanner": tool, "archives": str(self.folder / "archives")})

    def plan(self, age: int = 0, **does: Any) -> None:
        """Have the scanner find what is planted, by a database that is so many days old, or misbehave."""
        planted: dict[str, Any] = {
            "configs": self.configs,
            "found": [scanning.CVE],
            "vulnerable": [self.bad, self.configs[self.bad]],
        }
        built = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=age)
        self.scanner = scanning.settings(self.folder, built=built, **planted, **does)

    def said(self, *arguments: str) -> tuple[int, str]:
        """(exit code, what is said) of a command that writes no report."""
        argv = [str(Path(sys.executable).with_name("casemate")), *arguments, *self.lab.inventories]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
        return done.returncode, done.stdout + done.stderr

    def scan(self, image: str) -> tuple[int, str]:
        """(exit code, what is said) of scanning a named image, whatever is known of it."""
        return self.said("images", "scan", "--again", image)

    def allow(self, image: str) -> tuple[int, str]:
        """(exit code, what is said) of putting an image on the list, which is signed then."""
        until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=9)).date().isoformat()
        about = ["--list", str(self.list), "--until", until, "--reason", "the lab's", "--owner", "ops"]
        code, said = self.said("images", "allow", image, *about)
        if code == 0:
            signing.sign(self.list, self.key, "casemate-images")
        return code, said

    def judged(self, *arguments: str) -> tuple[int, Findings]:
        """(exit code, what was found) of a run that looks at hosts."""
        code, report = self.lab.casemate(*arguments)
        return code, {(host["name"], one["control"]): one for host in report["hosts"] for one in host["findings"]}

    def pod(self, name: str, image: str, node: str, policy: str = "IfNotPresent") -> str:
        """What becomes of a pod on a node: Running, or why it is not pulled."""
        main: dict[str, Any] = {"name": "main", "image": image, "command": ["/bin/busybox", "sleep", "9999"]}
        main |= {"imagePullPolicy": policy, "securityContext": SAFE}
        spec: dict[str, Any] = {"containers": [main], "nodeName": node, "automountServiceAccountToken": False}
        spec["terminationGracePeriodSeconds"] = 0
        about = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        script = f"k3s kubectl apply -f - 2>&1 <<'END' || exit 0\n{json.dumps(about)}\nEND\n"
        asked = "{.status.phase} {..state.waiting.reason} {..state.waiting.message}"
        script += f"for i in $(seq 90); do said=$(k3s kubectl get pod {name} -o jsonpath='{asked}')\n"
        script += 'case $said in Running*|*ErrImagePull*|*BackOff*) break;; esac; sleep 1; done; echo "$said"'
        return self.plain.root(self.server, script).removeprefix(f"pod/{name} created\n")

    def runs(self, name: str, image: str, node: str, policy: str = "IfNotPresent") -> None:
        """A pod that has to run."""
        said = self.pod(name, image, node, policy)
        assert said.startswith("Running"), said

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """The registry, with a certificate of an authority of its own."""
        files = [str(self.folder / name) for name in ("server.pem", "server.key", "images.tar", "tags.json")]
        command = [sys.executable, str(HERE / "registry.py"), self.address, str(PORT), *files]
        with (self.folder / "asked").open("a") as log, subprocess.Popen(command, stderr=log) as process:
            try:
                for _ in range(100):
                    with contextlib.suppress(OSError), socket.create_connection((self.address, PORT)):
                        break
                    time.sleep(0.1)
                yield
            finally:
                process.terminate()


@pytest.fixture
def story(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    monkeypatch.setenv("NO_PROXY", "*")  # the lab has no way to any
    given = request.config.getoption("ansible_inventory")
    with contextlib.ExitStack() as stack:
        lab = for_tests.machines("scans", servers=1, agents=1, workdir=tmp_path / "work", here=True)
        inventory = str(given or stack.enter_context(lab))
        if not yaml.safe_load(Path(inventory).read_text())["all"]["vars"]["lab_real_k3s"]:
            pytest.skip("api_semantics: a double has no containerd")
        Lab(inventory).ends(0, "apply")
        made = Story(inventory, tmp_path)
        registry.certify(tmp_path, ["registry.example.org"], made.address)
        try:
            yield made
        finally:
            made.plain.root(made.server, f"k3s kubectl delete pod --ignore-not-found --now {PODS}")
            made.plain.ends(0, "apply")


def test_what_did_not_pass_is_not_let_in_and_what_runs_nevertheless_is_named(story: Story) -> None:
    with story.serving():
        neither_what_was_not_scanned_nor_what_did_not_pass_goes_on_the_list(story)
        what_passed_goes_on_it_and_runs_and_nothing_else(story)
        what_is_planted_is_named_with_digest_node_and_pod(story)
        whatever_becomes_of_the_scanner_nothing_passes(story)
        age_tags_and_bases_are_told(story)
    a_registry_that_is_gone_passes_nothing(story)


def neither_what_was_not_scanned_nor_what_did_not_pass_goes_on_the_list(story: Story) -> None:
    code, said = story.allow(story.app(story.good))
    assert (code, "it was not scanned" in said) == (1, True), said
    for kind in ("grype", "trivy"):
        story.use(kind)
        code, said = story.scan(story.app(story.bad))
        assert code == 2, said
        vulnerable = "(linux/amd64): vulnerable: CVE-2026-1 in openssl 3.0.1 (high, fixed in 3.0.2)"
        assert f"{story.app(story.bad)} {vulnerable}" in said
        code, said = story.allow(story.app(story.bad))
        assert (code, "CVE-2026-1" in said) == (1, True), said
    assert not story.list.exists()


def what_passed_goes_on_it_and_runs_and_nothing_else(story: Story) -> None:
    for image in (story.app(story.good), story.app(story.old), story.app(story.built, "built")):
        code, said = story.scan(image)
        assert code == 0, said
        code, said = story.allow(image)
        assert code == 0, said
    assert story.bad not in story.list.read_text()
    story.give(casemate_image_list=str(story.list))
    story.lab.casemate("apply")
    story.runs("good", story.app(story.good), story.agent)
    story.runs("old", story.app(story.old), story.server)
    story.runs("built", story.app(story.built, "built"), story.server)
    assert "is not on the list of images" in story.pod("bad", story.app(story.bad), story.server)
    story.plain.root(story.server, "k3s kubectl delete pod --now bad")


def what_is_planted_is_named_with_digest_node_and_pod(story: Story) -> None:
    bad = story.app(story.bad)
    story.plain.root(story.agent, f"k3s ctr -n k8s.io images pull --local --hosts-dir {HOSTS} {bad}")
    story.runs("planted", bad, story.agent, "Never")
    code, found = story.judged("images", "scan")
    assert code == 1, "the images that only nodes have are in no registry that is reached"
    bring(story, found)
    code, found = story.judged("images", "scan")
    assert code == 2
    for verb in ("images scan", "check"):
        planted = found[story.agent, SCANNED]
        assert planted["status"] == "fail"
        assert planted["observed"][story.bad]["pods"] == ["default/planted/main"]
        assert f"{bad} in default/planted/main: CVE-2026-1 in openssl" in planted["reason"]
        assert list(planted["observed"]) == [story.bad], verb
        assert planted["where"] == ["pod default/planted/main"]
        assert found[story.server, SCANNED]["status"] == found[story.server, LISTED]["status"] == "pass"
        _, found = story.judged("check") if verb != "check" else (code, found)
    waiver = {"reason": "not reached", "owner": "ops", "expires": "2099-01-01"}
    story.give(casemate_advisory_waivers={"CVE-2026-1": waiver})
    assert story.judged("check")[1][story.agent, SCANNED]["status"] == "pass"
    story.give(casemate_advisory_waivers={})
    story.plain.root(story.server, "k3s kubectl delete pod --now planted")


def bring(story: Story, found: Findings) -> None:
    """Put what the nodes run, and no registry has, into the folder of archives, as the message says."""
    for host in (story.server, story.agent):
        one = found[host, SCANNED]
        lacking = {image["image"]: digest for digest, image in one["observed"].items() if image["state"] == "unscanned"}
        for name in lacking:
            ref = f"k3s ctr -n k8s.io images ls -q name~={name} | grep -m 1 :"
            archive = exported(story.plain, host, f"$({ref})")
            (story.folder / "archives" / f"{name.rpartition('/')[2]}.tar").write_bytes(archive)


def whatever_becomes_of_the_scanner_nothing_passes(story: Story) -> None:
    for path in story.scanner.results.glob("sha256-*"):
        path.unlink()
    good = story.app(story.good)
    for said_of, plan in (
        ("did not end within 10 s", {"does": "hang"}),
        ("cannot be taken for a result", {"does": "garbage"}),
        ("ended with 1: FATAL", {"does": "fail"}),
        ("reports on another image", {"digests": [story.bad]}),
    ):
        story.plan(**plan)
        code, said = story.scan(good)
        assert (code, said_of in " ".join(said.split())) == (1, True), said
    story.plan()
    with story.scanner.scanner.path.open("a") as file:
        file.write("# somebody else's\n")
    code, said = story.scan(good)
    assert (code, "and casemate_image_scans demands" in " ".join(said.split())) == (1, True), said
    code, found = story.judged("images", "scan")
    assert code == 1
    nothing_passes(story, found)
    story.plan(age=9)
    code, found = story.judged("images", "scan")
    assert code == 2
    nothing_passes(story, found)
    assert "database was of" in found[story.agent, SCANNED]["reason"]
    story.plan()
    _, found = story.judged("images", "scan")
    assert {found[host, SCANNED]["status"] for host in (story.server, story.agent)} == {"pass"}


def nothing_passes(story: Story, found: Findings) -> None:
    """Nothing is known of what runs, the list is named, and nothing goes on it."""
    for host in (story.server, story.agent):
        one = found[host, SCANNED]
        assert (one["status"], one["code"], found[host, LISTED]["status"]) == ("not_evaluated", "unscanned", "fail")
    code, said = story.allow(story.app(story.good))
    assert (code, "Nothing goes on the list" in said) == (1, True), said


def age_tags_and_bases_are_told(story: Story) -> None:
    story.runs("tagged", f"{story.registry}/app:1", story.agent)
    _, found = story.judged("images", "scan")
    old = found[story.server, RECENT]
    assert (old["status"], list(old["observed"])) == ("fail", [story.app(story.old)])
    assert "default/old/main: built 2015-06-01" in old["reason"]
    for host in (story.server, story.agent):  # K3s' own come from a registry that the lab does not reach
        one = found[host, TAGS]
        assert (one["status"], one["code"]) == ("not_evaluated", "registry")
        assert not [key for key in one["observed"] if story.registry in key.partition(" of ")[0]]
    assert found[story.server, BASES]["code"] == "undeclared"
    assert story.app(story.built, "built") not in found[story.server, BASES]["reason"]

    story.tags["app"]["1"], story.tags["base"]["1"] = story.moved, story.newer
    story.point()
    _, found = story.judged("images", "scan")
    for verb in ("images scan", "check"):
        tag, base = found[story.agent, TAGS], found[story.server, BASES]
        assert (tag["status"], base["status"]) == ("fail", "fail"), verb
        moved = f"in default/good/main, default/tagged/main: its tag {story.registry}/app:1 is {story.moved} now"
        assert f"{story.app(story.good)} {moved}" in tag["reason"]
        newer = f"in default/built/main: its base {story.registry}/base:1 is {story.newer} now"
        assert f"{story.app(story.built, 'built')} {newer}" in base["reason"]
        assert found[story.agent, BASES]["status"] == "not_evaluated"
        _, found = story.judged("check") if verb != "check" else (0, found)


def a_registry_that_is_gone_passes_nothing(story: Story) -> None:
    _, found = story.judged("images", "scan")
    one = found[story.agent, TAGS]
    assert (one["status"], one["code"]) == ("not_evaluated", "registry")
    told = [image["why"] for key, image in one["observed"].items() if key.startswith(f"{story.registry}/app:1")]
    assert [why for why in told if "it is not reached" in why] == told != []
