"""Waiting, on the host itself, until a node of K3s is up: the unit, the API server, the node, its vote in etcd.

Asked for here and not by tasks that are repeated, because each of those is a connection and an interpreter of its own.
Sources: org.freedesktop.systemd1(5) for Job and ActiveState, Kubernetes' node conditions, K3s' own EtcdIsVoter.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Sequence
from typing import Callable

from ..core.verdict import Unavailable
from ..host.clock import moment
from ..host.machine import Host
from .api import Api, Kubelet

PAUSE, TIMEOUT = 0.25, 5.0
CONTROLLERS = "kube-controller-manager"
LOUD = ("level=fatal", "Shutdown request", "level=error", "Error:", "level=warning")
"""Complaints in K3s' journal, the most telling first."""
LAST, LONGEST = 3, 500
"""Of the last words: how many lines that say something different, and characters of each."""
LOOKED_AT = 4000
"""Lines of the journal in which a complaint is looked for: a server that ends and is started again says 1,000 each."""
STAMP = re.compile(r'^time="[^"]*" |^[IWEF]\d{4} [\d:.]+ +\d+ ')
"""What begins a line of K3s and of Kubernetes' components, and is another one each time."""


class NotReady(Exception):  # noqa: N818 - an answer that may change
    """Not yet; the text says what is waited for."""


class Hopeless(Exception):  # noqa: N818 - an answer that will not change
    """Waiting longer brings nothing: systemd has given the unit up."""


def unit_is_up(host: Host, unit: str, tries: int = 0) -> tuple[str, float]:
    """The main process of the unit, and when it started in seconds since the epoch.

    Raises NotReady until the unit is active and no job of systemd is pending for it, Hopeless when it is given up, or
    when systemd has started it anew as often as `tries` says (0: as often as it likes).
    """
    asked = "--property=ActiveState,Job,Result,MainPID,ExecMainStartTimestamp,NRestarts"
    # Past what `Host` remembers: every look has to be a new one.
    said = host.run(["systemctl", "show", asked, "--timestamp=us+utc", "--", unit]).out
    shown = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    state = shown.get("ActiveState", "unknown")
    if shown.get("Job", "") not in ("", "0"):  # a restart that is queued has not touched the old process yet
        raise NotReady(f"systemd to start {unit}, which is {state}")
    again = int(shown.get("NRestarts") or 0)  # by itself, since somebody started it
    if tries and again >= tries:
        raise Hopeless(f"{unit} ended {again} times since it was started")
    if state in ("failed", "inactive"):
        raise Hopeless(f"{unit} is {state} ({shown.get('Result', 'no result')})")
    if state != "active":
        raise NotReady(f"{unit}, which is {state}, to be active")
    return shown.get("MainPID", ""), moment(shown.get("ExecMainStartTimestamp", "")) or 0.0


def api_is_ready(host: Host) -> None:
    """Raise NotReady until the API server of this host calls itself ready."""
    status, _ = Api(host).call("GET", "/readyz")
    if status != 200:
        raise NotReady(f"the API server here to be ready (it answers {status})")


def node_is_ready(host: Host, node: str, conditions: Sequence[str], started: float) -> None:
    """Raise NotReady until the node has these conditions; asked with the kubelet's own credentials.

    What the kubelet said before K3s `started` (seconds since the epoch) is that of the process before: after a restart
    the API server still tells it.
    """
    status, found = Kubelet(host).call("GET", f"/api/v1/nodes/{node}")
    if status != 200:
        raise NotReady(f"node {node} to register (the API server answers {status})")
    states = {one["type"]: one for one in found["status"].get("conditions") or ()}
    for name in conditions:
        if states.get(name, {}).get("status") != "True":
            said = states.get(name, {}).get("message") or "not reported yet"
            raise NotReady(f"node {node} to be {name}: {said}")
        heard = states[name].get("lastHeartbeatTime")  # in whole seconds, by the clock of this host
        if name == "Ready" and heard and _seconds(heard) + 1 < started:
            raise NotReady(f"node {node} to be Ready: its kubelet has not reported since K3s started")


def _seconds(stamp: str) -> float:
    return datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()


def controllers_are_led(host: Host, started: float) -> None:
    """Raise NotReady until somebody leads Kubernetes' controllers since K3s `started` (seconds since the epoch).

    Only then do they meet what they cannot work with: a lone server leads again when the lease of the process before
    has run out, fifteen seconds later, and K3s ends where the controllers do.
    """
    status, found = Api(host).call("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/" + CONTROLLERS)
    if status == 404:
        return  # they need no leader, or have none yet: then the node is not Ready either
    stamp = re.sub(r"\.\d+Z$", "Z", str(((found or {}).get("spec") or {}).get("renewTime") or ""))
    if status != 200 or not stamp or _seconds(stamp) < started:
        raise NotReady("Kubernetes' controllers to be led by somebody since K3s started")


def is_up(
    host: Host, unit: str, server: bool, node: str, conditions: Sequence[str], stay: float = 0.0, tries: int = 0
) -> None:
    """Raise NotReady until one and the same process of K3s is up, serves the API, has the node's conditions, and stays.

    A K3s that ends and is started again is up for a moment each time, and a dying one answers until it ends. So it has
    to be the same process, and as well, `stay` seconds later.
    """
    began = unit_is_up(host, unit, tries)
    _serves(host, server, node, conditions, began[1])
    end = time.monotonic() + stay
    while True:
        if unit_is_up(host, unit, tries) != began:
            raise NotReady(f"{unit} to stay up: it was started again meanwhile")
        if time.monotonic() >= end:
            break
        time.sleep(PAUSE)
    if stay:
        _serves(host, server, node, conditions, began[1])


def _serves(host: Host, server: bool, node: str, conditions: Sequence[str], started: float) -> None:
    if server:
        api_is_ready(host)
    if conditions:
        node_is_ready(host, node, conditions, started)
    if server and conditions:
        controllers_are_led(host, started)


def wait(
    step: Callable[[], object],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    refusal: Callable[[], str] = lambda: "",
) -> str:
    """Repeat `step` until it raises no more. Return "", or what was waited for when time ran out.

    `refusal` says why waiting longer brings nothing, where it does.
    """
    end = clock() + seconds
    while True:
        try:
            step()
            return ""
        except Hopeless as over:
            return str(over)
        except (NotReady, Unavailable, OSError) as notyet:
            if refused := refusal():
                return f"it is refused: {refused}"
            if clock() >= end:
                return f"waited {seconds:.0f} s for {notyet}"
        time.sleep(PAUSE)


def last_words(host: Host, unit: str, since: float = 0.0) -> str:
    """The most telling complaint of the unit's journal since a moment, and the last lines whatever their level.

    K3s says at level=info why a join does not come about ("Waiting to retrieve agent configuration; server is not
    ready: Node password rejected, duplicate hostname"), and says it again every few seconds.
    """
    window = [f"--lines={LOOKED_AT}", f"--since=@{since:.0f}"]
    said = host.run(["journalctl", "--no-pager", "--quiet", "--output=cat", *window, f"--unit={unit}"]).out
    lines = [line.strip() for line in said.splitlines()[::-1] if line.strip()]
    complaint = [line for loud in LOUD for line in lines if loud in line][:1]
    newest: dict[str, str] = {}
    for line in lines:
        newest.setdefault(STAMP.sub("", line), line)  # of lines that differ in their time alone, the last
        if len(newest) == LAST:
            break
    words = dict.fromkeys([*complaint, *list(newest.values())[::-1]])
    return " | ".join(line[:LONGEST] for line in words) or "nothing"
