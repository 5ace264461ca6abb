"""What the last run that changed this host has changed, kept so that an operator can have it back.

A confirmed change is handed over by the guard. The changes of one run add up; the first one of another run takes their
place. Putting them back is itself a change, which the guard undoes where nobody confirms it; then they can be put back
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from typing import List, NamedTuple, Optional

from .accounts import passwd
from .backup import IN_CASE, NAMED, Backup
from .files import sync_folder
from .machine import EnforceError

HOME = "/var/lib/casemate/last"
ASIDE = "aside"
"""A folder with all that is being put back, until that is confirmed: the guard's script gives it its name again."""
OF_ACCOUNTS = ("account", "person")
"""Sorts of which people change more than a run does: their password, above all."""
OF_PACKAGES = "of-packages"
"""A note with what packages change while they are installed: it goes with them."""


class Entry(NamedTuple):
    """One that was kept: its number, its sort (see backup.py), and its path or name."""

    number: int
    sort: str
    name: str


class LastChange(Backup):
    """The state before the last run. `after` is what the script of Backup does once all is back."""

    def __init__(self, after: str = "", root: str = "/") -> None:
        super().__init__(HOME, root)
        self.AFTER = after

    def take_over(self, confirmed: str, run: str) -> None:
        """Move in the entries of a folder that was confirmed by `run`, and remove the folder.

        May be killed anywhere and called again: each entry is moved by one rename. What the run has changed before is
        known by its first state, and what is as it was needs no keeping.
        """
        if self._text_of(os.path.join(self.pending, "run")) != run:
            for folder in (self.pending, self.reverting):  # the latter where putting back was killed
                shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(self.pending, mode=0o700)
            self._put(os.path.join(self.home, "revert"), self._script(), 0o700)
            self._put(os.path.join(self.pending, "run"), run)
        numbers = {one: number for number, one in self._held().items()}
        for number in sorted(int(name) for name in os.listdir(confirmed) if name.isdigit()):
            folder = os.path.join(confirmed, str(number))
            sort, name = self._entry(folder)
            if (sort, name) not in numbers:
                noted = any(os.path.exists(os.path.join(folder, note)) for note in (OF_PACKAGES, IN_CASE))
                if noted or self._is_as_kept(folder, sort, name):
                    continue
                numbers[sort, name] = max(numbers.values(), default=-1) + 1
                os.rename(folder, os.path.join(self.pending, str(numbers[sort, name])))
            # An account that two roles have changed is kept as both sorts.
            for kept in OF_ACCOUNTS if sort in OF_ACCOUNTS else (sort,):
                if (kept, name) in numbers:
                    self._note_applied(numbers[kept, name], kept, name)
        sync_folder(self.pending)
        shutil.rmtree(confirmed, ignore_errors=True)

    def entries(self) -> List[Entry]:
        """What can be put back, in the order in which it was changed."""
        above = 0 if self.root == "/" else len(self.root)
        held = sorted(self._held().items())
        return [Entry(number, sort, name if sort in NAMED else name[above:]) for number, (sort, name) in held]

    def changed_since(self) -> List[str]:
        """What somebody else has changed after that run, such as a password: putting it back would undo that, too."""
        found = []
        for one in self.entries():
            name = one.name if one.sort in NAMED else self._real(one.name)
            now, applied = self._now(one.sort, name), self._applied(one)
            known = applied is not None or one.sort == "file"  # a release before this one noted nothing of accounts
            if known and now is not None and now != applied:
                found.append(one.name)
        return found

    def gone(self) -> List[str]:
        """Of what is no whole file, the paths and accounts that are there no more: nothing of them can be put back."""
        accounts = {account.name for account in passwd(self._text("/etc/passwd"))}
        return [
            one.name
            for one in self.entries()
            if (one.sort in ("mode", "value") and not os.path.lexists(self._real(one.name)))
            or (one.sort in ("account", "person") and one.name not in accounts)
        ]

    def set_aside(self) -> None:
        """Keep all of it until `settle`, by further names of the same files. Raises OSError."""
        aside = os.path.join(self.home, ASIDE)
        for folder in (f"{aside}.new", aside):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.pending, f"{aside}.new", symlinks=True, copy_function=os.link)
        os.rename(f"{aside}.new", aside)
        sync_folder(self.home)

    def settle(self) -> None:
        """Forget what was set aside: that it was put back is confirmed."""
        shutil.rmtree(os.path.join(self.home, ASIDE), ignore_errors=True)

    def leave(self, names: Iterable[str]) -> None:
        """Put none of these back."""
        left = set(names)
        for one in self.entries():
            if one.name in left:
                shutil.rmtree(os.path.join(self.pending, str(one.number)))

    def _note_applied(self, number: int, sort: str, name: str) -> None:
        applied = self._now(sort, name)
        if applied is not None:
            self._put(os.path.join(self.pending, str(number), "applied"), applied)

    def _now(self, sort: str, name: str) -> Optional[str]:
        """What a file or an account is like; None for what is not compared, and for an account that is gone."""
        if sort == "file":
            return digest(name)
        try:
            return self._state(sort, name) if sort in OF_ACCOUNTS else None
        except (OSError, EnforceError):
            return None

    def _is_as_kept(self, folder: str, sort: str, name: str) -> bool:
        if sort == "file":
            return digest(os.path.join(folder, "data")) == digest(name)  # no data is kept of what was absent
        try:
            return self._state(sort, name) == self._text_of(os.path.join(folder, sort))
        except (OSError, EnforceError):
            return False

    def _applied(self, one: Entry) -> Optional[str]:
        return self._text_of(os.path.join(self.pending, str(one.number), "applied"))

    @staticmethod
    def _text_of(path: str) -> Optional[str]:
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
        return None


def digest(path: str) -> str:
    """What stands at a path: of a file its content, mode and owner, of a link where it leads, or that nothing does."""
    try:
        seen = os.lstat(path)
        if os.path.islink(path):
            return f"link to {os.readlink(path)}"
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return "absent"
    return f"{content} {seen.st_mode:o} {seen.st_uid}:{seen.st_gid}"
