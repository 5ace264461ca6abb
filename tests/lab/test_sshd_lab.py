"""Ways in which others run sshd, and know its host: each machine is hardened over SSH, and found once for what it is.

First every machine is hardened from a controller that knows it as its case says; then sshd is changed by hand, looked
at, hardened again and looked at again. What a controller does not know yet is told as a line of known_hosts, which is
what the second run goes on with.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from casemate import ROOT
from casemate_lab import for_tests, lab
from casemate_lab.image import RELEASES

pytestmark = pytest.mark.lab
KEY = "/etc/ssh/ssh_host_ed25519_key"
FIRST, SECOND = "hardened", "hardened again"
SOCKET = "systemctl disable --now ssh.service; systemctl enable --now ssh.socket"
DRIFT = "sed -i 's/^maxauthtries .*/maxauthtries 6/' /etc/ssh/sshd_config.d/00-casemate.conf"


class Case(NamedTuple):
    """How a machine is, how the controller knows it, what is changed by hand later, and what is then found."""

    before: str = "true"
    knows: tuple[str, ...] = ("ed25519",)
    hashed: bool = False
    options: str = "-o StrictHostKeyChecking=yes"
    by_hand: str = "true"
    found: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    port: int = 22


CASES = {
    "as installed": Case(),
    "by systemd's socket": Case(SOCKET),
    "by systemd's socket, drifted": Case(SOCKET, by_hand=DRIFT, found=("SSH-TRIES-LIMITED",)),
    "moved to systemd's socket": Case(by_hand=SOCKET),
    "stopped": Case(by_hand="systemctl stop ssh.service", found=("SSH-DAEMON-CURRENT",), left=("SSH-DAEMON-CURRENT",)),
    "without its key": Case(f"rm {KEY} {KEY}.pub; systemctl restart ssh", ("rsa",)),
    "its key lost": Case(by_hand=f"rm {KEY} {KEY}.pub", found=("SSH-HOSTKEY-ED25519",)),
    "known by RSA": Case(knows=("rsa",)),
    "known by ECDSA, hashed": Case(knows=("ecdsa",), hashed=True),
    "known by an authority": Case(knows=("authority",)),
    "known on its port": Case(
        "echo Port 2222 >/etc/ssh/sshd_config.d/50-port.conf; systemctl restart ssh", ("rsa",), port=2222
    ),
    "known by nothing, and taken": Case(knows=(), options="-o StrictHostKeyChecking=accept-new"),
}
TOLD = {case for case, one in CASES.items() if "ed25519" not in one.knows and "yes" in one.options}


class Machines:
    """The machines of one Debian, one for each case."""

    def __init__(self, name: str, inventory: Path, folder: Path) -> None:
        self.said: dict[str, str] = {}
        self.name, self.folder = name, folder
        self.given = yaml.safe_load(inventory.read_text())
        hosts = self.given["all"]["children"]["k3s_agent"]["hosts"]
        self.hosts, self.state = dict(zip(CASES, hosts, strict=True)), lab.load(self.name) or {}
        self.facts = {case: hosts[host] for case, host in self.hosts.items()}
        for case, one in CASES.items():
            self.console(case, one.before)
            self.know(case, one)
            shared = re.sub(r"-o (UserKnownHostsFile|StrictHostKeyChecking)=\S+", "", self.shared)
            options = f"{shared} {one.options} -o UserKnownHostsFile={self.known(case)}"
            self.facts[case].update(ansible_ssh_common_args=options, ansible_port=one.port)
        (folder / "hosts.yml").write_text(yaml.safe_dump(self.given))

    @property
    def shared(self) -> str:
        return str(self.given["all"]["vars"]["ansible_ssh_common_args"])

    def known(self, case: str) -> Path:
        return self.folder / f"known-{self.hosts[case]}"

    def know(self, case: str, one: Case) -> None:
        """Write down how the controller knows a machine."""
        file, address, lines = self.known(case), self.facts[case]["ansible_host"], []
        name = address if one.port == 22 else f"[{address}]:{one.port}"
        for sort in one.knows:
            if sort == "authority":
                authority = self.folder / "authority"
                if not authority.exists():
                    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(authority)], check=True)
                (self.folder / "host.pub").write_text(self.console(case, "cat /etc/ssh/ssh_host_rsa_key.pub"))
                argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "host", "-h", "-n", address]
                subprocess.run([*argv, str(self.folder / "host.pub")], check=True, capture_output=True)
                cert = (self.folder / "host-cert.pub").read_text()
                given = "HostCertificate /etc/ssh/host-cert.pub"
                self.console(case, f"echo '{cert}' >/etc/ssh/host-cert.pub; systemctl restart ssh")
                self.console(case, f"echo '{given}' >/etc/ssh/sshd_config.d/50-cert.conf; systemctl restart ssh")
                lines.append(f"@cert-authority {address} {authority.with_suffix('.pub').read_text()}")
            else:
                lines.append(f"{name} {self.console(case, f'cat /etc/ssh/ssh_host_{sort}_key.pub')}")
        file.write_text("".join(line.rstrip() + "\n" for line in lines))
        if one.hashed:
            subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)

    def console(self, case: str, command: str) -> str:
        """Run a command as root without any login."""
        init = lab._init(self.state["machines"][self.hosts[case]])
        argv = ["nsenter", f"--target={init}", "--all", "sh", "-c", command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{case}: {command}: {done.stderr}"
        return done.stdout.strip()

    def play(self, step: str, *tasks: dict[str, Any]) -> None:
        """Run tasks on all machines; what each said is kept, whether it worked or not."""
        play = {"hosts": "k3s_agent", "gather_facts": False, "become": True, "tasks": list(tasks)}
        play["vars_files"] = [str(ROOT / "playbooks/group_vars/all.yml")]
        path = self.folder / f"{step.replace(' ', '-')}.yml"
        path.write_text(json.dumps([play]))
        argv = [*lab.enter(self.name), "ansible-playbook", "-i", str(self.folder / "hosts.yml"), str(path)]
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        env["PATH"] = f"{ROOT / '.venv/bin'}:{env['PATH']}"
        done = subprocess.run(
            argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900, check=False, stdin=subprocess.DEVNULL
        )
        self.said[step] = done.stdout + done.stderr
        path.with_suffix(".log").write_text(self.said[step])

    def look(self, step: str) -> None:
        """What every control of SSH says."""
        checked: dict[str, Any] = {"k3s_controls": {"roles": ["k3s_access"]}, "check_mode": True, "register": "checked"}
        found = {
            "content": "{{ checked.findings | to_json }}",
            "dest": f"{self.folder}/{step}-{{{{ inventory_hostname }}}}",
        }
        kept: dict[str, Any] = {"ansible.builtin.copy": found, "delegate_to": "localhost"}
        self.play(step, checked, {**kept, "connection": "local", "become": False})

    def recap(self, step: str, case: str) -> dict[str, int]:
        """Ansible's counts for a machine."""
        line = re.search(rf"(?m)^{self.hosts[case]}\s+: (.*)$", self.said[step])
        assert line, self.said[step]
        return {name: int(count) for name, count in (pair.split("=") for pair in line[1].split())}

    def failing(self, step: str, case: str) -> dict[str, str]:
        """Control -> reason of each finding that fails."""
        found = json.loads((self.folder / f"{step}-{self.hosts[case]}").read_text())
        return {f["control"]: f["reason"] for f in found if f["status"] != "pass"}

    def stay_connected(self) -> None:
        """Keep a connection open where sshd is going to be stopped, so that Ansible can still look."""
        for case, one in CASES.items():
            if "stop ssh" in one.by_hand:
                path = f"{self.folder}/open-{self.hosts[case]}"
                options = f"-o ControlMaster=auto -o ControlPersist=900 -o ControlPath={path}"
                self.facts[case]["ansible_ssh_args"] = options
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(self.given))
        self.play("connected", {"ansible.builtin.ping": {}})


def hardened(machines: Machines) -> Machines:
    """The whole story of one Debian."""
    role = {"ansible.builtin.include_role": {"name": "k3s_access"}}
    machines.play(FIRST, role)
    for case in TOLD:
        host, said = machines.hosts[case], machines.said[FIRST]
        line = re.search(rf"{host} now proves itself .*add this line to (\S+): (.*)$", said, re.MULTILINE)
        assert line and line[1] == str(machines.known(case)), said
        with machines.known(case).open("a") as known:
            known.write(f"{line[2]}\n")

    machines.stay_connected()
    for case, one in CASES.items():
        machines.console(case, one.by_hand)
    machines.look("seen")
    machines.play(SECOND, role)
    machines.look("end")
    return machines


@pytest.fixture(scope="module", params=RELEASES)
def machines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder, name = tmp_path_factory.mktemp("lab"), f"sshd-{request.param}"
    asked = {"servers": 0, "agents": len(CASES), "workdir": folder / "work", "debian": request.param}
    with for_tests.machines(name, **asked) as inventory:
        yield hardened(Machines(name, inventory, folder))


@pytest.mark.parametrize("case", CASES)
def test_a_machine_is_hardened_and_found_once_for_what_it_is(machines: Machines, case: str) -> None:
    one, first = CASES[case], machines.recap(FIRST, case)
    assert (first["failed"], first["unreachable"], first["changed"] > 0) == (0, 0, True), machines.said[FIRST]
    assert tuple(machines.failing("seen", case)) == one.found
    assert tuple(machines.failing("end", case)) == one.left
    if not one.left:
        second = machines.recap(SECOND, case)
        assert (second["failed"], second["unreachable"], second["changed"] > 0) == (0, 0, bool(one.found))
    assert (f"{machines.hosts[case]} now proves itself by a key" in machines.said[FIRST]) is (case in TOLD)


def test_what_is_found_says_what_to_do(machines: Machines) -> None:
    assert "systemctl start ssh.service" in machines.failing("seen", "stopped")["SSH-DAEMON-CURRENT"]
    assert f"there is no {KEY}" in machines.failing("seen", "its key lost")["SSH-HOSTKEY-ED25519"]
