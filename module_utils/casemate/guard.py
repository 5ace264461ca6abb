"""The on-host guard against locking people out: a change that nobody confirms is undone by the host itself.

Armed before the first guarded write: what is about to change is copied to `pending/`, a timer starts, and an
enabled boot unit makes sure that a reboot does not save an unconfirmed change. `confirm` and the revert both claim
`pending/` by one atomic rename, so exactly one of them wins. Neither a controller nor Python is needed to revert.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat as statmod
import subprocess
from typing import Any, Dict, List, Sequence

from .base import EnforceError, copy_context, sync_folder

HOME = "/var/lib/casemate/guard"
UNITS = "/etc/systemd/system"
TIMER = "casemate-guard-revert.timer"
BOOT_ID = "/proc/sys/kernel/random/boot_id"

# An entry is complete once it has its number for a name. The claim, the end and every restored file are renames, so
# it may be killed anywhere and run again. `boot` does nothing in the boot that armed it: systemd starts an inactive
# unit of sysinit.target again whenever something else that needs the target is started.
SCRIPT = r"""#!/bin/sh
# Managed by Casemate: restores what was guarded and never confirmed.
cd @HOME@ || exit 0
if [ "${1-}" = boot ] && [ "$(cat pending/boot 2>/dev/null)" = "$(cat @BOOT_ID@)" ]; then exit 0; fi
if ! [ -d reverting ]; then mv pending reverting 2>/dev/null || exit 0; fi
sync . ; failed=0 ; ssh=0 ; firewall=0
for entry in reverting/*[0-9]; do
  [ -f "$entry/path" ] || continue
  path=$(cat "$entry/path")
  if [ -e "$entry/absent" ]; then
    rm -f "$path" || failed=1
  else
    mkdir -p "${path%/*}"
    { cp -a "$entry/data" "$path.casemate-revert" && sync "$path.casemate-revert" \
      && mv -f "$path.casemate-revert" "$path" ; } || { rm -f "$path.casemate-revert" ; failed=1 ; }
  fi
  sync "${path%/*}"
  case $path in /etc/ssh/*) ssh=1 ;; /etc/casemate/firewall.nft) firewall=1 ;; esac
  echo "casemate-guard: nobody confirmed the change of $path in time; the earlier state is back"
done
if [ $firewall = 1 ]; then
  if [ -s /etc/casemate/firewall.nft ]; then nft -f /etc/casemate/firewall.nft || failed=1
  elif nft list table inet casemate >/dev/null 2>&1; then nft delete table inet casemate || failed=1; fi
fi
if [ $ssh = 1 ] && [ "${1-}" != boot ] && systemctl -q is-active ssh.service; then
  if /usr/sbin/sshd -t; then systemctl reload ssh.service || failed=1; else failed=1; fi
fi
[ $failed = 0 ] || exit 1
rm -rf reverted && mv reverting reverted && sync .
"""
BOOT_UNIT = """# Managed by Casemate: a change that was not confirmed does not survive a reboot.
[Unit]
Description=Casemate guard: undo an unconfirmed change before anything listens
DefaultDependencies=no
RequiresMountsFor=@HOME@ /etc
After=local-fs.target
Before=sysinit.target casemate-firewall.service network-pre.target ssh.socket ssh.service shutdown.target
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


class Guard:
    """Backs up, arms, confirms and reverts. `root` lets tests point it at a folder."""

    def __init__(self, seconds: int = 120, root: str = "/") -> None:
        self.seconds, self.root = min(max(int(seconds), 60), 900), root
        self.home = self._real(HOME)
        self.pending = os.path.join(self.home, "pending")

    def arm(self, paths: Sequence[str]) -> None:
        """Guard some regular files (or their absence) before they change.

        May be called again to add paths. A backup that is pending is never overwritten: it is the last confirmed
        state, whichever run made it. Raises EnforceError when any of it fails; then nothing may be changed.
        """
        try:
            self._install()
            self._systemctl("restart", TIMER)
            if os.path.isdir(os.path.join(self.home, "reverting")):
                self.revert()  # one that was killed: its state is the confirmed one
                self._systemctl("restart", TIMER)
            os.makedirs(self.pending, mode=0o700, exist_ok=True)
            with open(BOOT_ID, encoding="ascii") as boot:
                self._put(os.path.join(self.pending, "boot"), boot.read())
            held = self.paths()
            for path in paths:
                if not path.startswith("/") or "\n" in path:
                    raise EnforceError(f"{path!r} cannot be guarded")
                if self._real(path) not in held:
                    self._backup(self._real(path), len(held))
                    held.append(self._real(path))
            sync_folder(self.pending)  # fails if the timer has taken it meanwhile
        except (OSError, EnforceError) as failed:
            for half in glob.glob(os.path.join(glob.escape(self.pending), "*.new")):
                shutil.rmtree(half, ignore_errors=True)
            raise EnforceError(f"the guard could not be armed, so nothing was changed: {failed}") from failed

    def confirm(self) -> bool:
        """Keep the change: claim `pending/`, then stop the timer. Return False when nothing is pending (any more)."""
        kept = os.path.join(self.home, "confirmed")
        shutil.rmtree(kept, ignore_errors=True)
        try:
            os.rename(self.pending, kept)
        except FileNotFoundError:
            return False
        sync_folder(self.home)
        self._systemctl("stop", TIMER)
        shutil.rmtree(kept, ignore_errors=True)
        return True

    def revert(self) -> bool:
        """Undo now what is pending; return whether there was anything. Raises EnforceError when it fails."""
        if not any(os.path.isdir(os.path.join(self.home, name)) for name in ("pending", "reverting")):
            return False
        self._run(["/bin/sh", os.path.join(self.home, "revert")])
        self._systemctl("stop", TIMER)
        return True

    def paths(self) -> List[str]:
        """What is pending, in the order in which it was guarded."""
        held: Dict[int, str] = {}
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.pending):
                if name.isdigit():
                    with open(os.path.join(self.pending, name, "path"), encoding="utf-8") as entry:
                        held[int(name)] = entry.read()
        return [held[number] for number in sorted(held)]

    def status(self) -> Dict[str, Any]:
        """Whether something is pending, what, and what the last revert undid."""
        undone = os.path.join(self.home, "reverted")
        last = os.stat(undone).st_ctime if os.path.isdir(undone) else None
        return {"pending": os.path.isdir(self.pending), "paths": self.paths(), "reverted_at": last}

    def _real(self, path: str) -> str:
        return path if self.root == "/" else os.path.join(self.root, path.lstrip("/"))

    def _install(self) -> None:
        """The script and the units, written only where they differ; the boot unit is enabled."""
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        script = SCRIPT.replace("@HOME@", self.home).replace("@BOOT_ID@", BOOT_ID)
        self._put(os.path.join(self.home, "revert"), script, 0o700)
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

    def _backup(self, path: str, number: int) -> None:
        """Copy one path with its owner, mode and context; the entry counts once it is complete and durable."""
        entry = os.path.join(self.pending, str(number))
        shutil.rmtree(entry + ".new", ignore_errors=True)
        os.mkdir(entry + ".new", 0o700)
        self._put(entry + ".new/path", path)
        try:
            seen = os.lstat(path)
        except FileNotFoundError:
            self._put(entry + ".new/absent", "")
        else:
            if not statmod.S_ISREG(seen.st_mode):
                raise EnforceError(f"{path} is not a regular file")
            shutil.copy2(path, entry + ".new/data")
            os.chown(entry + ".new/data", seen.st_uid, seen.st_gid)
            os.chmod(entry + ".new/data", statmod.S_IMODE(seen.st_mode))
            copy_context(path, entry + ".new/data")
            with open(entry + ".new/data", "rb") as copied:
                os.fsync(copied.fileno())
        sync_folder(entry + ".new")
        os.rename(entry + ".new", entry)

    def _put(self, path: str, text: str, mode: int = 0o600) -> bool:
        """Write a small file of our own atomically and durably; return whether it differed."""
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as old:
            if old.read() == text:
                return False
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(path + ".new", "w", encoding="utf-8") as out:
                os.fchmod(out.fileno(), mode)
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.replace(path + ".new", path)
        except OSError as failed:  # a full disk: nothing half-written stays
            with contextlib.suppress(OSError):
                os.unlink(path + ".new")
            raise OSError(failed.errno, failed.strerror, path) from failed
        sync_folder(os.path.dirname(path))
        return True

    def _systemctl(self, *arguments: str) -> None:
        self._run(["systemctl", "--quiet", *arguments])

    def _run(self, argv: Sequence[str]) -> None:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        if done.returncode != 0:
            raise EnforceError(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()[:300]}")
