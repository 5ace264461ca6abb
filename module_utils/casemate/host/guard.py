"""The on-host guard against locking people out: a change that nobody confirms is undone by the host itself.

Armed before the first guarded write: what is about to change is kept (see backup.py), a timer starts, and an enabled
boot unit makes sure that a reboot does not save an unconfirmed change. `confirm` and the revert both claim what is
kept, so exactly one of them wins. Neither a controller nor Python is needed to revert.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from typing import Any

from .backup import BOOT_ID, Backup
from .last_change import LastChange
from .machine import EnforceError
from .run_lock import Lock

HOME = "/var/lib/casemate/guard"
UNITS = "/etc/systemd/system"
UNDOES = "undoes"
"""A file beside the entries, of a change that only takes another one back."""
TIMER = "casemate-guard-revert.timer"
OWNED = tuple(f"{UNITS}/{name}" for name in ("casemate-guard.service", "casemate-guard-revert.service", TIMER))
"""What is written beside the files that controls declare."""

# `boot` does nothing in the boot that armed it: systemd starts an inactive unit of sysinit.target again whenever
# something else that needs the target is started.
BEFORE = r"""if [ "${1-}" = boot ] && [ "$(cat pending/boot 2>/dev/null)" = "$(cat @BOOT_ID@)" ]; then exit 0; fi
"""
SAYS = r"""[ -z "$restored" ] || echo "casemate-guard: nobody confirmed the change in time"
"""
AFTER = r"""case $restored in *"$newline/etc/casemate/firewall.nft"*)
  if [ -s /etc/casemate/firewall.nft ]; then nft -f /etc/casemate/firewall.nft || failed=1
  elif nft list table inet casemate >/dev/null 2>&1; then nft delete table inet casemate || failed=1; fi
esac
unit=/etc/systemd/system/casemate-firewall.service  # it may be enabled by the time that it goes
[ -e "$unit" ] || rm -f /etc/systemd/system/*.wants/casemate-firewall.service || failed=1
case $restored in *"/systemd/"*) [ "$how" = boot ] || systemctl daemon-reload || failed=1 ;; esac
case $restored in *"$newline/etc/ssh/"*)
  if [ "$how" != boot ] && systemctl -q is-active ssh.service; then
    how_to=reload  # which ends a daemon for which systemd listens
    ! systemctl -q is-active ssh.socket || how_to=try-restart
    if /usr/sbin/sshd -t; then systemctl "$how_to" ssh.service || failed=1; else failed=1; fi
  fi
esac
"""
BOOT_UNIT = """# Managed by Casemate: a change that was not confirmed does not survive a reboot.
[Unit]
Description=Casemate guard: undo an unconfirmed change before anything listens
DefaultDependencies=no
RequiresMountsFor=@HOME@ /etc
After=local-fs.target
Before=sysinit.target systemd-sysctl.service systemd-modules-load.service
Before=casemate-firewall.service network-pre.target ssh.socket ssh.service shutdown.target
Conflicts=shutdown.target
ConditionPathExists=|@HOME@/pending
ConditionPathExists=|@HOME@/reverting

[Service]
Type=oneshot
ExecStart=/bin/sh @HOME@/revert boot

[Install]
WantedBy=sysinit.target
"""
REVERT_UNIT = """# Managed by Casemate.
[Unit]
Description=Casemate guard: undo an unconfirmed change
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/bin/sh @HOME@/revert
Restart=on-failure
RestartSec=10
"""
TIMER_UNIT = """# Managed by Casemate.
[Unit]
Description=Casemate guard: how long a change may stay unconfirmed

[Timer]
OnActiveSec=@SECONDS@
AccuracySec=1
RemainAfterElapse=no
"""


class Guard(Backup):
    """Keeps, arms, confirms and reverts. `root` lets tests point it at a folder."""

    BEFORE = BEFORE.replace("@BOOT_ID@", BOOT_ID)
    AFTER = SAYS + AFTER

    def __init__(self, seconds: int = 120, root: str = "/") -> None:
        super().__init__(HOME, root)
        self.seconds = min(max(int(seconds), 60), 900)

    def arm(self, names: Sequence[str], sort: str = "file", note: str = "") -> None:
        """Guard some of a sort (see backup.py) before they change, with a note such as OF_PACKAGES.

        May be called again to add more. A backup that is pending is never overwritten: it is the last confirmed
        state, whichever run made it. Raises EnforceError when any of it fails; then nothing may be changed.
        """
        try:
            if not self._begun:
                self._install()
                self._systemctl("restart", TIMER)
                if os.path.isdir(self.reverting):
                    self.revert()  # one that was killed: its state is the confirmed one
                    self._systemctl("restart", TIMER)
            self.keep(names, sort, note)
        except (OSError, EnforceError) as failed:
            raise EnforceError(f"the guard could not be armed, so nothing was changed: {failed}") from failed

    def begin_anew(self) -> None:
        """Count the time from now on, if it was not over yet: what took long to change may take as long to confirm."""
        if os.path.isdir(self.pending):
            self._systemctl("restart", TIMER)

    def confirm(self) -> bool:
        """Keep the change: claim what is kept, then stop the timer. Return False when nothing is pending (any more).

        What was there before is handed over to last_change.py. Where that fails, the change is confirmed all the same.
        """
        self._hand_over()  # what a confirmation that was killed has left
        settled = self.claim()
        if settled:
            self._systemctl("stop", TIMER)
            self._hand_over()
        return settled

    def undoes(self) -> None:
        """Note that what is pending is itself an undoing, which nobody undoes once it is confirmed."""
        self._put(os.path.join(self.pending, UNDOES), "")

    def revert(self) -> bool:
        """Undo now what is pending; return whether there was anything. Raises EnforceError when it fails."""
        undone = self.restore()
        if undone:
            self._systemctl("stop", TIMER)
        return undone

    def status(self) -> dict[str, Any]:
        """Whether something is pending, what, and what the last revert undid."""
        undone = os.path.join(self.home, "reverted")
        last = os.stat(undone).st_ctime if os.path.isdir(undone) else None
        return {"pending": os.path.isdir(self.pending), "paths": self.paths(), "reverted_at": last}

    def _hand_over(self) -> None:
        if os.path.isdir(self.confirmed) and not os.path.exists(os.path.join(self.confirmed, UNDOES)):
            run = (Lock(self.root).read() or {}).get("run") or str(time.time())
            with contextlib.suppress(OSError):
                LastChange(AFTER, self.root).take_over(self.confirmed, run)
        shutil.rmtree(self.confirmed, ignore_errors=True)

    def _install(self) -> None:
        """The script and the units, written only where they differ; the boot unit is enabled."""
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        self._put(os.path.join(self.home, "revert"), self._script(), 0o700)
        units = {
            "casemate-guard.service": BOOT_UNIT,
            "casemate-guard-revert.service": REVERT_UNIT,
            TIMER: TIMER_UNIT.replace("@SECONDS@", str(self.seconds)),
        }
        folder = self._real(UNITS)
        fresh = [self._put(os.path.join(folder, n), t.replace("@HOME@", self.home), 0o644) for n, t in units.items()]
        if any(fresh):
            self._systemctl("daemon-reload")
        self._systemctl("enable", "casemate-guard.service")

    def _systemctl(self, *arguments: str) -> None:
        self._run(["systemctl", "--quiet", *arguments])
