"""People on a machine that was applied: who is declared comes in as declared, who is revoked is out within one apply.

Runs as a part of the host story, on a machine without K3s. What commands say is compared in the C locale: the machine
may speak German.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab import sending, token_agent
from lab.applied import Lab
from lab.patient import admitted
from lab.totp import Phone, code

from casemate import ROOT

pytestmark = pytest.mark.lab

KINDS = (
    "person", "sessions", "folder", "file", "sshd", "vouched_state", "home", "account", "package", "pam_line",
    "pam_stack", "totp_secrets",
)  # fmt: skip


class Host:
    """The one machine, and the roles of the host story as they are applied to it."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder, self.name = lab, folder, lab.server
        self.people: list[dict[str, Any]] = lab.known["casemate_people"]

    def root(self, script: str) -> str:
        return self.lab.root(self.name, f"LC_ALL=C; export LC_ALL\n{script}")

    def login(
        self, name: str, command: str = "true", key: str = "", *options: str, said: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A fresh login as somebody with the key that the lab made for them."""
        argv = ["ssh", *self.lab.known["ansible_ssh_common_args"].split(), "-o", "BatchMode=yes", *options]
        argv += ["-o", "ControlPath=none", "-i", key or self.key(name), f"{name}@{self.lab.hosts[self.name]}", command]
        return admitted(argv, text=True, timeout=60, input=said)

    def key(self, name: str) -> str:
        """The key that the lab made for somebody."""
        return str(Path(self.lab.known["lab_person_key"]).with_name(f"{name}_ed25519"))

    def apply(self, people: list[dict[str, Any]] | None = None, *more: str) -> str:
        """Apply the roles of the host story, with other people where these are given; all that Ansible says."""
        values = {"casemate_people": self.people if people is None else people}
        overlay = self.folder / "overlay.yml"
        overlay.write_text(yaml.safe_dump({"all": {"vars": values}}))
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "molecule/host/converge.yml"]
        argv += ["-i", self.lab.path, "-i", "molecule/host/inventory/hosts.yml", "-i", str(overlay), *more]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "4000"}
        self.root("true")  # Ansible has no patience with a daemon that turns it away after what was refused here
        done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    def failing(self) -> dict[str, str]:
        """Control -> reason, of all about people that fail now."""
        (machine,) = sending.machines(self.lab.path)
        controls = [
            one for one in machine.controls if one["setting"]["kind"] in KINDS and one.get("vantage", "self") == "self"
        ]
        controls = [one for one in controls if one["role"] in ("k3s_host", "k3s_access")]
        found = machine.ran({"__main__.py": LOOK}, {"controls": controls, "context": machine.context})
        return {one["control"]: one["reason"] for one in found["findings"] if one["status"] in ("fail", "error")}


LOOK = """
import json, sys, zipfile
from module_utils.casemate.engine.run import run
from module_utils.casemate.host.machine import Host
given = json.loads(zipfile.ZipFile(sys.argv[0]).read("given.json"))
catalogue = {}
for control in given["controls"]:
    catalogue.setdefault(control["role"], []).append(control)
print(json.dumps({"findings": run(catalogue, Host(context=given["context"]), check=True).findings}))
"""


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    path = request.config.getoption("ansible_inventory")
    if not path:
        pytest.skip("inventory: a machine of a lab that was applied is needed; the host story has one")
    with tempfile.TemporaryDirectory() as folder:
        yield Host(Lab(str(path)), Path(folder))


def of(host: Host, name: str, **change: Any) -> dict[str, Any]:
    """Somebody as the inventory declares them, or a little different."""
    return {**next(one for one in host.people if one["name"] == name), **change}


def with_token(host: Host, verifies: bool) -> subprocess.CompletedProcess[str]:
    """A login as Dave with a token of software that verifies him, or does not."""
    private, public = Path(host.key("dave")), Path(host.key("dave")).with_name("dave_token.pub")
    with token_agent.agent(host.folder, private, verifies) as agent:
        return host.login("dave", "id -un", str(public), "-o", f"IdentityAgent={agent}")


def test_who_is_declared_comes_in_with_the_key_that_is_declared(host: Host) -> None:
    assert host.login("alice", "id -un").stdout.strip() == "alice"
    assert "operators" in host.login("alice", "id -Gn").stdout.split()
    wrong = host.login("alice", key=host.lab.known["ansible_ssh_private_key_file"])
    assert wrong.returncode == 255 and "Permission denied" in wrong.stderr
    assert host.login("carol").returncode == 255, "who is revoked"


def test_sudo_is_as_declared(host: Host) -> None:
    refused = host.login("alice", "LC_ALL=C sudo -n id -u")
    assert refused.returncode != 0 and "password is required" in refused.stderr
    password = Path(host.lab.known["lab_person_password_file"]).read_text()
    became = host.login("alice", "LC_ALL=C sudo -S -p '' id -u", said=f"{password}\n")
    assert became.stdout.strip() == "0", became.stderr
    assert "not allowed" in host.root("sudo -l -U dave")


def test_a_key_of_ones_own_does_not_count(host: Host) -> None:
    public = Path(host.key("carol")).with_suffix(".pub").read_text().strip()
    host.root(f"runuser -u alice -- sh -c 'echo {public} >~/.ssh/authorized_keys2'")
    try:
        assert host.login("alice", key=host.key("carol")).returncode == 255
    finally:
        host.root("rm /home/alice/.ssh/authorized_keys2")


def test_homes_are_their_owners_alone(host: Host) -> None:
    for name in ("alice", "carol", "dave"):
        mode, owner = host.root(f"stat -c '%a %U' /home/{name}").split()
        assert int(mode, 8) & 0o027 == 0 and owner == name


def test_who_needs_a_second_factor_does_not_come_in_without_it(host: Host) -> None:
    refused = with_token(host, verifies=False)
    assert refused.returncode == 255 and "Permission denied" in refused.stderr
    assert with_token(host, verifies=True).stdout.strip() == "dave"
    assert host.login("dave").returncode == 255, "the same key without the token"
    assert host.root("id -un").strip() == "root", "the automation account needs none"


def test_a_second_factor_is_not_the_persons_to_leave_out(host: Host) -> None:
    """sshd demands it whatever the line of the key says."""
    file = "/etc/ssh/casemate_people/dave"
    host.root(f"sed -i.bak 's/^verify-required //' {file}; ! grep -q verify-required {file}")
    try:
        assert with_token(host, verifies=False).returncode == 255
    finally:
        host.root(f"mv {file}.bak {file}")


@pytest.fixture(scope="module")
def phone(host: Host) -> Phone:
    """What Erin has her secret in."""
    return Phone(Path(of(host, "erin")["totp_secret_file"]).read_text())


CODES = "/var/lib/casemate/totp/erin"
FORGET_TRIES = r"""sed -i 's/^\(" RATE_LIMIT [0-9]* [0-9]*\).*/\1/' """ + CODES
FORGET_CODES = r"""sed -i 's/^\(" DISALLOW_REUSE\).*/\1/' """ + CODES
"""Have the module forget when it was asked, and which codes it took. Its pace is what test_codes_on_debian.py tries; to
wait for it here, and for a code that was never used, would take half a minute each time."""


def with_code(host: Host, phone: Phone, make: Callable[[], str], *options: str) -> subprocess.CompletedProcess[str]:
    """A login as Erin with her key, unless options say otherwise, and the code that is made once sshd listens."""
    host.root(FORGET_TRIES)
    asked = host.folder / "askpass"
    asked.write_text(f"#!/bin/sh\necho {make()}\n")
    asked.chmod(0o700)
    argv = ["ssh", *host.lab.known["ansible_ssh_common_args"].split(), *options, "-o", "ControlPath=none"]
    argv += ["-o", "NumberOfPasswordPrompts=1", "-i", host.key("erin"), f"erin@{host.lab.hosts[host.name]}", "id -un"]
    environment = {**os.environ, "SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force"}
    return admitted(argv, text=True, timeout=60, stdin=subprocess.DEVNULL, env=environment)


def with_new_code(host: Host, phone: Phone, *options: str) -> subprocess.CompletedProcess[str]:
    """The same with a code that is right now, and that the module does not know for a used one."""
    host.root(FORGET_CODES)
    return with_code(host, phone, phone.right, *options)


def is_refused(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 255 and "Permission denied" in done.stderr


def test_codes_are_those_of_the_standard() -> None:
    """The last six digits of the test vectors of RFC 6238, Appendix B."""
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    assert [code(secret, at // 30) for at in (59, 1111111109, 2000000000)] == ["287082", "081804", "279037"]


def test_who_needs_a_code_does_not_come_in_without_it(host: Host, phone: Phone) -> None:
    without = host.login("erin")
    assert is_refused(without) and "Permission denied (keyboard-interactive)." in without.stderr
    assert is_refused(with_code(host, phone, phone.wrong))
    came = with_new_code(host, phone)
    assert came.stdout.strip() == "erin", came.stderr
    assert is_refused(with_code(host, phone, phone.again)), "the same code again"
    came = with_new_code(host, phone)
    assert came.stdout.strip() == "erin", came.stderr


def test_a_code_without_the_key_is_worth_nothing(host: Host, phone: Phone) -> None:
    for options in (["-o", "PreferredAuthentications=keyboard-interactive"], ["-o", "PubkeyAuthentication=no"]):
        refused = with_new_code(host, phone, *options)
        assert is_refused(refused) and "Permission denied (publickey)." in refused.stderr


def test_nobody_else_is_asked_for_anything(host: Host) -> None:
    assert host.login("alice", "id -un", "", "-o", "PreferredAuthentications=publickey").stdout.strip() == "alice"
    assert host.root("id -un").strip() == "root", "the automation account"
    password = Path(host.lab.known["lab_person_password_file"]).read_text()
    assert host.login("alice", "LC_ALL=C sudo -S -p '' id -u", said=f"{password}\n").stdout.strip() == "0"


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("/etc/pam.d/common-auth", "/pam_google_authenticator/d; /service in sshd/d", "TOTP-CODE-ASKED"),
        ("/etc/pam.d/common-auth", "s/\\(pam_google_authenticator.*\\)/\\1 nullok/", "TOTP-CODE-ASKED"),
        (CODES, "1d", "PEOPLE-SECRETS-DECLARED"),
        (CODES, "/DISALLOW_REUSE/d", "PEOPLE-SECRETS-DECLARED"),
        ("/etc/ssh/sshd_config.d/00-casemate.conf", "/authenticationmethods/d", "PEOPLE-CODE-ASKED"),
    ],
    ids=["the line removed", "nullok", "the secret emptied", "a code twice", "the key alone"],
)
def test_what_weakens_it_is_named_by_its_own_control_and_healed(
    host: Host, phone: Phone, file: str, change: str, named: str
) -> None:
    host.root(f"cp -a {file} /root/kept; sed -i '{change}' {file}; ! cmp -s {file} /root/kept")
    healed = False
    try:
        assert set(host.failing()) - {"SSH-DAEMON-CURRENT"} == {named}
        host.apply()
        healed = host.failing() == {}
        assert healed
    finally:
        host.root(f"{'true' if healed else f'cp -a /root/kept {file}'}; rm /root/kept")
    assert is_refused(host.login("erin"))
    came = with_new_code(host, phone)
    assert came.stdout.strip() == "erin", came.stderr


def test_no_secret_is_shown_whatever_is_asked_for(host: Host, phone: Phone) -> None:
    host.root(f"sed -i 1d {CODES}")
    said = host.apply(None, "-vvv", "--diff")
    assert CODES in said, "it was written"
    assert phone.secret not in said
    host.root(f"sed -i 1d {CODES}")
    assert phone.secret not in host.apply(None, "-vvv", "--diff", "--check")
    host.apply()
    kept = host.root("journalctl -b -o cat --no-pager; grep -rs . /var/lib/casemate --exclude-dir=totp || :")
    assert phone.secret not in kept


def test_strangers_are_named(host: Host) -> None:
    host.root("useradd -m eve; echo 'eve ALL=(ALL) ALL' >/etc/sudoers.d/eve; chmod 440 /etc/sudoers.d/eve")
    try:
        failing = host.failing()
    finally:
        host.root("userdel -r eve; rm /etc/sudoers.d/eve")
    assert "account/eve" in failing["PEOPLE-ACCOUNTS-KNOWN"] and "userdel eve" in failing["PEOPLE-ACCOUNTS-KNOWN"]
    assert "/etc/sudoers.d/eve:1" in failing["SUDO-RULES-DECLARED"]


def test_nothing_is_left_over_and_a_second_apply_changes_nothing(host: Host) -> None:
    assert host.failing() == {}
    assert " changed=0 " in host.apply()


@pytest.fixture(scope="module")
def otherwise(host: Host) -> Host:
    """Carol is back, John is new, Dave needs no second factor, and Alice may come from elsewhere only."""
    keys = ['from="192.0.2.7" ' + line.split(" ", 1)[1] for line in of(host, "alice")["keys"]]
    john = {"name": "john.doe", "uid": 1717, "groups": ["operators", "auditors"], "expires": "2097-12-31"}
    host.apply([
        of(host, "alice", keys=keys),
        of(host, "carol", state="present", groups=["operators"], sudo="without_password"),
        of(host, "dave", second_factor="none"),
        {"name": "erin", "state": "revoked"},
        {**john, "keys": ["{{ lookup('ansible.builtin.file', lab_person_key | dirname + '/lock_signer.pub') }}"]},
    ])  # fmt: skip
    return host


def test_somebody_new_gets_an_account_and_a_home_that_is_closed(otherwise: Host) -> None:
    key = str(Path(otherwise.key("carol")).with_name("lock_signer"))
    said = otherwise.login("john.doe", "id -u; id -Gn; stat -c %a ~", key=key).stdout.split()
    assert said[0] == "1717" and {"operators", "auditors"} <= set(said)
    assert int(said[-1], 8) & 0o027 == 0


def test_who_is_revoked_has_no_secret_and_where_nobody_needs_a_code_none_is_asked(otherwise: Host) -> None:
    assert otherwise.root(f"ls -A {Path(CODES).parent}") == ""
    assert "google" not in otherwise.root("cat /etc/pam.d/common-auth; ls /usr/share/pam-configs")
    assert "authenticationmethods any" in otherwise.root("sshd -T -C user=erin")
    assert is_refused(otherwise.login("erin"))


def test_a_key_from_elsewhere_is_refused(otherwise: Host) -> None:
    assert otherwise.login("alice").returncode == 255


def test_where_nobody_asks_for_it_a_token_gets_in_without_verifying(otherwise: Host) -> None:
    assert with_token(otherwise, verifies=False).stdout.strip() == "dave"


@pytest.fixture(scope="module")
def revoked(otherwise: Host) -> Host:
    """Carol is revoked while she is there, as root too; Alice's last day is over; John is on no list any more."""
    host = otherwise
    assert host.login("carol", "sudo -n id -u").stdout.strip() == "0"
    argv = ["ssh", *host.lab.known["ansible_ssh_common_args"].split(), "-o", "BatchMode=yes", "-i", host.key("carol")]
    argv += [f"carol@{host.lab.hosts[host.name]}", "sudo -n sleep 998 & sleep 999"]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as there:
        end = time.monotonic() + 30
        while "sleep 998" not in host.root("ps ax -o args") and time.monotonic() < end:
            time.sleep(0.2)
        host.root("date >/home/carol/notes; pkill -KILL -U john.doe || :")
        host.apply([of(host, "alice", expires="2026-01-31"), of(host, "carol"), of(host, "dave"), of(host, "erin")])
        assert there.wait(timeout=30) != 0
    return host


def test_who_is_revoked_is_out_within_one_apply(revoked: Host) -> None:
    assert not {"sleep 998", "sudo -n sleep 998", "sleep 999"} & set(revoked.root("ps ax -o args").splitlines())
    gone = revoked.login("carol")
    assert gone.returncode == 255 and "Permission denied" in gone.stderr
    assert revoked.root("getent shadow carol").split(":")[1][0] == "!"
    assert revoked.root("id -Gn carol").split() == ["carol"]
    assert "not allowed" in revoked.root("sudo -l -U carol")
    assert revoked.root("cat /home/carol/notes"), "files are kept"
    assert revoked.root("ls /etc/ssh/casemate_people").split() == ["alice", "dave", "erin"]


def test_an_account_ends_with_its_last_day(revoked: Host) -> None:
    assert revoked.root("getent shadow alice").strip().split(":")[7] == "20485"
    assert revoked.login("alice").returncode == 255


def test_who_is_taken_off_the_list_is_a_stranger_and_stays_out(revoked: Host) -> None:
    key = str(Path(revoked.key("carol")).with_name("lock_signer"))
    assert revoked.login("john.doe", key=key).returncode == 255
    assert "account/john.doe" in revoked.failing()["PEOPLE-ACCOUNTS-KNOWN"]
    revoked.root(
        "while pgrep -U john.doe >/dev/null; do sleep 0.1; done; userdel -r john.doe 2>/dev/null; groupdel auditors"
    )


def test_all_is_as_it_was_after_one_more_apply(revoked: Host) -> None:
    revoked.apply()
    assert revoked.failing() == {}
    assert revoked.login("alice").returncode == 0
    assert with_token(revoked, verifies=False).returncode == 255
