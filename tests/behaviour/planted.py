"""What attacks plant on machines, bound to a unit of the machine's own: it goes, whether or not the run lives on.

A run that is killed or loses its connection takes nothing back. So a unit of the machine knows how to, before anything
is planted. It does so (ExecStopPost) when the attack ends, when the machine shuts down, and when `SECONDS` are over.
What a machine that lost its power still has goes before the next thing is planted there. A check names such a unit.
Sources: systemd-run(1), systemd.service(5).
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
from collections.abc import Iterator

from testinfra.backend.base import CommandResult
from testinfra.host import Host

HOME = "/var/lib/casemate/attacks"
"""Holds a script for each unit, of the same name, which takes back what was planted and then itself."""
SECONDS = 600
"""How long something stays at most that nobody takes back."""
STORY = 1800
"""The same for what many attacks share, one after the other, on a machine that may be slow."""

# The unit comes before its script, and the script before what is planted. Whoever finds a script without a running unit
# may run it, since nothing is planted by then or nobody else takes it back.
PLANT = f"""
mkdir -p -m 700 {HOME} || exit
for left in {HOME}/*; do
  [ ! -e "$left" ] || systemctl --quiet is-active "${{left##*/}}.service" || {{ sh "$left" >&2; rm -f "$left"; }}
done
systemd-run --quiet --collect --unit="$1" --property=ExecStopPost="/bin/sh {HOME}/$1" sleep "$2" || exit
printf 'export HOME=/root\\n{{ %s\\n}} && rm -f %s\\n' "$3" "{HOME}/$1" >"{HOME}/$1" && eval "$4"
"""


def new_name() -> str:
    """A name that tells where something comes from and that nothing else has: of an account, a folder or a unit."""
    return f"casemate-attack-{secrets.token_hex(3)}"


@contextlib.contextmanager
def planted(host: Host, made: str, gone: str, seconds: int | None = None) -> Iterator[None]:
    """Have something on a machine that its script `made` makes, until its script `gone` takes it back.

    `gone` has to succeed, also where nothing or a part of it was made, and where somebody ran it before. Raises
    RuntimeError where something cannot be made, or not taken back.
    """
    name = new_name()
    begin = shlex.join(["sh", "-c", PLANT, "sh", name, str(SECONDS if seconds is None else seconds), gone, made])
    try:
        begun = host.run(begin)
        if begun.rc:
            raise RuntimeError(f"the machine does not let an attack begin: {begun.stderr.strip()}")
        yield
    finally:
        ended = host.run("sh -c %s", f"systemctl stop {name}.service; test ! -e {HOME}/{name}")
    if ended.rc:
        raise RuntimeError(f"what an attack planted is not gone, see journalctl -u {name}: {ended.stderr.strip()}")


@contextlib.contextmanager
def folder(host: Host, mode: str = "700", below: str = "/var/tmp", seconds: int | None = None) -> Iterator[str]:
    """A folder on a machine, which goes with all that is in it."""
    path = f"{below}/{new_name()}"
    with planted(host, f"mkdir -m {mode} {path}", f"rm -rf {path}", seconds):
        yield path


def confined(host: Host, script: str, *arguments: str, seconds: int = 120) -> CommandResult:
    """How a script ends that a unit runs, as root: with it go all its processes and its /tmp, at the latest in time.

    The script is what its shell reads: commands in it that read something themselves are given /dev/null.
    """
    unit = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", f"--unit={new_name()}"]
    # What is left of it dies after two seconds: on control groups of version 1 systemd does not see that all are gone.
    unit += ["--property=PrivateTmp=yes", f"--property=RuntimeMaxSec={seconds}", "--property=TimeoutStopSec=2"]
    line = f"printf %s {shlex.quote(script)} | {shlex.join([*unit, 'sh', '-s', '--', *arguments])}"
    return host.run("sh -c %s", line)
