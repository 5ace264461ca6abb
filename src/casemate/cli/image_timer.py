"""Units of systemd by which the controller looks every day at the images that run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from casemate.run.account import here

NAME = "casemate-images-scan"
UNITS = """\
# /etc/systemd/system/{name}.service
[Unit]
Description=Scan the images that run in the cluster (Casemate)
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
User={user}
WorkingDirectory={folder}
ExecStart={command}
Nice=19
# 2: something fails, which the report says; it is no failure of the unit.
SuccessExitStatus=2

# /etc/systemd/system/{name}.timer
[Unit]
Description=Scan the images that run in the cluster every day (Casemate)

[Timer]
OnCalendar=daily
RandomizedDelaySec=1h
Persistent=true

[Install]
WantedBy=timers.target
"""


def units(inventories: tuple[str, ...]) -> str:
    """Both units, one after the other, for this account in this folder with these inventories."""
    given = [part for path in inventories for part in ("-i", path if "," in path else str(Path(path).resolve()))]
    command = shlex.join([sys.executable, "-m", "casemate.cli", "images", "scan", *given])
    return UNITS.format(
        name=NAME,
        user=here(),
        folder=_escaped(str(Path.cwd())),
        command=_escaped(command).replace("$", "$$"),
    )


def _escaped(text: str) -> str:
    """A text in which systemd finds no specifier. In a command it would fill in variables as well."""
    return text.replace("%", "%%")
