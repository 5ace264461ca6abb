"""Kernel values that labs need: set by the first on a host, put back by the last, whoever runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from casemate_lab import sysctls


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel with a value of its own for each, and no lab."""
    for name in ("KERNEL", "STATE", "NAMESPACES"):
        monkeypatch.setattr(sysctls, name, tmp_path / name)
    (tmp_path / "NAMESPACES").mkdir()
    for key in sysctls.NEEDED:
        path = tmp_path / "KERNEL" / key.replace(".", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0\n")
    return tmp_path


def values(kernel: Path) -> list[str]:
    return [(kernel / "KERNEL" / key.replace(".", "/")).read_text().strip() for key in sysctls.NEEDED]


def test_what_the_first_lab_found_is_put_back_after_the_last_one(kernel: Path) -> None:
    ours, theirs = (kernel / "NAMESPACES" / f"casemate-{name}" for name in ("ours", "theirs"))
    for lab in (ours, theirs):
        lab.touch()
        sysctls.set_needed()
    ours.unlink()
    sysctls.put_back()
    assert values(kernel) == [*sysctls.NEEDED.values()]
    theirs.unlink()
    sysctls.put_back()
    assert values(kernel) == ["0"] * len(sysctls.NEEDED)


def test_nothing_is_put_back_that_no_lab_has_set(kernel: Path) -> None:
    sysctls.put_back()
    assert values(kernel) == ["0"] * len(sysctls.NEEDED)
