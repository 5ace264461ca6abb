"""What `casemate bootstrap` does on a host: what lacks, what is left as it is, and what only people can clear."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

import pytest
from unit.fake_host import FakeHost

from casemate.catalogue import declarations
from module_utils.casemate.host import logins
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.operations import bootstrap
from module_utils.casemate.operations.bootstrap import Seen

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOne controller"
BLOB = KEY.rsplit(" ", 1)[0]
FILE = "/home/ops/.ssh/authorized_keys"
ACCOUNT = pwd.struct_passwd(("ops", "x", 1000, 1000, "", "/home/ops", "/bin/bash"))
RULE = "ops ALL=(ALL:ALL) NOPASSWD: ALL"
NONE = Seen(None, FILE, "", "", becomes_root=False)
ALL_THERE = Seen(ACCOUNT, FILE, f"{KEY}\n", "", becomes_root=True)
ENTRY = "ops:x:{uid}:{uid}::/home/ops:{shell}\n"
MAY = "User ops may run the following commands on node1:\n    {rule}\n"


def host(tmp_path: Path, entry: str = "", **commands: tuple[int, str, str]) -> FakeHost:
    """A host whose sshd and useradd are Debian's; `entry` is what it has of the account."""
    known = {
        "getent passwd ops": (0, entry, "") if entry else (2, "", ""),
        "getent group ops": (2, "", ""),
        "useradd -D": (0, "GROUP=100\nHOME=/home\nSHELL=/bin/sh\n", ""),
    }
    return FakeHost(tmp_path, commands={**known, **{name.replace("_", " "): said for name, said in commands.items()}})


@pytest.fixture(autouse=True)
def sshd(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    said = {"authorizedkeysfile": ".ssh/authorized_keys .ssh/authorized_keys2"}
    monkeypatch.setattr(logins, "session", list)
    monkeypatch.setattr(logins, "effective", lambda name, session: said)
    return said


def test_a_host_with_nothing_gets_account_key_and_rule() -> None:
    planned = bootstrap.plan("ops", KEY, NONE)
    assert planned.makes
    assert planned.keys == f"{KEY}\n"
    assert (planned.rules or "").splitlines()[-1] == RULE
    assert len(planned.words) == 3


def test_where_all_is_there_nothing_is_done() -> None:
    assert bootstrap.plan("ops", KEY, ALL_THERE) == bootstrap.Plan(False, None, None, ())


@pytest.mark.parametrize(
    ("there", "becomes"),
    [
        ("", f"{KEY}\n"),
        (f"{BLOB} another comment\n", None),
        (f'from="192.0.2.0/24" {BLOB}\n', None),
        (f"# {KEY}\n", f"# {KEY}\n{KEY}\n"),
        ("ssh-ed25519 AAAAOther bob", f"ssh-ed25519 AAAAOther bob\n{KEY}\n"),
    ],
)
def test_the_key_is_added_to_those_that_are_there(there: str, becomes: str | None) -> None:
    assert bootstrap.plan("ops", KEY, ALL_THERE._replace(keys=there)).keys == becomes


def test_a_key_that_runs_one_command_only_is_somebodys_decision() -> None:
    there = f'ssh-ed25519 AAAAOther bob\ncommand="borg serve" {BLOB}\n'
    with pytest.raises(EnforceError, match=rf"{FILE}:2 lets this key of ops run one command only: remove that line"):
        bootstrap.plan("ops", KEY, ALL_THERE._replace(keys=there))


def test_rules_of_other_accounts_in_its_file_stay() -> None:
    """john.doe and john_doe share a file, as sudo reads none with a dot in its name."""
    assert bootstrap.rules_file("john.doe") == bootstrap.rules_file("john_doe") == "/etc/sudoers.d/casemate-john_doe"
    before = "john_doe ALL=(ALL:ALL) NOPASSWD: ALL\n"
    seen = Seen(ACCOUNT, FILE, f"{KEY}\n", before, becomes_root=False)
    assert bootstrap.plan("john.doe", KEY, seen).rules == f"{before}john.doe ALL=(ALL:ALL) NOPASSWD: ALL\n"


@pytest.mark.parametrize(("name", "shown"), [("OPS", '"OPS"'), ("Ops", "Ops"), ("john.doe", "john.doe")])
def test_a_name_in_capitals_is_no_alias_of_sudo(name: str, shown: str) -> None:
    planned = bootstrap.plan(name, KEY, ALL_THERE._replace(becomes_root=False))
    assert (planned.rules or "").splitlines()[-1] == f"{shown} ALL=(ALL:ALL) NOPASSWD: ALL"


@pytest.mark.parametrize(
    ("rule", "becomes_root"),
    [
        ("(ALL : ALL) NOPASSWD: ALL", True),
        ("(ALL) NOPASSWD: ALL", True),
        ("(root) NOPASSWD: ALL", True),
        ("(ALL : ALL) ALL", False),
        ("(ALL) NOPASSWD: /usr/bin/apt", False),
        ("(backup) NOPASSWD: ALL", False),
        ("(ALL) NOPASSWD: SETENV: ALL", True),
        ("(ALL) NOPASSWD: ALL\n    (ALL : ALL) ALL", False),  # the last one counts, such as a group's in a later file
        ("(ALL : ALL) ALL\n    (ALL) NOPASSWD: ALL", True),
        ("(ALL) NOPASSWD: PASSWD: ALL", False),
    ],
)
def test_a_rule_that_is_there_already_is_enough(tmp_path: Path, rule: str, becomes_root: bool) -> None:
    said = {"sudo_-n_-l_-U_ops": (0, MAY.format(rule=rule), "")}
    made = host(tmp_path, ENTRY.format(uid=1000, shell="/bin/bash"), **said)
    (tmp_path / "home/ops").mkdir(parents=True)
    assert bootstrap.look("ops", made).becomes_root is becomes_root


@pytest.mark.parametrize(
    ("entry", "home", "gid", "said"),
    [
        (ENTRY.format(uid=0, shell="/bin/bash"), True, "", "root by another name"),
        (ENTRY.format(uid=34, shell="/usr/sbin/nologin"), True, "", "has the shell /usr/sbin/nologin"),
        (ENTRY.format(uid=1000, shell="/bin/bash"), False, "", "its home /home/ops is not"),
        ("", True, "", "but a home /home/ops: move that away"),
        ("", False, "1000", "but a group of that name: groupdel ops"),
        ("", False, "27", "ops is a group of the system and no account: name another"),  # such as sudo, adm or staff
    ],
)
def test_what_only_people_can_clear_is_refused(tmp_path: Path, entry: str, home: bool, gid: str, said: str) -> None:
    made = host(tmp_path, entry, **({"getent_group_ops": (0, f"ops:x:{gid}:\n", "")} if gid else {}))
    if home:
        (tmp_path / "home/ops").mkdir(parents=True)
    with pytest.raises(EnforceError, match=said):
        bootstrap.plan("ops", KEY, bootstrap.look("ops", made))


@pytest.mark.parametrize(("patterns", "said"), [("none", "AuthorizedKeysFile none"), ("", "sshd -t")])
def test_an_sshd_that_looks_for_keys_nowhere_is_refused(
    tmp_path: Path, sshd: dict[str, str], patterns: str, said: str
) -> None:
    sshd["authorizedkeysfile"] = patterns
    with pytest.raises(EnforceError, match=said):
        bootstrap.look("ops", host(tmp_path))


def test_the_key_goes_where_sshd_looks_first(tmp_path: Path, sshd: dict[str, str]) -> None:
    sshd["authorizedkeysfile"] = "/etc/ssh/keys/%u .ssh/authorized_keys"
    assert bootstrap.look("ops", host(tmp_path)).key_file == "/etc/ssh/keys/ops"


OF_CLOUD_INIT = f"{bootstrap.INSTEAD.format(account='ops')}{KEY}\n"


@pytest.mark.parametrize(
    ("there", "becomes"),
    [
        (f"{KEY}\n", OF_CLOUD_INIT),
        (f"ssh-ed25519 AAAAOther bob\n{KEY}\n", f"ssh-ed25519 AAAAOther bob\n{OF_CLOUD_INIT}"),
        (f"# {KEY}\n", None),
        (OF_CLOUD_INIT, None),
        (f'from="192.0.2.7" {KEY}\n', None),
        ("ssh-ed25519 AAAAOther bob\n", None),
        ("", None),
    ],
)
def test_the_key_of_root_is_closed_as_cloud_init_closes_it(tmp_path: Path, there: str, becomes: str | None) -> None:
    made = FakeHost(tmp_path, files={"/root/.ssh/authorized_keys": there})
    planned = bootstrap.closings("ops", "root", [KEY], made)
    assert [one.text for one in planned] == ([] if becomes is None else [becomes])
    bootstrap.close(planned, made)
    assert made.text("/root/.ssh/authorized_keys") == (becomes or there)
    assert made.armed == ([] if becomes is None else ["/root/.ssh/authorized_keys"])


def test_what_is_closed_is_no_key_of_a_system_account_to_the_control(tmp_path: Path) -> None:
    """It says of cloud-init's line that it is harmless, and ours is that line."""
    (setting,) = [
        one["setting"]
        for one in declarations.controls()["k3s_access"]
        if "matters" in one["setting"] and one["setting"].get("named_by") == "AuthorizedKeysFile"
    ]
    assert not re.search(setting["matters"], OF_CLOUD_INIT)
    assert re.search(setting["matters"], f"{KEY}\n")


@pytest.mark.parametrize(
    ("there", "becomes"),
    [
        ("# of cloud-init\ndebian ALL=(ALL) NOPASSWD:ALL\n", "# of cloud-init\n# debian ALL=(ALL) NOPASSWD:ALL\n"),
        ("debian ALL=(ALL:ALL) NOPASSWD: ALL\n", "# debian ALL=(ALL:ALL) NOPASSWD: ALL\n"),
        ("debian ALL=NOPASSWD: ALL\n", "# debian ALL=NOPASSWD: ALL\n"),  # as root
        ('"debian" ALL = (root) NOPASSWD: ALL\n', '# "debian" ALL = (root) NOPASSWD: ALL\n'),
        ("debian2 ALL=(ALL) NOPASSWD:ALL\n", None),
        ("debian ALL=(backup) NOPASSWD: ALL\n", None),
        ("debian ALL=(ALL) ALL\n", None),
        ("debian ALL=(ALL) NOPASSWD: /usr/bin/apt\n", None),
    ],
)
def test_a_default_user_loses_its_sudo_without_a_password(tmp_path: Path, there: str, becomes: str | None) -> None:
    path = "/etc/sudoers.d/90-cloud-init-users"
    made = FakeHost(tmp_path, files={path: there, "/root/.ssh/authorized_keys": KEY}, commands={"visudo": (0, "", "")})
    bootstrap.close(bootstrap.closings("ops", "debian", [KEY], made), made)
    assert made.text(path) == (becomes or there)
    assert made.text("/root/.ssh/authorized_keys") == KEY


def test_a_default_user_leaves_the_groups_that_give_root(tmp_path: Path) -> None:
    groups = "root:x:0:\nsudo:x:27:debian,bob\nadm:x:4:debian\nlxd:x:99:debian2\ndebian:x:1000:\n\nbroken\n"
    made = FakeHost(tmp_path, files={"/etc/group": groups}, commands={"gpasswd --delete debian sudo": (0, "", "")})
    planned = bootstrap.closings("ops", "debian", [KEY], made)
    assert [(one.name, one.text) for one in planned] == [("sudo/debian", None)]
    bootstrap.close(planned, made)
    assert made.armed == ["person debian"]
    assert ["gpasswd", "--delete", "debian", "sudo"] in made.ran


@pytest.mark.parametrize(("day", "ends"), [("", True), ("0", True), ("99999", True), ("1", False)])
def test_a_default_users_account_is_over_for_nobody_stands_behind_it(tmp_path: Path, day: str, ends: bool) -> None:
    files = {
        "/etc/passwd": "root:x:0:0::/root:/bin/sh\ndebian:x:1000:1000::/home/debian:/bin/bash\n",
        "/etc/shadow": f"root:*:19000::::::\ndebian:!:19000:0:99999:7::{day}:\n",
    }
    made = FakeHost(tmp_path, files=files, commands={"chage -E 1 debian": (0, "", "")})
    planned = bootstrap.closings("ops", "debian", [KEY], made)
    assert [one.name for one in planned] == (["debian"] if ends else [])
    bootstrap.close(planned, made)
    assert (["chage", "-E", "1", "debian"] in made.ran) is ends
    assert made.armed == (["person debian"] if ends else [])


def test_a_first_login_that_stays_open_is_left_alone(tmp_path: Path) -> None:
    made = FakeHost(tmp_path, files={"/root/.ssh/authorized_keys": KEY, "/etc/sudoers.d/x": " ALL=(ALL) NOPASSWD: ALL"})
    assert bootstrap.closings("ops", "", [KEY], made) == []


def test_the_account_never_closes_itself(tmp_path: Path) -> None:
    made = FakeHost(tmp_path, files={"/etc/sudoers.d/casemate-ops": f"{RULE}\n"})
    assert bootstrap.closings("ops", "ops", [KEY], made) == []


class Adding(FakeHost):
    """A host on which useradd makes the account of whoever runs the test."""

    def run(self, argv, stdin=None, timeout=30):  # type: ignore[no-untyped-def]
        done = super().run(argv, stdin, timeout)
        if argv[0] == "useradd" and done.rc == 0 and argv[-1] != "-D":
            entry = f"ops:x:{os.getuid()}:{os.getgid()}::/home/ops:/bin/bash\n"
            self.commands["getent passwd ops"] = (0, entry, "")
            Path(self.path("/home/ops")).mkdir(parents=True)
        return done


def test_all_of_it_is_guarded_before_it_is_made(tmp_path: Path) -> None:
    made = host(tmp_path)
    made.__class__ = Adding
    made.commands.update({"useradd --create-home": (0, "", ""), "visudo": (0, "", "")})
    Path(made.path("/etc/sudoers.d")).mkdir(parents=True)
    seen = bootstrap.look("ops", made)
    bootstrap.enact("ops", seen, bootstrap.plan("ops", KEY, seen), made)
    assert made.armed == ["new_account ops", FILE, "/etc/sudoers.d/casemate-ops"]
    keys = Path(made.path(FILE))
    assert keys.read_text() == f"{KEY}\n"
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert Path(made.path("/etc/sudoers.d/casemate-ops")).stat().st_mode & 0o777 == 0o440
    (added,) = [argv for argv in made.ran if argv[:2] == ["useradd", "--create-home"]]
    assert added[added.index("--password") + 1] == "*", "no password, and not locked, which sshd refuses without PAM"


def test_a_rule_that_visudo_refuses_is_not_written(tmp_path: Path) -> None:
    made = host(tmp_path, visudo=(1, "", "syntax error"))
    Path(made.path("/etc/sudoers.d")).mkdir(parents=True)
    seen = ALL_THERE._replace(becomes_root=False)
    with pytest.raises(EnforceError, match="visudo refused it"):
        bootstrap.enact("ops", seen, bootstrap.plan("ops", KEY, seen), made)
    assert not Path(made.path("/etc/sudoers.d/casemate-ops")).exists()


@pytest.mark.parametrize(
    ("said", "raises"),
    [
        ((1, "User ops is not allowed to run sudo on node1.\n", ""), True),  # sudoers has no @includedir
        ((0, MAY.format(rule="(ALL) NOPASSWD: ALL\n    (ALL) ALL"), ""), True),  # another rule comes after ours
        ((0, MAY.format(rule="(ALL : ALL) NOPASSWD: ALL"), ""), False),
        ((1, "", "sudo: sorry, you must have a tty to run sudo"), False),  # the login that follows tells
    ],
)
def test_a_rule_that_sudo_does_not_go_by_is_told_at_once(
    tmp_path: Path, said: tuple[int, str, str], raises: bool
) -> None:
    made = host(tmp_path, visudo=(0, "", ""))
    made.commands["sudo -n -l -U ops"] = said
    Path(made.path("/etc/sudoers.d")).mkdir(parents=True)
    seen = ALL_THERE._replace(becomes_root=False)
    planned = bootstrap.plan("ops", KEY, seen)
    if raises:
        with pytest.raises(EnforceError, match=r"let /etc/sudoers end with @includedir /etc/sudoers\.d"):
            bootstrap.enact("ops", seen, planned, made)
    else:
        bootstrap.enact("ops", seen, planned, made)


def test_where_useradd_refuses_nothing_more_is_done(tmp_path: Path) -> None:
    made = host(tmp_path)
    made.commands["useradd --create-home"] = (1, "", "useradd: cannot lock /etc/passwd")
    seen = bootstrap.look("ops", made)
    with pytest.raises(EnforceError, match="cannot lock /etc/passwd"):
        bootstrap.enact("ops", seen, bootstrap.plan("ops", KEY, seen), made)
    assert made.armed == ["new_account ops"]
