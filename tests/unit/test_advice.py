"""What stopped Ansible: its own words, recorded from real runs, and what to do about it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from casemate.ansible.action import k3s_artifact
from casemate.run import advice, escalation, runner

SSH = 'Data could not be sent to remote host "198.18.106.10". Make sure this host can be reached over ssh: '
BANNER = "Authorised use only. What happens here is recorded.\r\n"
NO_JSON = "Module result deserialization failed: No start of json char found"
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "requiretty": ({"msg": NO_JSON, "module_stderr": "sudo: sorry, you must have a tty to run sudo\n"}, "!requiretty"),
    "no password": ({"msg": "Task failed: Missing sudo password"}, "NOPASSWD"),
    "wrong password": ({"msg": "Task failed: Incorrect sudo password"}, "correct ansible_become_password"),
    "su asks": ({"msg": "Timeout (22s) waiting for privilege escalation prompt: "}, "NOPASSWD"),
    "not in sudoers": ({"msg": "ops is not in the sudoers file."}, "/etc/sudoers.d"),
    "not allowed": ({"msg": "Sorry, user ops is not allowed to execute '/bin/sh' as root on n1."}, "/etc/sudoers.d"),
    "no sudo": ({"msg": NO_JSON, "module_stderr": "/bin/sh: 1: sudo: not found\n"}, "apt-get install sudo"),
    "no setuid": (
        {"msg": NO_JSON, "module_stderr": "sudo: /usr/bin/sudo must be owned by uid 0 and have the setuid bit set\n"},
        "reinstall sudo",
    ),
    "sudoers": ({"msg": "/etc/sudoers.d/zz-test:1:14: syntax error"}, "visudo"),
    "no such method": ({"msg": "Invalid become method specified, could not find matching plugin: 'doas'."}, "by sudo"),
    "nologin": ({"msg": NO_JSON, "module_stdout": "This account is currently not available.\r\n"}, "login shell"),
    "key refused": ({"msg": f"{SSH}{BANNER}ops@198.18.106.10: Permission denied (publickey)."}, "ansible_user"),
    "host key unknown": (
        {"msg": f"{SSH}No ED25519 host key is known for 198.18.106.10 and you have requested strict checking.\r\n"
                "Host key verification failed."}, "known_hosts",
    ),
    "host key changed": (
        {"msg": f"{SSH}@@@@@@@\r\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n@@@@@@@\r\n"
                "IT IS POSSIBLE THAT SOMEONE IS DOING IT!\r\nHost key verification failed."}, "ssh-keygen -R",
    ),
    "sockets in a deep home": (
        {"msg": f"{SSH}unix_listener: path \"/home/{'x' * 80}/.ansible/cp/f42f7c.rdtA\" too long for Unix domain "
                "socket"}, "ANSIBLE_SSH_CONTROL_PATH_DIR",
    ),
    "refused": ({"msg": f"{SSH}ssh: connect to host 198.18.106.10 port 2: Connection refused"}, "ansible_port"),
    "timed out": ({"msg": f"{SSH}ssh: connect to host 198.18.106.10 port 22: Connection timed out"}, "is up"),
    "no route": ({"msg": f"{SSH}ssh: connect to host 198.18.106.99 port 22: No route to host"}, "is up"),
    "unresolved": ({"msg": f"{SSH}ssh: Could not resolve hostname n.invalid: Name or service not known"}, "DNS"),
    "jump host": (
        {"msg": f"{SSH}ssh: connect to host 198.18.106.250 port 22: No route to host\r\n"
                "kex_exchange_identification: Connection closed\r\nConnection closed by UNKNOWN port 65535"},
        "jump host",
    ),
    "no account here": ({"msg": f"{SSH}No user exists for uid 12345"}, "/etc/passwd"),
    "ssh option": ({"msg": f"{SSH}command-line: line 0: Bad configuration option: nosuch"}, "ansible_ssh_common_args"),
    "expired": ({"msg": f"{SSH}Connection closed by 198.18.106.10 port 22"}, "expired"),
    "ended at once": (
        {"msg": "Data could not be sent to remote host '198.18.106.10'. Make sure this host can be reached over SSH: "
                "[Errno 32] Broken pipe"}, "ansible_python_interpreter",
    ),
    "no python": (
        {"msg": "The module interpreter '/usr/bin/python9' was not found.",
         "module_stderr": "/bin/sh: 1: /usr/bin/python9: not found\n"}, "install python3",
    ),
    "full": ({"msg": "mkdir: cannot create directory '/home/ops/.ansible/tmp': No space left on device"}, "disk space"),
    "home": ({"msg": "mkdir: cannot create directory '/home/o/.ansible/tmp': Permission denied"}, "ansible_remote_tmp"),
    "inline vault": ({"msg": "Task failed: Attempting to decrypt but no vault secrets found."}, "VAULT_PASSWORD_FILE"),
    "undefined": ({"msg": "Error processing keyword 'remote_addr': 'nowhere' is undefined"}, "define that variable"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "remedy"), CASES.values(), ids=CASES)
def test_a_common_cause_is_told_with_what_to_do(said: dict[str, Any], remedy: str) -> None:
    explanation, arrow, todo = advice.explain(said).rpartition("\n-> ")
    assert arrow and remedy in todo
    assert "Data could not be sent" not in explanation and "deserialization" not in explanation.partition("\n")[2]
    assert "@@@" not in explanation and "Authorised" not in explanation


@pytest.mark.parametrize(
    ("rest", "head", "todo"),
    [
        (["[ERROR]: Attempting to decrypt but no vault secrets found."], "Attempting", "VAULT_PASSWORD_FILE"),
        (["[ERROR]: Decryption failed (no vault secrets were found that could decrypt)."], "Decryption", "has another"),
        (["[ERROR]: The vault password file /x/y was not found"], "The vault", "folder in which casemate is called"),
        (["[ERROR]: Could not process '/i/host_vars/n1.yml': failed to combine variables, expected dicts but got"],
         "/i/host_vars/n1.yml", "correct that file"),
        (["[ERROR]: Specified inventory, host pattern and/or --limit leaves us with no hosts to target."],
         "--limit", "--graph"),
        (["[WARNING]: Failed to parse inventory with 'script' plugin: Inventory script returned", "",
          "<<< caused by >>>", "", "Inventory script returned non-zero exit code 3.",
          "Origin: <inventory plugin 'script' with source '/i/s.sh'>", "",
          "[ERROR]: Completely failed to parse inventory source /i/s.sh"], "/i/s.sh: Inventory script", "by hand"),
        (["[ERROR]: Something", "", "<<< caused by >>>", "", "the cause", "Origin: /i/x.yml:3:4", "", "3 a: b"],
         "/i/x.yml:3:4: the cause", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["verbose", "error"])
def test_ansible_s_own_errors_reach_the_message(kind: str, rest: list[str], head: str, todo: str) -> None:
    run = runner.Run()
    for line in rest:
        run.record({"event": kind, "stdout": f"\x1b[0;31m{line}\x1b[0m"})
    (error,) = run.errors
    assert head in error
    assert todo in advice.advised(error)


@pytest.mark.parametrize("text", ["- the proxy asks for a password, and sudo is not found there", "'x' is undefined"])
def test_what_explains_itself_gets_no_advice(text: str) -> None:
    assert advice.explain({"msg": text, "explained": True}) == text


INVENTORY = (
    "all: {children: {k3s_server: {hosts: {n1: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_user: ops}}}}}\n"
)
FILES = {
    "no vault password": ({"host_vars/n1.yml": "$ANSIBLE_VAULT;1.1;AES256\n3132\n"}, "n1.yml", "VAULT_PASSWORD_FILE"),
    "vars that are no YAML": ({"group_vars/all.yml": "a: [1\nb: 2\n"}, "group_vars/all.yml:", "correct that file"),
    "vars that are a list": ({"group_vars/all.yml": "- a\n- b\n"}, "group_vars/all.yml", "correct that file"),
    "no inventory": ({"hosts.yml": "all: [\n"}, "hosts.yml:", "correct that file"),
    "a range that is none": ({"hosts.yml": "all: {hosts: {'[a]b': }}\n"}, "host range must be", "ansible-inventory -i"),
    "plugin": ({"hosts.yml": "plugin: aws_ec2\n"}, "hosts.yml", "install the collection"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "place", "todo"), FILES.values(), ids=FILES)
def test_a_broken_inventory_is_told_in_a_real_run(
    tmp_path: Path, files: dict[str, str], place: str, todo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_ASK_VAULT_PASS", "true")  # nobody could answer
    for name, text in {"hosts.yml": INVENTORY, **files}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    run = runner.play("check.yml", (str(tmp_path / "hosts.yml"),))
    (error,) = run.errors
    assert place in error and todo in error
    assert not run.hosts


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ((None, "sudo", "root", "ops"), ""),
        ((True, "ansible.builtin.sudo", "root", "ops"), ""),
        ((False, "sudo", "root", "root"), ""),
        (("no", "sudo", "root", "ops"), "ansible_become is false"),
        ((None, "su", "root", "ops"), "the become method is su; allowed: sudo"),
        ((None, "community.general.doas", "root", "ops"), "allowed: sudo"),
        ((None, "sudo", "nobody", "ops"), "the become user is nobody; allowed: root"),
    ],
)
def test_only_sudo_to_root_is_taken(given: tuple[Any, str, str, str], problem: str) -> None:
    found = escalation.problems(*given)
    assert (problem in found[0]) if problem else found == []


@pytest.mark.parametrize(
    "host_vars", ["ansible_become_method: su", "ansible_become: false", "ansible_become_user: nobody"]
)
def test_that_is_refused_before_any_host_is_touched(tmp_path: Path, host_vars: str) -> None:
    inventory = tmp_path / "hosts.yml"
    more = f", casemate_admin_sources: [192.0.2.0/24], {host_vars}"
    inventory.write_text(INVENTORY.replace("ops", f"ops{more}"))
    run = runner.play("check.yml", (str(inventory),))
    assert host_vars.split(":")[0].removeprefix("ansible_").replace("_", " ") in run.hosts["n1"].message.replace(
        "_", " "
    )


@pytest.mark.parametrize(
    ("said", "password", "todo"),
    [
        ("sudo: sorry, you must have a tty to run sudo", False, "requiretty"),
        ("Incorrect sudo password", True, "ansible_become_password"),
        ("Missing sudo password", False, "NOPASSWD"),
        ("/bin/sh: 1: sudo: not found", False, "install it"),
    ],
)
def test_a_refusal_of_sudo_says_what_to_do(said: str, password: bool, todo: str) -> None:
    assert todo in escalation.refusal(said, password)


SPOILT = "/etc/sudoers.d/zz-test:1:14: syntax error\nops ALL=(ALL nonsense\n             ^~~~~~~~\n"


@pytest.mark.parametrize(
    ("said", "password", "todo"),
    [
        (f"{SPOILT}sudo: a password is required", False, "visudo (/etc/sudoers.d/zz-test:1)"),
        (f"{SPOILT}sudo: no valid sudoers sources found, quitting", False, "visudo (/etc/sudoers.d/zz-test:1)"),
        (">>> /etc/sudoers: syntax error near line 27 <<<\nsudo: parse error in /etc/sudoers near line 27", False,
         "visudo (/etc/sudoers"),
        ("sudo: a password is required", False, "sudo asks for a password, and nobody gave one"),
        ("sudo: a terminal is required to read the password", False, "nobody gave one"),
        ("Timeout (12s) waiting for privilege escalation prompt: ", True, "/etc/nsswitch.conf"),
        ("sudo: ldap_sasl_bind_s(): Can't contact LDAP server", False, "/etc/nsswitch.conf"),
        ("sudo: effective uid is not 0, is it on a file system with the 'nosuid' option set", False, "nosuid"),
        ('sudo: The "no new privileges" flag is set, which prevents sudo from running as root.', False, "nosuid"),
        ("sudo: Account expired or PAM config lacks an \"account\" section for sudo", False, "chage -l"),
        ("sudo: account validation failure, is your account locked?\nsudo: a password is required", True, "chage -l"),
        ("Sorry, try again.\nsudo: 1 incorrect password attempt", True, "does not take the password"),
        ("ops is not in the sudoers file.", False, "let this account use sudo with NOPASSWD"),
    ],
)  # fmt: skip
def test_each_refusal_of_sudo_has_a_remedy_of_its_own(said: str, password: bool, todo: str) -> None:
    refusal = escalation.refusal(said, password)
    assert todo in refusal
    assert "nothing was changed" in refusal and "\n" not in refusal


MORE: dict[str, tuple[dict[str, Any], str]] = {
    "sudo waits for LDAP": ({"msg": "Timeout (12s) waiting for privilege escalation prompt: "}, "LDAP"),
    "old Python": (
        {"msg": NO_JSON, "module_stderr": "SyntaxError: future feature annotations is not defined\n"}, "Python 3.9",
    ),
    "old Python, told": (
        {"msg": "ansible-core requires a minimum of Python version 3.9. Current version: 3.7.3"}, "Python 3.9"
    ),
    "full /tmp": ({"msg": NO_JSON, "module_stderr": "OSError: [Errno 28] No space left on device\n"}, "space"),
    "noexec": (
        {"msg": NO_JSON, "module_stderr": "/bin/sh: 1: /var/tmp/ansible-tmp-1-2/x: Permission denied\n"}, "noexec",
    ),
    "interpreter": ({"msg": NO_JSON, "module_stderr": "/bin/sh: 1: /usr/bin/python3: not found\n"}, "install python3"),
    "changed key, several lines": (
        {"msg": f"{SSH}Offending key in /h/known_hosts:3\r\nHost key verification failed."}, "ssh-keygen -R"
    ),
    "temporary failure": ({"msg": f"{SSH}ssh: Could not resolve hostname n1: Temporary failure in name resolution"},
                          "DNS"),
    "no such package": ({"msg": "No package matching 'apparmor' is available"}, "apt-get update"),
    "slow banner": ({"msg": f"{SSH}Connection timed out during banner exchange"}, "listens there"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "remedy"), MORE.values(), ids=MORE)
def test_more_of_what_stops_ansible_is_told_with_what_to_do(said: dict[str, Any], remedy: str) -> None:
    _, arrow, todo = advice.explain(said).rpartition("\n-> ")
    assert arrow and remedy in todo


class Answering:
    """What the connection gives back of one command."""

    def __init__(self, out: str, err: str = "", rc: int = 0) -> None:
        self.done = {"stdout": out, "stdout_lines": out.splitlines(), "stderr": err, "rc": rc}


@pytest.mark.parametrize("before", ["", SPOILT, "Welcome to Debian\n", "sudo: unable to resolve host n1\n"])
def test_what_sudo_says_beside_an_answer_is_no_part_of_it(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = Answering(f"{before}casemate:x86_64\ncasemate:{'a' * 64}  /usr/local/bin/k3s\n").done
    assert look(done) == ("x86_64", {"/usr/local/bin/k3s": "a" * 64})


@pytest.mark.parametrize(
    ("out", "err", "todo"),
    [
        ("", f"{SPOILT}sudo: a password is required", "visudo (/etc/sudoers.d/zz-test:1)"),
        (f"{SPOILT}sudo: a password is required", "", "visudo (/etc/sudoers.d/zz-test:1)"),
        ("", "sudo: a password is required", "nobody gave one"),
        ("", "Killed", "the host did not answer as it must (rc 1): Killed"),
    ],
)
def test_a_file_is_looked_at_or_it_is_said_why_not(out: str, err: str, todo: str) -> None:
    with pytest.raises(AnsibleActionFail, match=re.escape(todo)):
        look(Answering(out, err, 1).done)


def look(done: dict[str, Any]) -> Any:
    """What the controller's side of an installation makes of a command's end."""
    plugin = k3s_artifact.ActionModule.__new__(k3s_artifact.ActionModule)
    plugin._connection = SimpleNamespace(become=None)
    plugin._low_level_execute_command = lambda command, sudoable: done
    return plugin._look(["/usr/local/bin/k3s"])


def test_our_lines_are_marked_by_the_command_itself(tmp_path: Path) -> None:
    """The very command, run here."""
    (tmp_path / "k3s").write_text("x")
    ran = subprocess.run(
        ["sh", "-c", k3s_artifact.LOOK, "sh", tmp_path / "k3s", tmp_path / "none"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    machine, files = look(Answering(ran.stdout).done)
    assert machine == os.uname().machine
    assert files == {str(tmp_path / "k3s"): hashlib.sha256(b"x").hexdigest()}
