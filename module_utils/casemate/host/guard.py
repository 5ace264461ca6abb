"""The on-host guard against locking people out: a change that nobody confirms is undone by the host itself.

Armed before the first guarded write: what is about to change is kept (see backup.py), and the way in of the account
that came in (see way_in.py), a timer starts, and an enabled boot unit makes sure that a reboot does not save an
unconfirmed change. `confirm` and the revert both claim what is kept, so exactly one of them wins. Neither a controller
nor Python is needed to revert, nor room on a disk: some is set aside before.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

from . import way_in
from .backup import BOOT_ID, IN_CASE, Backup
from .last_change import ASIDE, LastChange
from .machine import EnforceError, Host
from .run_lock import Lock

HOME = "/var/lib/casemate/guard"
UNITS = "/etc/systemd/system"
FINAL = "final"
"""A file beside the entries, of a change that no operator takes back once it is confirmed."""
TIMER = "casemate-guard-revert.timer"
RESERVES = (f"{HOME}/reserve", "/etc/.casemate-reserve")
"""Room for going back where a disk is full by then: where the copies are, and where /etc lies if that is elsewhere."""
ROOM = 1 << 20
"""Bytes of each: for account files that are written anew with their backups, and files that grew shorter meanwhile."""
OWNED = tuple(f"{UNITS}/{name}" for name in ("casemate-guard.service", "casemate-guard-revert.service", TIMER))
"""What is written beside the files that controls declare."""

# `boot` does nothing in the boot that armed it: systemd starts an inactive unit of sysinit.target again whenever
# something else that needs the target is started.
BEFORE = r"""if [ "${1-}" = boot ] && [ "$(cat pending/boot 2>/dev/null)" = "$(cat @BOOT_ID@)" ]; then exit 0; fi
rm -f @RESERVES@
"""
# What was being taken back may be taken back again: see last_change.py.
SAYS = r"""[ -z "$restored" ] || echo "casemate-guard: nobody confirmed the change in time"
if [ -d @LAST@/@ASIDE@ ]; then
  rm -rf @LAST@/pending @LAST@/reverting && mv @LAST@/@ASIDE@ @LAST@/pending || echo "casemate-guard: no revert is kept"
fi
"""
AFTER = r"""case $restored in *"$newline/etc/casemate/firewall.nft"*)
  if ! command -v nft >/dev/null; then echo "casemate: there is no nft, so the table stays as it is"
  elif [ -s /etc/casemate/firewall.nft ]; then nft -f /etc/casemate/firewall.nft || failed=1
  elif nft list table inet casemate >/dev/null 2>&1; then nft delete table inet casemate || failed=1; fi
esac
unit=/etc/systemd/system/casemate-firewall.service  # it may be enabled by the time that it goes
[ -e "$unit" ] || rm -f /etc/systemd/system/*.wants/casemate-firewall.service || failed=1
case $restored in *"/systemd/"*) [ "$how" = boot ] || systemctl daemon-reload || failed=1 ;; esac
listen() {  # so that logins are served as the files say, whatever serves them, and if it runs or not
  [ -x /usr/sbin/sshd ] || return 0
  mkdir -p /run/sshd  # which sshd demands, and which goes with its unit
  /usr/sbin/sshd -t || return
  if systemctl -q is-enabled ssh.socket \
    && { systemctl -q is-active ssh.socket || ! systemctl -q is-enabled ssh.service ; }; then
    systemctl stop ssh.service  # while it runs, the socket goes on listening where it did
    systemctl restart ssh.socket
  elif systemctl -q is-active ssh.socket; then
    systemctl try-restart ssh.service
  elif systemctl -q is-active ssh.service || systemctl -q is-enabled ssh.service; then
    systemctl -q reset-failed ssh.service
    systemctl restart ssh.service  # its options may have been others, and sessions outlive it
  fi
}
case $restored in *"$newline/etc/ssh/"*) [ "$how" = boot ] || listen || failed=1 ;; esac
grub() {  # what boots next is made of these files; a boot waits for no disk that GRUB looks at
  command -v update-grub >/dev/null || return 0
  if [ "$how" = boot ]; then systemd-run -q --no-block --collect update-grub; else update-grub; fi
}
case $restored in *"$newline/etc/default/grub"*) grub || failed=1 ;; esac
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
    """Keeps, arms, confirms and reverts.

    `account` is who came in: what it needs to come in again is kept, too. `root` lets tests point it at a folder.
    """

    def __init__(self, seconds: int = 120, root: str = "/", account: str = "") -> None:
        super().__init__(HOME, root)
        self.seconds = min(max(int(seconds), 60), 900)
        self.account = account
        self.reserves = [self._real(path) for path in RESERVES]
        self.BEFORE = BEFORE.replace("@BOOT_ID@", BOOT_ID).replace("@RESERVES@", shlex.join(self.reserves))
        last = shlex.quote(LastChange(root=root).home)
        self.AFTER = SAYS.replace("@LAST@", last).replace("@ASIDE@", ASIDE) + AFTER

    def arm(self, names: Sequence[str], sort: str = "file", note: str = "") -> None:
        """Guard some of a sort (see backup.py) before they change, with a note such as OF_PACKAGES.

        May be called again to add more. A backup that is pending is never overwritten: it is the last confirmed
        state, whichever run made it. Raises EnforceError when any of it fails; then nothing may be changed.
        """
        try:
            with self._alone():
                if not self._begun:
                    self._install()
                    self._systemctl("restart", TIMER)
                    if os.path.isdir(self.reverting):
                        self.revert()  # one that was killed: its state is the confirmed one
                        self._systemctl("restart", TIMER)
                    self._keep_way_in()
                    self._reserve()
                self.keep(names, sort, note)
        except (OSError, EnforceError) as failed:
            self._begun = False  # the next one begins from the start, with the way in and the room that it needs
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
            self._give_up_reserve()
            self._hand_over()
        return settled

    def final(self) -> None:
        """Note that nobody takes back what is pending once it is confirmed: it is an undoing itself, or the way in."""
        self._put(os.path.join(self.pending, FINAL), "")

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

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no second run keep anything meanwhile: both would give their entries the same numbers."""
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        handle = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _keep_way_in(self) -> None:
        """Keep the way in of the account, once for each change: as it was before the first of it."""
        complete = os.path.join(self.pending, "way-in")
        if self.account and not os.path.exists(complete):
            for sort, names in way_in.kept(self.account, Host(self.root)):
                self.keep(names, sort, IN_CASE)
            self._put(complete, "")

    def _reserve(self) -> None:
        """Set room aside on the file systems that a revert writes to."""
        devices = set()
        for path in self.reserves:
            folder = os.path.dirname(path)
            if os.path.isdir(folder) and os.stat(folder).st_dev not in devices:
                devices.add(os.stat(folder).st_dev)
                try:
                    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                    with open(handle, "wb") as file:
                        os.posix_fallocate(file.fileno(), 0, ROOM)
                except OSError as full:
                    self._give_up_reserve()
                    raise OSError(full.errno, full.strerror, path) from full

    def _give_up_reserve(self) -> None:
        for path in self.reserves:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _hand_over(self) -> None:
        if os.path.exists(os.path.join(self.confirmed, FINAL)):
            LastChange(root=self.root).settle()
        elif os.path.isdir(self.confirmed):
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
