"""Modules that are kept from run to run: never those of other sources, nor where somebody else could have put them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible import constants
from ansible.plugins.loader import module_loader, module_utils_loader

from casemate import kept
from casemate.run import built
from module_utils.casemate.core import legible

NAME = "ansible.legacy.k3s_controls-ZIP_DEFLATED-none"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ansible keeps what it puts together in this run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    monkeypatch.setattr(built, "digest", lambda module_name: "abc")
    forget()
    made = tmp_path / "run" / built.MADE
    made.mkdir(parents=True)
    (tmp_path / "cache").mkdir(mode=0o700)
    yield made
    forget()


def forget() -> None:
    """As the next run begins."""
    built.folder.cache_clear()
    kept.folder.cache_clear()


def test_what_one_run_has_put_together_the_next_one_takes(made: Path) -> None:
    (made / NAME).write_bytes(b"module")
    built.keep()
    (made / NAME).unlink()
    built.take()
    assert (made / NAME).read_bytes() == b"module"


def test_only_our_modules_are_kept_and_none_with_a_debugger_in_it(made: Path) -> None:
    for name in (NAME, "ansible.modules.ping-ZIP_DEFLATED-none", NAME.replace("none", "debugpy")):
        (made / name).write_bytes(b"module")
    built.keep()
    ours = built.folder()
    assert ours
    assert [path.name for path in ours.iterdir()] == [NAME]


@pytest.mark.parametrize("place", ["casemate/modules/abc", "casemate/modules", "casemate", "."])
def test_nothing_is_taken_from_where_others_may_write(made: Path, tmp_path: Path, place: str) -> None:
    (made / NAME).write_bytes(b"module")
    built.keep()
    (made / NAME).unlink()
    os.chmod(tmp_path / "cache" / place, 0o770)
    forget()
    built.take()
    assert not (made / NAME).exists()


def test_nothing_is_taken_through_a_link(made: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "elsewhere" / NAME).write_bytes(b"module")
    (tmp_path / "cache/casemate/modules").mkdir(mode=0o700, parents=True)
    (tmp_path / "cache/casemate/modules/abc").symlink_to(tmp_path / "elsewhere")
    built.take()
    assert not (made / NAME).exists()


def test_an_account_without_a_place_to_write_works_without(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    (made / NAME).write_bytes(b"module")
    built.keep()
    built.take()
    assert built.folder() is None


def test_what_other_versions_kept_is_removed_once_it_is_old(made: Path, tmp_path: Path) -> None:
    (made / NAME).write_bytes(b"module")
    for name, age in (("old", kept.UNUSED + 60), ("new", 60)):
        other = tmp_path / "cache/casemate/modules" / name
        other.mkdir(mode=0o700, parents=True)
        os.utime(other, (other.stat().st_mtime - age,) * 2)
    built.keep()
    assert sorted(path.name for path in (tmp_path / "cache/casemate/modules").iterdir()) == ["abc", "new"]


@pytest.mark.parametrize("place", ["module_utils/casemate/core/legible.py", "library/k3s_controls.py", "more/own.py"])
def test_another_source_is_another_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    for name in ("module_utils/casemate/core/legible.py", "library/k3s_controls.py", "more/own.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one = 1\n")
    monkeypatch.setattr(legible, "__file__", str(tmp_path / "module_utils/casemate/core/legible.py"))
    monkeypatch.setattr(module_loader, "find_plugin", lambda name: str(tmp_path / "library/k3s_controls.py"))
    monkeypatch.setattr(module_utils_loader, "_get_paths", lambda subdirs: [str(tmp_path / "more")])
    before = built.digest(module_name="k3s_controls")
    (tmp_path / place).write_text("one = 2\n")
    assert built.digest(module_name="k3s_controls") != before
