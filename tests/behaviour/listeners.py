"""Listeners on machines, so that a port behind the firewall is told from one that nothing listens on."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import secrets
import shlex
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from testinfra.host import Host

from .conftest import python_on
from .test_access import variables, where

SECONDS = 60
"""How long a listener lives when nobody ends it, as after a run that was killed."""

# Two attackers must not take each other's listener for a program of the machine, so each waits for its turn. The name
# of the turn is an abstract one, and the folder is systemd's: both end with the process. Systemd would expand a dollar.
LISTEN = """
import json, os, select, socket, sys, time
tcp, udp = json.loads(sys.argv[1]), json.loads(sys.argv[2])
folder, systemd = os.environ["RUNTIME_DIRECTORY"], os.environ["NOTIFY_SOCKET"]
turn = socket.socket(socket.AF_UNIX)
while True:
    try:
        turn.bind(chr(0) + "casemate-listener")
        break
    except OSError:
        time.sleep(0.1)
opened, hearing = {}, {}
for port in tcp:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(("0.0.0.0", port))
        one.listen(16)
        opened[port] = one
    except OSError:
        one.close()  # a program of the machine listens
for port in udp:
    one, heard = socket.socket(type=socket.SOCK_DGRAM), open(folder + "/" + str(port), "w")
    try:
        one.bind(("0.0.0.0", port))
        hearing[one] = heard
    except OSError:
        one.close()  # then nothing is heard, which proves nothing either
with open(folder + "/opened", "w") as file:
    json.dump(list(opened), file)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
    ready.sendto(b"READY=1", chr(0) + systemd[1:] if systemd[0] == "@" else systemd)
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    for one in select.select(list(hearing), [], [], 1)[0]:
        print(one.recv(100).decode(), file=hearing[one], flush=True)
"""

INSIDE = """
import json, socket, sys, time
folder, udp = sys.argv[1], json.loads(sys.argv[2])
opened = json.load(open(folder + "/opened"))
answering = []
for port in opened:
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
        answering.append(port)
    except OSError:
        pass
for port in udp:
    socket.socket(type=socket.SOCK_DGRAM).sendto(b"inside", ("127.0.0.1", port))
time.sleep(0.5)
heard = {port: open(folder + "/" + str(port)).read().split() for port in udp}
print(json.dumps({"opened": opened, "answering": answering, "heard": heard}))
"""


def reach(address: str, port: int, source: str = "") -> str:
    """`open`, `refused` (the packet got there) or `dropped`."""
    try:
        socket.create_connection((address, port), timeout=2, source_address=(source, 0) if source else None).close()
    except TimeoutError:
        return "dropped"
    except ConnectionRefusedError:
        return "refused"
    return "open"


@contextlib.contextmanager
def listening(host: Host, tcp: Sequence[int], udp: Sequence[int] = ()) -> Iterator[str]:
    """Have something listen on each port, where no program of the machine does; gives the folder of what it hears."""
    name = f"casemate-{secrets.token_hex(6)}"
    unit = ["--quiet", "--collect", f"--unit={name}", "--service-type=notify", f"--property=RuntimeDirectory={name}"]
    program = ["python3", "-c", LISTEN, json.dumps(list(tcp)), json.dumps(list(udp)), str(SECONDS)]
    try:
        host.check_output(shlex.join(["systemd-run", *unit, *program]))
        yield f"/run/{name}"
    finally:
        host.run("systemctl stop %s", f"{name}.service")


@dataclass(frozen=True)
class Crossings:
    """What came of knocking at a machine's ports, all at once: a port behind the firewall is known by silence alone."""

    administrator: dict[int, str]
    stranger: dict[int, str]
    """By port, `open`, `refused` or `dropped`; empty where the inventory names no second address to knock from."""
    opened: list[int]
    """TCP ports that no program of the machine listened on, so that a listener of ours did."""
    answering: list[int]
    """Those of them that answered from the machine itself: the proof that they were not just shut."""
    heard: dict[int, list[str]]
    """By UDP port, what came in; `outside` was sent first, and `inside` on the machine itself."""


def knock(host: Host, tcp: Sequence[int], foreign: Sequence[int], udp: Sequence[int]) -> Crossings:
    """Knock at `tcp` from the controller, at `foreign` and SSH from a stranger's address, and send to each of `udp`."""
    address, ssh = where(host)
    stranger = str(variables(host).get("lab_stranger_address") or "")
    with listening(host, sorted({*tcp, *foreign}), udp) as folder:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for port in udp:
                sender.sendto(b"outside", (address, port))
        with concurrent.futures.ThreadPoolExecutor(len(tcp) + len(foreign) + 1) as pool:
            ours = {port: pool.submit(reach, address, port) for port in tcp}
            theirs = {port: pool.submit(reach, address, port, stranger) for port in (ssh, *foreign) if stranger}
        seen = json.loads(python_on(host, INSIDE, folder, json.dumps(list(udp))))
    return Crossings(
        {port: done.result() for port, done in ours.items()},
        {port: done.result() for port, done in theirs.items()},
        seen["opened"],
        seen["answering"],
        {int(port): said for port, said in seen["heard"].items()},
    )
