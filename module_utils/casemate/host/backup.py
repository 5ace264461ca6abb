"""What files were before a change, kept on the host until the change is settled: restored or dropped, never both.

Each path is copied to `pending/` with its owner, mode and context, or noted as absent. Restoring and dropping both
claim `pending/` by one atomic rename, so exactly one of them wins. Restoring is a shell script that lies beside the
copies and needs no Python, and that may be killed anywhere and run again.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat as statmod
import subprocess
from collections.abc import Sequence

from .accounts import PLAIN, group, last_days, passwd
from .files import copy_whole, names_in, only_roots, replacing, stat_of, sync_folder
from .machine import EnforceError
from .text import split_lines

BOOT_ID = "/proc/sys/kernel/random/boot_id"

# An entry is complete once it has its number for a name. The claim, the end and every restored file are renames, so
# it may be killed anywhere and run again. @BEFORE@ may end it before the claim; @AFTER@ runs when all files are back,
# sees their paths in $restored, each after a $newline, and sets failed=1 where what it does did not work.
SCRIPT = r"""#!/bin/sh
# Managed by Casemate: restores what was kept before a change.
cd @HOME@ || exit 0
exec 9<revert && flock 9  # of two that restore, the second one finds nothing left to do
@BEFORE@
if ! [ -d reverting ]; then mv pending reverting 2>/dev/null || exit 0; fi
newline='
'
same() {  # whether $path is what $1 keeps: written anew it would count as changed
  [ -f "$path" ] && ! [ -L "$path" ] && ! [ -L "$1" ] && cmp -s "$1" "$path" \
    && [ "$(stat -c %a:%u:%g "$1")" = "$(stat -c %a:%u:%g "$path")" ]
}
put() {  # what $1 keeps takes the name $path; where the disk takes no copy, it overwrites the blocks that are there
  { cp -a --remove-destination "$1" "$path.casemate-revert" \
    && { [ -L "$1" ] || sync "$path.casemate-revert" ; } \
    && mv -fT "$path.casemate-revert" "$path" ; } && return
  rm -f "$path.casemate-revert"
  [ -f "$path" ] && ! [ -L "$path" ] && ! [ -L "$1" ] && dd "if=$1" "of=$path" conv=notrunc,fsync status=none \
    && truncate -s "$(stat -c %s "$1")" "$path" && chown --reference="$1" "$path" && chmod --reference="$1" "$path"
}
file() {
  if [ -e "$entry/absent" ]; then
    [ -e "$path" ] || [ -L "$path" ] || back=
    rm -f "$path" || failed=1
  elif same "$entry/data"; then
    back= ; return
  else
    mkdir -p "${path%/*}"
    put "$entry/data" || failed=1
  fi
  sync "${path%/*}"
}
lost() {
  if [ -s "$path" ]; then back= ; else file ; fi
}
folder() {
  folder=$path back=
  for kept in "$entry"/data/* "$entry"/data/.[!.]*; do
    path=$folder/${kept##*/}
    { [ -e "$kept" ] || [ -L "$kept" ] ; } && ! same "$kept" || continue
    back=1
    mkdir -p "$folder"
    put "$kept" || failed=1
  done
  for path in "$folder"/* "$folder"/.[!.]*; do
    name=${path##*/}
    [ -f "$path" ] || [ -L "$path" ] || continue
    [ -e "$entry/data/$name" ] || [ -L "$entry/data/$name" ] && continue
    case $name in *.dpkg-*|*.casemate-revert) continue ;; esac
    ! dpkg -S "$path" >/dev/null 2>&1 || continue
    back=1
    { mkdir -p "$entry/new" && mv -f "$path" "$entry/new/" ; } || failed=1
  done
  path=$folder
  [ -z "$back" ] || ! [ -d "$folder" ] || sync "$folder"
}
theirs() {
  read -r uid gid mode <"$entry/theirs"
  ! setpriv --reuid="$uid" --regid="$gid" --clear-groups cmp -s - "$path" <"$entry/data" || { back= ; return ; }
  setpriv --reuid="$uid" --regid="$gid" --clear-groups sh -c '
    umask 077 ; folder=${1%/*}  # by now it may be a link, or a folder of somebody else
    ! [ -e "$folder" ] || [ -O "$folder" ] || [ -w "$folder" ] || mv -T "$folder" "$folder.casemate-revert"
    mkdir -p "$folder"
    { cat <&3 >"$1.casemate-revert" && chmod "$2" "$1.casemate-revert" && sync "$1.casemate-revert" \
      && mv -f "$1.casemate-revert" "$1" ; } \
      || { rm -f "$1.casemate-revert" ; dd "of=$1" conv=notrunc,fsync status=none <&4 && truncate -s "$3" "$1" ; }
    ' sh "$path" "$mode" "$(stat -c %s "$entry/data")" 3<"$entry/data" 4<"$entry/data" \
    || echo "casemate: $path is not as it was"
}
mode() {
  read -r mode uid gid by same <"$entry/mode"
  [ -e "$path" ] && ! [ -L "$path" ] || { back= ; return ; }
  if [ "$(printf %04d "$(stat -c %a "$path")") $(stat -c '%u %g' "$path")" = "$mode $uid $gid" ]; then
    back=
  elif [ "$by" = root ]; then
    { chown "$uid:$gid" "$path" && chmod "$mode" "$path" ; } || failed=1
  elif { [ -d "$path" ] || [ -f "$path" ] ; } && { own ; } 8<"$path"; then :
  else  # others may change what the path means: this may do no more than the file's owner could
    setpriv --reuid="$uid" --regid="$gid" --clear-groups chmod "$mode" "$path" || echo "casemate: $path kept its mode"
  fi
}
own() {  # what is open as 8 may be root's by now: it goes back to who had it, if it is the very same file or folder
  [ "$(stat -Lc %d:%i:%W /proc/self/fd/8)" = "$same" ] \
    && chown "$uid:$gid" /proc/self/fd/8 && chmod "$mode" /proc/self/fd/8
}
value() {  # the next boot takes it from the files; some values of the kernel are final until then
  [ "$how" = boot ] || ! [ -e "$path" ] || cat "$entry/value" >"$path" || echo "casemate: $path kept its value"
}
account() {
  IFS=: read -r hash changed shell min max warn inactive expire <"$entry/account"
  line=$(getent -s files passwd -- "$path") || { back= ; return ; }
  was=$(shadow '$2 ":" $3 ":" $4 ":" $5 ":" $6 ":" $7 ":" $8')
  [ "$was ${line##*:}" != "$hash:$changed:$min:$max:$warn:$inactive:$expire $shell" ] || { back= ; return ; }
  [ "${line##*:}" = "$shell" ] || usermod -s "$shell" -- "$path" || failed=1
  [ "$(shadow '$2')" = "$hash" ] || printf '%s:%s\n' "$path" "$hash" | chpasswd -e || failed=1
  [ "$(shadow '$3')" = "$changed" ] || chage -d "${changed:--1}" -- "$path" || failed=1
  case $(cat "$entry/account") in *:*:*:*) ;; *) return ;; esac  # kept by a release that knew no other dates
  [ "$(shadow '$4 ":" $5 ":" $6 ":" $7 ":" $8')" != "$min:$max:$warn:$inactive:$expire" ] || return
  chage -m "${min:--1}" -M "${max:--1}" -W "${warn:--1}" -I "${inactive:--1}" -E "${expire:--1}" -- "$path" || failed=1
}
shadow() {
  awk -F: -v "name=$path" "\$1 == name { print $1; exit }" /etc/shadow
}
state() {
  systemctl show -p "$1" --value -- "$path"
}
new_account() {  # made seconds ago: what it owns is what useradd gave it
  getent -s files passwd -- "$path" >/dev/null || { back= ; return ; }
  userdel --remove --force -- "$path" || ! getent -s files passwd -- "$path" >/dev/null || failed=1
}
person() {  # who was not there before stays out, and keeps what files there are
  IFS=: read -r hash changed shell over groups <"$entry/person"
  getent -s files passwd -- "$path" >/dev/null || { back= ; return ; }
  if [ "$hash" = absent ]; then usermod -L -e 1 -- "$path" || failed=1; return; fi
  there=
  for group in $(echo "$groups" | tr , ' '); do
    if getent -s files group "$group" >/dev/null; then there=$there,$group
    else echo "casemate: $path is not back in $group, which is gone"; fi
  done
  usermod -s "$shell" -e "$over" -G "${there#,}" -- "$path" || failed=1
  [ "$(shadow '$2')" = "$hash" ] && return
  { printf '%s:%s\n' "$path" "$hash" | chpasswd -e && chage -d "${changed:--1}" -- "$path" ; } || failed=1
}
unit() {
  read -r enabled active <"$entry/unit"
  back=
  [ "$(state UnitFileState)" = "$enabled" ] || case $enabled in
    masked) back=1 ; systemctl -q mask "$path" ;;
    enabled|linked) back=1 ; systemctl -q unmask "$path" ; systemctl -q enable "$path" ;;
    disabled) back=1 ; systemctl -q unmask "$path" ; systemctl -q disable "$path" ;;
  esac
  [ "$(state ActiveState)" = "$active" ] || case $active in
    active|activating|reloading) back=1 ; systemctl -q reset-failed "$path" ; systemctl -q --no-block start "$path" ;;
    inactive) back=1 ; systemctl -q --no-block stop "$path" ;;
  esac || echo "casemate: $path is not as it was"
}
sync . ; failed=0 ; restored= ; how=${1-}
for number in $(ls reverting | sort -rn); do  # the latest first: what was kept twice ends as it was first
  entry=reverting/$number
  case $number in *[!0-9]*) continue ;; esac
  [ -f "$entry/path" ] || continue
  path=$(cat "$entry/path")
  for sort in mode value account new_account person unit folder lost theirs file; do
    [ -e "$entry/$sort" ] && break
  done
  back=1
  $sort
  restored=$restored$newline$path
  [ -z "$back" ] || echo "casemate: the earlier state of $path is back"
done
@AFTER@
[ $failed = 0 ] || exit 1
rm -rf reverted && mv reverting reverted && sync .
rm -rf reverted/[0-9]*/data
"""
SORTS = ("file", "mode", "value", "account", "new_account", "person", "unit", "folder", "lost", "theirs")
"""What can be kept: a whole file, link or absence; mode and owner of what is there, whose content others may change
meanwhile; the live value of a kernel parameter; shell, password and dates of an account; that an account is not there;
of a person's account also the groups, or that there is none; whether a unit runs, now and at boot. And of what others
may change, should it keep people out: the files of a folder, what is new there and no package's being moved away; a
file that comes back only where it is gone or empty; and one that an account keeps at home, with no more than the
account's own rights.
"""
NAMED = ("account", "new_account", "person", "unit")
"""Those of them that have a name and no path."""
IN_CASE = "in-case"
"""A note with what the run itself does not change: kept in case that somebody locks people out meanwhile."""


class Backup:
    """Keeps, restores and drops what files were. `home` is a folder of its own; `root` lets tests point it at one."""

    BEFORE = ""
    AFTER = ""

    def __init__(self, home: str, root: str = "/") -> None:
        self.root = root
        self.home = self._real(home)
        self.pending = os.path.join(self.home, "pending")
        self.reverting = os.path.join(self.home, "reverting")
        self.confirmed = os.path.join(self.home, "confirmed")
        self._begun = False

    def keep(self, names: Sequence[str], sort: str = "file", note: str = "") -> None:
        """Keep some of a sort (see SORTS) as they are now: paths, but for accounts and units, which have names.

        A `note` is kept with them, as an empty file of that name; IN_CASE goes once the same is kept without any. May
        be called again to add more. What is kept is never overwritten: it is the last settled state, whichever run
        kept it. Raises EnforceError or OSError when any of it fails; then nothing of it may be changed.
        """
        try:
            if not self._begun:
                os.makedirs(self.home, mode=0o700, exist_ok=True)
                self._put(os.path.join(self.home, "revert"), self._script(), 0o700)
                os.makedirs(self.pending, mode=0o700, exist_ok=True)
                with open(BOOT_ID, encoding="ascii") as boot:
                    self._put(os.path.join(self.pending, "boot"), boot.read())
                self._begun = True
            held = self._held()
            for name in names:
                real = name if sort in NAMED else self._real(name)
                if "\n" in name or not (sort in NAMED or name.startswith("/")):
                    raise EnforceError(f"{name!r} cannot be guarded")
                number = next((number for number, one in held.items() if one == (sort, real)), None)
                if number is None:
                    number = max(held, default=-1) + 1
                    self._add(number, sort, real, note)
                    held[number] = (sort, real)
                elif not note:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(self.pending, str(number), IN_CASE))
            sync_folder(self.pending)  # fails if a restore has taken it meanwhile
        except (OSError, EnforceError):
            for half in glob.glob(os.path.join(glob.escape(self.pending), "*.new")):
                shutil.rmtree(half, ignore_errors=True)
            raise

    def restore(self) -> bool:
        """Put back what is kept; return whether there was anything. Raises EnforceError when it fails."""
        if not any(os.path.isdir(folder) for folder in (self.pending, self.reverting)):
            return False
        self._begun = False
        self._run(["/bin/sh", os.path.join(self.home, "revert")])
        return True

    def drop(self) -> bool:
        """Forget what is kept: the change stays. Return False when nothing is kept (any more)."""
        claimed = self.claim()
        shutil.rmtree(self.confirmed, ignore_errors=True)
        return claimed

    def claim(self) -> bool:
        """Move what is kept to `confirmed`, where no restore finds it. Return False when nothing is kept (any more)."""
        self._begun = False
        shutil.rmtree(self.confirmed, ignore_errors=True)
        try:
            os.rename(self.pending, self.confirmed)
        except FileNotFoundError:
            return False
        sync_folder(self.home)
        return True

    def paths(self) -> list[str]:
        """What is kept, in the order in which it was."""
        held = self._held()
        return [held[number][1] for number in sorted(held)]

    def _held(self) -> dict[int, tuple[str, str]]:
        held: dict[int, tuple[str, str]] = {}
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.pending):
                if name.isdigit():
                    held[int(name)] = self._entry(os.path.join(self.pending, name))
        return held

    @staticmethod
    def _entry(folder: str) -> tuple[str, str]:
        """Sort and name of what is kept in a folder."""
        with open(os.path.join(folder, "path"), encoding="utf-8", errors="surrogateescape") as entry:
            return next((one for one in SORTS if os.path.exists(os.path.join(folder, one))), "file"), entry.read()

    def _real(self, path: str) -> str:
        return path if self.root == "/" else os.path.join(self.root, path.lstrip("/"))

    def _script(self) -> str:
        script = SCRIPT.replace("@BEFORE@\n", self.BEFORE).replace("@AFTER@\n", self.AFTER)
        return script.replace("@HOME@", self.home)

    def _add(self, number: int, sort: str, name: str, note: str) -> None:
        """Keep one; the entry counts once it is complete and durable."""
        entry = os.path.join(self.pending, str(number))
        shutil.rmtree(entry + ".new", ignore_errors=True)
        os.mkdir(entry + ".new", 0o700)
        self._put(entry + ".new/path", name)
        if sort == "folder":
            self._copy_files(name, entry + ".new")
        elif sort in ("file", "lost", "theirs"):
            self._copy(name, entry + ".new")
        if sort != "file":
            self._put(f"{entry}.new/{sort}", self._state(sort, name))
        if note:
            self._put(f"{entry}.new/{note}", "")
        sync_folder(entry + ".new")
        os.rename(entry + ".new", entry)

    def _state(self, sort: str, name: str) -> str:
        """How something that is no whole file is now, as it is kept."""
        states = {
            "mode": self._mode,
            "value": self._value,
            "account": self._dated_account,
            "new_account": self._new_account,
            "person": self._person,
            "unit": self._unit,
            "theirs": self._theirs,
        }
        return states[sort](name) if sort in states else ""

    def _copy(self, path: str, entry: str) -> None:
        """Copy a file with all that belongs to it, or a link, or note that nothing is there."""
        data = os.path.join(entry, "data")
        try:
            seen = os.lstat(path)
        except FileNotFoundError:
            self._put(os.path.join(entry, "absent"), "")
            return
        if not (statmod.S_ISREG(seen.st_mode) or statmod.S_ISLNK(seen.st_mode)):
            raise EnforceError(f"{path} is not a regular file")
        copy_whole(path, data)

    def _copy_files(self, folder: str, entry: str) -> None:
        """Copy the files and links of a folder, which may be absent; what lies deeper is none of them."""
        data = os.path.join(entry, "data")
        os.mkdir(data, 0o700)
        for name in names_in(folder):
            seen = stat_of(os.path.join(folder, name))
            if seen is None:
                continue  # it has gone meanwhile
            if statmod.S_ISREG(seen.st_mode) or statmod.S_ISLNK(seen.st_mode):
                copy_whole(os.path.join(folder, name), os.path.join(data, name))
        sync_folder(data)

    def _theirs(self, path: str) -> str:
        """Owner and mode of a file at somebody's home."""
        seen = os.lstat(path)
        if seen.st_uid == 0:
            raise EnforceError(f"{path} is root's, so it is not kept as somebody else's")
        return f"{seen.st_uid} {seen.st_gid} {statmod.S_IMODE(seen.st_mode):04o}\n"

    def _mode(self, path: str) -> str:
        """Mode and owner; and whether root may set them again by the path. Where others may replace what is there, root
        does so only to the very same file, which its number and the time of its birth tell, and else its owner does.
        """
        by = "root" if roots_alone(os.path.dirname(path), self.root) else "owner"
        mode, uid, gid, same = self._run(["stat", "-c", "%a %u %g %d:%i:%W", "--", path]).split()
        if by == "owner" and uid == "0":
            raise EnforceError(f"{path} is root's in a folder of somebody else, so it is not changed")
        return f"{int(mode, 8):04o} {uid} {gid} {by} {same}\n"

    def _value(self, path: str) -> str:
        with open(path, encoding="utf-8") as live:
            return live.read()

    def _account(self, name: str) -> str:
        """Password, the day of its last change and the shell, as the files have them now."""
        known = {account.name: account for account in passwd(self._text("/etc/passwd")) if account.first}
        if name not in known or not PLAIN.fullmatch(name):
            raise EnforceError(f"{name!r} is no account of /etc/passwd")
        fields = self._shadow(name) or ["!", ""]
        if known[name].password != "x":  # noqa: S105 - x says that it stands in the other file
            fields = [known[name].password, ""]
        return f"{fields[0]}:{fields[1]}:{known[name].shell}\n"

    def _dated_account(self, name: str) -> str:
        """What is kept of an account, and the other dates of shadow(5)."""
        dates = [*self._shadow(name)[2:7], *[""] * 5][:5]
        return ":".join([self._account(name).rstrip("\n"), *dates]) + "\n"

    def _shadow(self, name: str) -> list[str]:
        """The fields after the name in the shadow file; none where it has no such line."""
        lines = (line.split(":") for line in split_lines(self._text("/etc/shadow")))
        return next((fields[1:] for fields in lines if fields[0] == name and len(fields) > 2), [])

    def _new_account(self, name: str) -> str:
        """Nothing: that it is not there is all there is to know. One that is there is never removed."""
        there = {account.name for account in passwd(self._text("/etc/passwd"))}
        if name in there or not PLAIN.fullmatch(name):
            raise EnforceError(f"{name!r} is no new account")
        return ""

    def _person(self, name: str) -> str:
        """What is kept of an account, the day on which it is over and its groups; or that there is no such account."""
        if PLAIN.fullmatch(name) and name not in {one.name for one in passwd(self._text("/etc/passwd"))}:
            return "absent\n"
        account, day = self._account(name).rstrip("\n"), last_days(self._text("/etc/shadow")).get(name, "")
        groups = [one.name for one in group(self._text("/etc/group")) if name in one.members]
        return f"{account}:{day}:{','.join(groups)}\n"

    def _text(self, path: str) -> str:
        with open(self._real(path), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def _unit(self, name: str) -> str:
        shown = self._run(["systemctl", "show", "-p", "UnitFileState", "-p", "ActiveState", "--", name])
        facts = dict(line.split("=", 1) for line in split_lines(shown) if "=" in line)
        return f"{facts.get('UnitFileState') or 'none'} {facts.get('ActiveState') or 'unknown'}\n"

    def _put(self, path: str, text: str, mode: int = 0o600) -> bool:
        """Write a small file of our own atomically and durably; return whether it differed."""
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="surrogateescape") as old:
            if old.read() == text:
                return False
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with replacing(path) as (out, _):
                os.fchmod(out.fileno(), mode)
                out.write(text.encode("utf-8", "surrogateescape"))
        except OSError as failed:  # a full disk: it names a file that is gone
            raise OSError(failed.errno, failed.strerror, path) from failed
        return True

    def _run(self, argv: Sequence[str]) -> str:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        if done.returncode != 0:
            raise EnforceError(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()[:300]}")
        return done.stdout


def roots_alone(folder: str, root: str = "/") -> bool:
    """Whether nobody but root can change what a path below this folder means."""
    while only_roots(folder):
        if folder in (root, "/"):
            return True
        folder = os.path.dirname(folder)
    return False
