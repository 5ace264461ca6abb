"""Where a fault is: the file with its line, the parameter or the object, for people and programs alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.kinds import file, k8s_object, sysctl

PANIC: Any = {"key": "kernel.panic", "value": 10}


@pytest.mark.parametrize(
    ("files", "where"),
    [
        (
            {"/proc/sys/kernel/panic": "10\n", "/etc/sysctl.d/zz.conf": "# x\nkernel.panic = 1\n"},
            ("/etc/sysctl.d/zz.conf:2",),
        ),
        ({"/proc/sys/kernel/panic": "1\n", "/etc/sysctl.d/a.conf": "kernel.panic=10\n"}, ("/proc/sys/kernel/panic",)),
        ({"/proc/sys/kernel/panic": "1\n"}, ("/proc/sys/kernel/panic",)),
        ({"/proc/sys/kernel/panic": "10\n", "/etc/sysctl.d/a.conf": "kernel.panic=10\n"}, ()),
    ],
)
def test_a_parameter_is_wrong_in_the_file_that_decides_or_in_the_kernel(
    tmp_path: Path, files: dict[str, str], where: tuple[str, ...]
) -> None:
    host = FakeHost(tmp_path, files)
    assert sysctl.assess(PANIC, sysctl.observe([PANIC], host)[0]).where == where


def test_every_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/d/a": "x", "/d/b": "x", "/d/c": "x"})
    for name, mode in (("a", 0o666), ("b", 0o600), ("c", 0o644)):
        (tmp_path / "d" / name).chmod(mode)
    setting: Any = {"path": "/d/*", "mode_max": "0600"}
    assert file.assess(setting, file.observe([setting], host)[0]).where == ("/d/a", "/d/c")


def test_every_object_that_is_wrong_is_named() -> None:
    body: Any = {"metadata": {"labels": {"a": "b"}}}
    setting: Any = {"path": "/api/v1/namespaces/*", "body": body}
    objects: Any = {
        "/api/v1/namespaces/x": None,
        "/api/v1/namespaces/y": {"metadata": {"labels": {"a": "c"}}},
        "/api/v1/namespaces/z": {"metadata": {"labels": {"a": "b"}}},
    }
    found = k8s_object.assess(setting, {"objects": objects})
    assert found.where == ("/api/v1/namespaces/x", "/api/v1/namespaces/y")
