"""Folders in which new files are their owner's alone, whichever mode is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.engine import run as engine
from module_utils.casemate.kinds import new_files

TLS = "/var/lib/rancher/k3s/server/tls"
SETTING: Any = {"path": TLS}
CONTROL = {
    "id": "X-Y-Z", "title": "A title of it", "why": "Because of a reason.", "severity": "low", "level": "baseline",
    "applies_to": ["server"], "mitigations": ["T1.4"], "setting": {"kind": "new_files", **SETTING},
}  # fmt: skip


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    made = FakeHost(tmp_path, {f"{TLS}/old.crt": ""})
    try:
        os.setxattr(made.path(TLS), new_files.ACL, new_files.PRIVATE)
        os.removexattr(made.path(TLS), new_files.ACL)
    except OSError:
        pytest.skip("no ACLs on this file system")
    return made


def judge(host: FakeHost) -> Any:
    return new_files.assess(SETTING, new_files.observe([SETTING], host)[0])


def mode_of_a_new_one(host: FakeHost, name: str, mode: int = 0o644) -> str:
    """Of a file that is made with this mode and the usual umask."""
    before = os.umask(0o022)
    try:
        os.close(os.open(host.path(f"{TLS}/{name}"), os.O_CREAT | os.O_WRONLY | os.O_EXCL, mode))
    finally:
        os.umask(before)
    return f"{os.stat(host.path(f'{TLS}/{name}')).st_mode & 0o7777:04o}"


def test_new_files_are_private_once_it_is_enforced(host: FakeHost) -> None:
    assert mode_of_a_new_one(host, "before.crt") == "0644"
    assert not judge(host).ok
    new_files.enforce([SETTING], {0}, host)
    assert judge(host).ok
    assert mode_of_a_new_one(host, "after.crt") == "0600"
    os.makedirs(host.path(f"{TLS}/etcd"))
    assert mode_of_a_new_one(host, "etcd/server.crt") == "0600"
    assert not host.has_acl(f"{TLS}/after.crt")
    assert os.stat(host.path(f"{TLS}/before.crt")).st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "acl", ["u::rwx,g::r,o::-", "u::rwx,g::-,o::r", "u::rwx,g::-,o::-,u:1:r", "u::rwx,g::-,o::-,g:1:r"]
)
@pytest.mark.skipif(not shutil.which("setfacl"), reason="setfacl is not here")
def test_a_default_acl_that_lets_others_in_is_told_and_replaced(host: FakeHost, acl: str) -> None:
    subprocess.run(["setfacl", "-d", "-m", acl, host.path(TLS)], check=True)
    assert "others" in judge(host).reason
    new_files.enforce([SETTING], {0}, host)
    assert judge(host).ok


def test_one_as_setfacl_writes_it_is_right(host: FakeHost) -> None:
    if not shutil.which("setfacl"):
        pytest.skip("setfacl is not here")
    subprocess.run(["setfacl", "-d", "-m", "u::rwx,g::-,o::-", host.path(TLS)], check=True)
    assert judge(host).ok
    assert os.getxattr(host.path(TLS), new_files.ACL) == new_files.PRIVATE


@pytest.mark.parametrize("there", ["nothing", "file"])
def test_without_a_folder_k3s_has_not_run(tmp_path: Path, there: str) -> None:
    host = FakeHost(tmp_path, {TLS: ""} if there == "file" else {})
    with pytest.raises(Unavailable, match="K3s has not run here"):
        judge(host)


def test_a_pass_sets_it_once_and_a_waiver_takes_it_back(host: FakeHost) -> None:
    waived = {"X-Y-Z": {"owner": "me", "reason": "A reason.", "expires": "2999-01-01"}}
    actions = []
    for waivers, check in (
        ({}, True),
        ({}, False),
        ({}, False),
        (waived, True),
        (waived, False),
        (waived, False),
    ):
        role = {"k3s_control_plane": [CONTROL]}
        (finding,) = engine.run(role, host, check=check, waivers=waivers).findings
        actions.append((finding["status"], finding["action"]))
    assert actions == [
        ("fail", "would_change"), ("pass", "changed"), ("pass", "none"),
        ("waived", "would_change"), ("waived", "changed"), ("waived", "none"),
    ]  # fmt: skip
    assert mode_of_a_new_one(host, "after.crt") == "0644"
