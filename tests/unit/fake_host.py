"""A host made of a folder and of canned command output, for tests of kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from module_utils.casemate.host.machine import Host, Result


class FakeHost(Host):
    """A `Host` below a folder. `commands` maps the start of an argv (joined by spaces) to (rc, out, err)."""

    def __init__(
        self,
        root: Path,
        files: Mapping[str, str] | None = None,
        commands: Mapping[str, tuple[int, str, str]] | None = None,
        context: Mapping[str, Any] | None = None,
        role: str = "",
    ) -> None:
        super().__init__(root=str(root), context=context, role=role, guard=self._note_guard)
        root.mkdir(parents=True, exist_ok=True)
        self.commands = dict(commands or {})
        self.ran: list[list[str]] = []
        self.armed: list[str] = []
        for path, text in (files or {}).items():
            real = Path(self.path(path))
            real.parent.mkdir(parents=True, exist_ok=True)
            real.write_text(text)

    def _note_guard(self, names: Sequence[str], sort: str) -> None:
        kept = [name if sort == "file" else f"{sort} {name}" for name in names]
        self.armed += [name for name in kept if name not in self.armed]

    def run(self, argv: Sequence[str], stdin: str | None = None, timeout: float = 30) -> Result:
        """Answer from `commands`, the longest match first; anything else is a missing program."""
        self.ran.append(list(argv))
        if argv[:2] == ["systemctl", "show"] and "--" in argv:  # one answer for each unit, as systemd gives them
            shown = [self._answer(f"systemctl show {unit}") for unit in argv[argv.index("--") + 1 :]]
            return Result(max(one.rc for one in shown), "\n".join(one.out.rstrip("\n") + "\n" for one in shown), "")
        return self._answer(" ".join(argv))

    def _answer(self, line: str) -> Result:
        for start in sorted(self.commands, key=len, reverse=True):
            if line.startswith(start):
                return Result(*self.commands[start])
        return Result(127, "", f"{line.split()[0]}: not found")
