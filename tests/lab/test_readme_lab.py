"""A fresh machine is driven by nothing but the README's text: its lines are run as they stand, addresses replaced.

What a lab needs and a stranger's hosts do not (a key, a release without a network) stands in group_vars beside the
inventory; who logs in is named in another way for each command, as people do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from casemate import ROOT
from casemate_lab import for_tests, lab

pytestmark = pytest.mark.lab
NAME = "readme"
README = (ROOT / "README.md").read_text()
BLOCKS = [re.sub("(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^ {4}.*\n)+", README)]
COMMANDS, WAIVER, SIGNING = (
    next(block for block in BLOCKS if block.startswith(start))
    for start in ("make .venv/.ready", "casemate_waivers:", "ssh-keygen")
)
ELSEWHERE = (
    "ansible_user", "casemate_automation_user", "casemate_admin_sources", "casemate_artifact_lock",
    "casemate_allowed_signers",
)  # fmt: skip
"""What the lab's inventory says, and the README or the environment has to say here."""


class Reader:
    """Somebody with a copy of the project, who has machines, and types what the README says."""

    def __init__(self, folder: Path, inventory: Path) -> None:
        given = yaml.safe_load(inventory.read_text())["all"]
        state = lab.load(NAME) or {}
        self.home, self.project = folder / "home", folder / "project"
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
        for name in filter(None, map(os.fsdecode, files)):
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).exists():
                shutil.copy2(ROOT / name, self.project / name, follow_symlinks=False)
        for name in ("uv.lock", "pyproject.toml", ".ci/uv.txt"):
            os.utime(self.project / name, (0, 0))  # what is installed is newer: in here is no network to install from
        for made in (".venv", ".venv-uv"):
            (self.project / made).symlink_to(ROOT / made)
        network = given["vars"]["casemate_admin_sources"][0]
        text = line("casemate init").replace("192.0.2.0/24", network).replace(" --user ops", "")
        for machine, name, address in (("server1", "node1", "203.0.113.11"), ("agent1", "node2", "203.0.113.12")):
            facts = state["machines"][machine]
            text = text.replace(address, facts["address"])
            command = f"echo {name} >/etc/hostname; hostname {name}; echo 127.0.1.1 {name} >>/etc/hosts"
            entered = ["nsenter", f"--target={lab._init(facts)}", "--all", "sh", "-c", command]
            subprocess.run(entered, check=True, timeout=60)
        needed = {name: value for name, value in given["vars"].items() if name not in ELSEWHERE}
        for group in ("all", "k3s_server"):
            more = yaml.safe_load((ROOT / f"inventory/lab/group_vars/{group}.yml").read_text())
            self.say(f"group_vars/{group}.yml", {**(needed if group == "all" else {}), **more})
        (self.home / ".ssh").mkdir(parents=True)
        work = inventory.parent
        for name in ("id_ed25519", "id_ed25519.pub"):
            shutil.copy(work / name, self.home / ".ssh")
        shutil.copy(work / "artifacts.lock.json", self.project)
        (self.home / "as_ops").write_text("Host *\n  User ops\n")
        fine(self.type(text))

    def say(self, path: str, values: object) -> None:
        (self.project / path).parent.mkdir(exist_ok=True)
        (self.project / path).write_text(yaml.safe_dump(values))

    def type(self, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run lines in a shell, in the project's folder; the first one that fails ends it."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "VIRTUAL_ENV", "CASEMATE_"))}
        argv = [*lab.enter(NAME), "bash", "-euo", "pipefail", "-c", text]
        env = {**kept, "HOME": str(self.home), **environment}
        return subprocess.run(
            argv,
            cwd=self.project,
            env=env,
            capture_output=True,
            text=True,
            timeout=990,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with tempfile.TemporaryDirectory(prefix="readme-") as made:  # short, for ssh's sockets lie in its home
        folder = Path(made)
        with for_tests.machines(NAME, servers=1, agents=1, workdir=folder / "work") as inventory:
            yield Reader(folder, inventory)


def fine(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def line(start: str) -> str:
    """The README's line that begins so, with what has to come before it in a new shell."""
    return f"{COMMANDS.splitlines()[0]}\n" + next(text for text in COMMANDS.splitlines() if text.startswith(start))


def test_the_lock_is_signed_as_the_readme_says(reader: Reader) -> None:
    fine(reader.type(SIGNING))
    files = {"casemate_artifact_lock": "artifacts.lock.json", "casemate_allowed_signers": "allowed_signers"}
    known = yaml.safe_load((reader.project / "group_vars/all.yml").read_text())
    reader.say("group_vars/all.yml", {**known, **{name: str(reader.project / file) for name, file in files.items()}})


def test_apply(reader: Reader) -> None:
    """The account is named by the environment."""
    fine(reader.type(line("casemate apply"), ANSIBLE_REMOTE_USER="ops"))
    assert (reader.project / "report/report.html").exists()
    assert (reader.project / "report/report.json").exists()


def test_check(reader: Reader) -> None:
    """The account is named by ssh's own configuration: the very one that apply admitted."""
    known = yaml.safe_load((reader.project / "group_vars/all.yml").read_text())
    options = f"-F {reader.home}/as_ops {known['ansible_ssh_common_args']}"
    reader.say("group_vars/all.yml", {**known, "ansible_ssh_common_args": options})
    fine(reader.type(line("casemate check")))
    reader.say("group_vars/all.yml", known)


def test_explain(reader: Reader) -> None:
    fine(reader.type(line("casemate explain")))


def test_prove(reader: Reader) -> None:
    """The account is named by the environment."""
    fine(reader.type(line("casemate prove"), ANSIBLE_REMOTE_USER="ops"))


def test_the_waiver_and_the_playbook(reader: Reader) -> None:
    """The account is named on the command line of Ansible, which does the same work; then by the inventory."""
    inventory = yaml.safe_load((reader.project / "hosts.yml").read_text())
    inventory["all"]["vars"].update(yaml.safe_load(WAIVER))
    reader.say("hosts.yml", inventory)
    (playbook,) = re.findall(r"`(ansible-playbook playbooks/site.yml [^`]*)`", README)
    fine(reader.type(f"{COMMANDS.splitlines()[0]}\n{playbook} -u ops"))
    inventory["all"]["vars"]["ansible_user"] = "ops"
    reader.say("hosts.yml", inventory)
    fine(reader.type(line("casemate check")))
