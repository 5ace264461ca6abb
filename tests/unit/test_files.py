"""The one way to replace a file: whole and durable, or not at all and without a trace."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import pytest

from module_utils.casemate.host.files import replace_link, replacing


def test_the_new_bytes_take_the_name_only_once_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with replacing(str(path)) as (out, temporary):
        out.write(b"new")
        assert path.read_text() == "old"
        assert os.stat(temporary).st_mode & 0o777 == 0o600 and os.path.dirname(temporary) == str(tmp_path)
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("refused"), KeyboardInterrupt()])
def test_whatever_is_raised_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(str(path)) as (out, _):
        out.write(b"half")
        raise error
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["a"])


def test_one_that_is_killed_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    child = os.fork()
    if child == 0:
        with replacing(str(path)) as (out, _):
            out.write(b"half")
            out.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.read_text() == "old"


def test_a_file_in_the_working_folder_needs_no_folder_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with replacing("a") as (out, _):
        out.write(b"new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_link_takes_the_name_of_what_was_there_also_after_one_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    (tmp_path / ".casemate-link").symlink_to("elsewhere")
    replace_link(str(path), functools.partial(os.symlink, "target"))
    assert (os.readlink(path), os.listdir(tmp_path)) == ("target", ["a"])
    (tmp_path / "b").write_text("kept")
    replace_link(str(path), functools.partial(os.link, tmp_path / "b"))
    assert os.path.samefile(path, tmp_path / "b")
