"""A lock that two of three have to sign, that ends, and that no older one takes the place of.

Runs on an applied lab, as a part of the drift story, with the double and with a real K3s. It ends as it began.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lab.applied import Lab, failing, messages
from unit import signing

pytestmark = pytest.mark.lab

RECORD, BINARY = "/var/lib/casemate/accepted_lock.json", "/usr/local/bin/k3s"
NEWEST, VALID = "NODE-LOCK-NEWEST", "NODE-LOCK-VALID"
PEOPLE = ("alice", "bob", "carol")
SEEN = f"cat {RECORD} 2>/dev/null || true; systemctl show -P ExecMainStartTimestampMonotonic k3s k3s-agent"


class Ceremony:
    """A lock of the lab's release, three who may sign it, and an inventory that demands two of them."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.plain, self.folder, self.lock = lab, folder, folder / "lock.json"
        self.lock.write_text(Path(lab.known["casemate_artifact_lock"]).read_text())
        for name in PEOPLE:
            signing.key(folder, name)
        keys = (f"{name}@example.org {(folder / f'{name}.pub').read_text()}" for name in PEOPLE)
        (folder / "signers").write_text("".join(keys))
        self.given = {
            "casemate_artifact_lock": str(self.lock),
            "casemate_allowed_signers": str(folder / "signers"),
            "casemate_lock_threshold": 2,
        }
        self.lab = self.by("more.yml", **self.given)

    def by(self, name: str, **values: object) -> Lab:
        """The lab with other values in its inventory."""
        (self.folder / name).write_text(yaml.safe_dump({"all": {"vars": values}}))
        return Lab(self.plain.path, str(self.folder / name))

    def call(self, *arguments: str) -> str:
        """`casemate lock`, as an operator calls it."""
        argv = [str(Path(sys.executable).with_name("casemate")), "lock", *arguments, "--lock", str(self.lock)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sign(self, *people: str) -> None:
        """Have these sign the lock as it is, and nobody else."""
        for old in self.folder.glob("lock.json*.sig"):
            old.unlink()
        for name in people:
            signing.sign(self.lock, self.folder / name, "casemate-lock")
            (self.folder / "lock.json.sig").rename(self.folder / f"lock.json.{name}.sig")

    def records(self) -> dict[str, str]:
        """What each host says of the lock that it accepted, and since when its K3s runs."""
        return {host: self.plain.root(host, SEEN) for host in self.plain.hosts}


@pytest.fixture
def ceremony(lab: Lab, tmp_path: Path) -> Iterator[Ceremony]:
    yield Ceremony(lab, tmp_path)
    for host in lab.hosts:
        lab.root(host, f"rm -f {RECORD}")
    lab.ends(0, "check")


def test_two_of_three_sign_what_two_channels_agree_on(ceremony: Ceremony, tmp_path: Path) -> None:
    lab, version = ceremony.lab, str(ceremony.plain.known["casemate_k3s_version"])
    folder = Path(ceremony.plain.known["casemate_artifact_dir"])
    names = [path.name for path in folder.glob("k3s*") if path.suffix != ".txt"]
    sums = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True).stdout
    (tmp_path / "mirror.txt").write_bytes(sums)
    channels = [f"--channel=download={folder}", f"--channel=mirror={tmp_path / 'mirror.txt'}"]
    images = [] if "k3s-airgap-images-amd64.tar.zst" in names else ["--without-images"]
    added = ["add", version, *channels, "--architecture", "amd64", *images, "--expires", "2098-12-31"]
    assert "serial 1" in ceremony.call(*added)
    before = ceremony.records()

    # Nobody is connected to: at this port nobody would answer, which ended in 3.
    ceremony.sign("alice")
    away = ceremony.by("away.yml", **ceremony.given, ansible_port=1)
    said = messages(away.ends(1, "apply"))
    assert "needs 2 signers (casemate_lock_threshold) and has 1 of 3 (alice@example.org)" in said
    assert "missing: bob@example.org, carol@example.org" in said
    assert ceremony.records() == before

    ceremony.sign("alice", "carol")
    report = lab.ends(0, "apply")
    changed = {one["control"] for host in report["hosts"] for one in host["findings"] if one["action"] == "changed"}
    assert changed == {NEWEST}
    after = ceremony.records()
    assert after == {host: f'{{"serial": 1}}\n{said}' for host, said in before.items()}  # and no K3s started again
    assert lab.ends(0, "apply")["summary"]["changed"] == 0
    assert ceremony.records() == after


def test_an_older_lock_is_refused_wherever_somebody_knows_a_newer_one(ceremony: Ceremony) -> None:
    lab, host = ceremony.lab, ceremony.plain.server
    ceremony.call("renew", "--expires", "2098-12-31")
    first = ceremony.lock.read_text()
    ceremony.call("renew", "--expires", "2099-12-31")
    ceremony.sign("alice", "bob")
    lab.ends(0, "apply")
    ceremony.lock.write_text(first)
    ceremony.sign("alice", "bob")
    before = ceremony.records()
    assert "has the serial 1, and this host accepted one with 2" in messages(lab.ends(1, "apply"))
    report = lab.ends(2, "check")
    wrong = {one["control"] for judged in report["hosts"] for one in judged["findings"] if one["status"] == "fail"}
    assert wrong == {NEWEST}, failing(report)
    assert ceremony.records() == before

    # A host that knows nothing, in a run of its own: its server does.
    new = ceremony.plain.agent
    ceremony.plain.root(new, f"rm {RECORD}")
    said = messages(lab.ends(1, "apply", "--limit", new))
    assert f"{host}: casemate_artifact_lock" in said
    assert "accepted one with 2" in said
    assert ceremony.plain.root(new, f"test ! -e {RECORD} && echo none") == "none\n"


def test_a_lock_that_is_over_is_a_finding_and_installs_nothing(ceremony: Ceremony) -> None:
    lab, host = ceremony.lab, ceremony.plain.server
    ceremony.call("renew", "--expires", "2098-12-31")
    over = {**json.loads(ceremony.lock.read_text()), "issued": "2025-01-01", "expires": "2025-12-31"}
    ceremony.lock.write_text(json.dumps(over, indent=2))
    ceremony.sign("bob", "carol")
    for verb in ("check", "apply", "check"):
        report = lab.ends(2, verb)
    wrong = {one["control"] for judged in report["hosts"] for one in judged["findings"] if one["status"] == "fail"}
    assert wrong == {VALID}, failing(report)
    size = ceremony.plain.root(host, f"stat -c %s {BINARY}; cp -p {BINARY} {BINARY}.kept; printf x >>{BINARY}")
    try:
        said = messages(lab.ends(1, "apply"))
        assert "another K3s is installed here, so nothing is installed" in said
        assert "ended on 2025-12-31" in said
        assert "casemate lock renew" in said
    finally:
        ceremony.plain.root(host, f"mv {BINARY}.kept {BINARY}; test $(stat -c %s {BINARY}) = {size.strip()}")
