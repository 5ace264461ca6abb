"""The daemon behind SSH's logins: ssh.service, or systemd's socket, which starts a daemon, or one for each login.

Sources: systemd.socket(5), Accept=; ssh.service, ssh.socket and ssh@.service of Debian and Ubuntu. A folder that sshd
wants, /run/sshd, comes and goes with its unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..core.verdict import Observation, Verdict
from ..host.clock import stays_ahead
from ..host.machine import Host

UNIT, SOCKET = "ssh.service", "ssh.socket"
EACH_LOGIN = "ssh@casemate.service"
"""Any unit of the template by which ssh.socket serves each connection where it has Accept=yes."""
RELOAD = ("systemctl", "reload", UNIT)
RESTART = ("systemctl", "try-restart", UNIT)
"""Where systemd listens: at a reload such a daemon loses its sockets and ends; sessions outlive a restart."""


def socket_serves(host: Host) -> bool:
    """Whether systemd listens: then a login is served by the files as they are, or starts a daemon that reads them."""
    return host.systemctl(SOCKET).get("ActiveState") == "active"


def idle(host: Host) -> str:
    """Why nobody can log in: in which state the daemon is where it does not run and systemd does not listen for it."""
    state = host.systemctl(UNIT).get("ActiveState", "")
    return "" if state in ("", "active", "reloading") or socket_serves(host) else state


def next_unit(host: Host) -> str:
    """The unit whose command line serves the next login after a start."""
    return EACH_LOGIN if socket_serves(host) and host.systemctl(SOCKET).get("Accept") == "yes" else UNIT


def state(host: Host, unread: Sequence[str], ours: Iterable[str]) -> Observation:
    """Whether the daemon serves logins with its files as they are; `unread` changed since it read them."""
    down = idle(host)
    stuck = [path for path in unread if path not in ours and stays_ahead(host.stat(path))]
    shown = {"label": "", "value": down or ("older files" if unread else "current"), "after": "current"}
    return {"values": [shown], "idle": down, "stuck": stuck, "others": [host.dated(path) for path in unread]}


def verdict(want: str, state: str, seen: Observation) -> Verdict:
    """What is wrong with the daemon itself: nothing serves logins, or it has not read its files since they changed.

    A file of others whose date stays in the future (`stuck`) is later than any reload: its date has to be put right.
    """
    evidence, stuck = f"systemctl show {UNIT} {SOCKET}", seen["stuck"]
    if seen["idle"]:
        reason = f"{UNIT} is {state} and {SOCKET} does not listen, so nobody can log in: systemctl start {UNIT}"
        return Verdict(ok=False, expected=want, observed=state, reason=reason, evidence=evidence, blocked_by=UNIT)
    parts = [f"{UNIT} has not read {', '.join(seen['others'])} since it changed", seen["refused"]]
    parts += [f"so that it counts as read again: touch {' '.join(stuck)}"] if stuck else []
    blocked_by = "; ".join(filter(None, [seen["refused"], *stuck]))
    reads = len(seen["others"]) > len(stuck)
    still_enforced = reads and not seen["refused"]
    return Verdict(
        ok=False,
        expected=want,
        observed=state,
        reason="; ".join(filter(None, parts)),
        evidence=evidence,
        stale=(UNIT,),
        blocked_by=blocked_by,
        still_enforced=still_enforced,
    )


def reread(host: Host) -> None:
    """Make the running daemon, if there is one, read its files. Raises EnforceError."""
    if host.started(UNIT) is None:
        return
    host.must_run(RESTART if socket_serves(host) else RELOAD)
    host.changed(UNIT, "older files\n", "reloaded\n")
