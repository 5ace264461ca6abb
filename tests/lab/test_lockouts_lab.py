"""Ways to lock oneself out, each while the guard waits: access is back soon after its end, and nobody helps.

A hardened machine is changed by a run of Casemate. The mistake is a part of that change, or somebody makes it on the
host before the change is confirmed. Then the controller dies, and from there on the machine is only asked for a login
and for sudo. `make lockouts` runs this alone and writes the table that it prints to docs/lockouts.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lab.guarded import DROPIN, HARMLESS, SECONDS, TABLE, USERS, WALL, Machine, Mistake, roles, sshd, until

from casemate_lab import for_tests

pytestmark = pytest.mark.lab
NAME, MACHINES = "lockouts", 5
WITHIN = 60
"""Seconds after the guard's end by which access has to be back."""
LOOK = (
    "getent passwd ops; getent shadow ops; stat -c '%a %U %G %n' /home/ops /home/ops/.ssh /home/ops/.ssh/* /etc/ssh/*; "
    "sha256sum /home/ops/.ssh/* /etc/ssh/ssh_host_* /etc/ssh/sshd_config /etc/pam.d/* /etc/sudoers /etc/sudoers.d/*; "
    "ls -A /etc/ssh/sshd_config.d /etc/sudoers.d /etc/pam.d; systemctl is-active ssh.service ssh.socket; "
    "systemctl is-enabled ssh.service ssh.socket"
)
"""What decides on a login and on sudo, as it was and as it has to be again."""
SMALL_DISK = """
mkdir /full && mount -t tmpfs -o size=24m tmpfs /full && cp -a /etc /full/etc && cp -a /var/lib/casemate /full/casemate
mount --bind /full/etc /etc && mount --bind /full/casemate /var/lib/casemate
"""
FILL_IT = "cat /dev/zero >/full/fill; [ $(df --output=avail /etc | tail -n 1) = 0 ]"
SMALL_DISK_GOES = "umount -l /etc /var/lib/casemate /full && rmdir /full"


DEBIAN = os.environ.get("CASEMATE_LAB_DEBIAN", "12")
HEAD = f"""# Fifteen ways to lock oneself out, and one more

Made by `make lockouts`, on hardened machines of the lab (Debian {DEBIAN}) with the guard's shortest time, {SECONDS} s.
The mistake is a part of what a run changes, or is made on the host before that run is confirmed. Then the controller is
killed, and nobody touches the host: what is measured is a new login that becomes root by sudo. It has to be back within
{WITHIN} s of the guard's end, and all that decides on it has to be as it was.
"""


class Way(NamedTuple):
    """A way to lock oneself out.

    `planted` tells people what is done: `mistake` is what a run applies, by `roles` with options of ansible-playbook or
    else by itself, and `by_hand` what is done on the host after it. `meets` stands in what a login says then. `first`
    prepares the machine, and `last` takes that away again.
    """

    planted: str
    meets: str
    mistake: Mistake = HARMLESS
    by_hand: str = "true"
    first: str = "true"
    last: str = "true"
    roles: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


KILLED, AT_ONCE = "controller killed in the middle", "two controllers at once"
RESTART = "systemctl restart ssh.service || true"
SECOND_FACTOR = (
    r"Match User ops\nKbdInteractiveAuthentication yes\nAuthenticationMethods publickey,keyboard-interactive"
)
WAYS = {
    "AllowUsers": Way("the run writes `AllowUsers nobody`", "Permission denied", USERS),
    "wrong port": Way(
        "the run has sshd listen on 2222", "Connection refused",
        Mistake(sshd("port", "2222"), f"grep -q 'port 2222' {DROPIN}", ""),
    ),
    "firewall source": Way(
        "the run admits 192.0.2.0/24 in place of the controller", "Connection timed out",
        Mistake({}, f"grep -q 192.0.2.0 {TABLE}", ""), roles=("k3s_firewall",),
        options=("-e", json.dumps({"casemate_admin_sources": ["192.0.2.0/24"]})),
    ),
    "sudo without its password": Way(
        "`NOPASSWD` is taken out of sudo's rules", "a password is required",
        by_hand="sed -i 's/NOPASSWD: *//' $(grep -rl NOPASSWD /etc/sudoers /etc/sudoers.d)",
    ),
    "broken PAM": Way(
        "`pam_deny.so` is put first into `common-account`", "closed",
        by_hand="sed -i '1i account required pam_deny.so' /etc/pam.d/common-account",
    ),
    "second factor for the automation": Way(
        "a new file beside ours demands `publickey,keyboard-interactive` of its account", "Permission denied",
        by_hand=f"printf '{SECOND_FACTOR}' >/etc/ssh/sshd_config.d/00-a.conf && systemctl reload ssh.service",
    ),
    "expired key": Way(
        "its key gets `expiry-time=\"20200101\"`", "Permission denied",
        by_hand="cd /home/ops/.ssh && sed 's/^/expiry-time=\"20200101\" /' authorized_keys >/run/keys "
        "&& cat /run/keys >authorized_keys",
    ),
    "expired account": Way("`chage -E 1` ends its account", "closed", by_hand="chage -E 1 ops"),
    "shell taken away": Way(
        "its shell becomes `/usr/sbin/nologin`", "not available", by_hand="usermod -s /usr/sbin/nologin ops"
    ),
    "home made unreadable": Way(
        "its home becomes root's, mode 0700", "Permission denied",
        by_hand="chown root: /home/ops && chmod 0700 /home/ops",
    ),
    "sshd syntax": Way(
        "a line that sshd does not know is added, and sshd restarted", "Connection refused",
        by_hand=f"echo 'NoSuchKeyword yes' >>/etc/ssh/sshd_config; {RESTART}",
    ),
    "host key removed": Way(
        "all host keys are removed, and sshd restarted", "Connection refused",
        by_hand=f"rm /etc/ssh/ssh_host_*; {RESTART}",
    ),
    "full disk": Way(
        "the run writes `AllowUsers nobody`, the shell goes, and the disk of `/etc` and the guard fills up",
        "Permission denied", USERS, by_hand=f"usermod -s /usr/sbin/nologin ops; {FILL_IT}",
        first=SMALL_DISK, last=SMALL_DISK_GOES,
    ),
    KILLED: Way("the run and its process on the host are killed once `AllowUsers nobody` stands there",
                "Permission denied", USERS),
    AT_ONCE: Way("one run writes `AllowUsers nobody`, another one shuts the firewall", "timed out"),
    "socket elsewhere": Way(
        "systemd listens in sshd's place, on 2222", "Connection refused",
        by_hand="mkdir /etc/systemd/system/ssh.socket.d && "
        "printf '[Socket]\\nListenStream=\\nListenStream=2222\\n' >/etc/systemd/system/ssh.socket.d/a.conf && "
        "systemctl daemon-reload && systemctl -q disable --now ssh.service && systemctl -q enable --now ssh.socket",
    ),
}  # fmt: skip


class Measured(NamedTuple):
    """What a login met before the guard's end, and how many seconds after it access was back."""

    met: str
    seconds: float


def controls(*mistakes: Mistake) -> dict[str, Any]:
    """The task of a run that applies mistakes."""
    given = {"k3s_access": [mistake.control for mistake in mistakes]}
    return {"name": "Mistake", "k3s_controls": {"controls": given, "context": {"guard_seconds": SECONDS}}}


@contextlib.contextmanager
def locked_out(machine: Machine, title: str, way: Way) -> Iterator[None]:
    """The mistake is made and not confirmed; its controller dies at the end of the block."""
    if title == KILLED:
        with machine.play([controls(USERS)]):
            until(lambda: machine.console(USERS.written).returncode == 0, 120, "the change is made")
            machine.root("kill -KILL $(grep -lx python3 /proc/[0-9]*/comm | cut -d/ -f3) || true")
        machine.root("systemctl reload ssh.service")  # it was killed before, or after
        yield
    elif title == AT_ONCE:
        stay = {"ansible.builtin.pause": {"seconds": 600}}
        ended = f"{USERS.written} && {WALL.written} && ! grep -sqx python3 /proc/[0-9]*/comm"
        with machine.play([controls(USERS), stay]), machine.play([controls(WALL), stay]):
            until(lambda: machine.console(ended).returncode == 0, 120, "both changes are made")
            yield
    else:
        engine = {"roles": list(way.roles)} if way.roles else controls(way.mistake)["k3s_controls"]
        with machine.half_done(engine, way.mistake.written, *way.options):
            machine.root(way.by_hand)
            yield


def measured(machine: Machine, title: str, way: Way) -> Measured:
    """Lock oneself out, and wait until a login becomes root again."""
    machine.root(way.first)
    before = machine.state() + machine.root(LOOK)
    with locked_out(machine, title, way):
        end = machine.guards_end()
        met = machine.login("sudo -n true")
        while way.meets not in met and "Connection refused" in met and time.time() < end:
            time.sleep(0.5)  # sshd, which loads its files again, listens nowhere for a moment
            met = machine.login("sudo -n true")
        assert way.meets in met
    assert machine.login("sudo -n true"), "a dead controller undoes nothing"
    assert time.time() < end, "so far nothing was undone"
    until(lambda: not machine.login("sudo -n true"), SECONDS + WITHIN, f"access is back after: {title}")
    back = time.time()
    until(lambda: not machine.pending(), 30, "the revert ends")
    assert machine.state() + machine.root(LOOK) == before
    machine.root(way.last)
    return Measured(met.splitlines()[-1].replace(machine.address, "HOST"), max(0.0, back - end))


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Measured]]]:
    """All ways under way, each on a hardened machine that is free."""
    folder = tmp_path_factory.mktemp("lab")
    with for_tests.machines(NAME, servers=0, agents=MACHINES, debian=DEBIAN, workdir=folder / "work") as inventory:
        free: queue.Queue[Machine] = queue.Queue()
        machines = [Machine(NAME, inventory, folder, f"agent{i + 1}") for i in range(MACHINES)]
        code, said = machines[0].run(roles("k3s_host", "k3s_access", "k3s_firewall"), hosts="k3s_agent")
        assert code == 0, said
        for machine in machines:
            free.put(machine)

        def tried(title: str, way: Way) -> Measured:
            machine = free.get()
            result = measured(machine, title, way)
            free.put(machine)  # one on which a way failed is not used again
            return result

        with ThreadPoolExecutor(MACHINES) as pool:
            yield {title: pool.submit(tried, title, way) for title, way in WAYS.items()}


@pytest.mark.parametrize("way", WAYS)
def test_access_is_back_soon_after_the_guard_s_end(under_way: dict[str, Future[Measured]], way: str) -> None:
    assert under_way[way].result().seconds <= WITHIN


def test_the_table(under_way: dict[str, Future[Measured]], capsys: pytest.CaptureFixture[str]) -> None:
    rows = {title: made.result() for title, made in under_way.items() if not made.exception()}
    table = ["| | way | what was planted | what a login met | access back after the guard's end |",
             "|---|---|---|---|---|"]  # fmt: skip
    for number, (title, way) in enumerate(WAYS.items(), 1):
        found = rows.get(title)
        ending = f"`{found.met}` | {found.seconds:.0f} s |" if found else "| not |"
        table.append(f"| {number} | {title} | {way.planted} | {ending}")
    with capsys.disabled():
        print("", *table, sep="\n")
    assert len(rows) == len(WAYS)
    if path := os.environ.get("CASEMATE_LOCKOUTS"):
        Path(path).write_text("\n".join([HEAD, *table, ""]))
