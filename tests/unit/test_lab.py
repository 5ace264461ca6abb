"""The lab's pure parts: what is missing, which network, which inventory."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.test_authorized_keys import blob

from casemate import ROOT
from casemate.preflight import inputs
from casemate_lab import for_tests, lab, vm
from casemate_lab.image import TOOLS, LabError, missing_tools
from module_utils.casemate.formats import authorized_keys

STATE = {
    "name": "demo",
    "octet": 7,
    "workdir": "/work/dir",
    "machines": {"server1": {"address": "198.18.7.10"}, "agent1": {"address": "198.18.7.11"}},
}


def rendered(real: bool, vm: bool = False) -> dict[str, Any]:
    return lab.inventory({**STATE, "vm": vm}, {"version": "v1.36.4+k3s1", "dir": "/release", "real": real})["all"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("absent", "uid", "said"),
    [
        ((), 0, []),
        (("mmdebstrap", "ip"), 0, ["missing: mmdebstrap, ip", "apt-get install iproute2 mmdebstrap"]),
        ((), 1000, ["it must run as root"]),
        (tuple(TOOLS), 1000, ["systemd-container", "it must run as root"]),
    ],
)
def test_says_all_that_is_missing_at_once(absent: tuple[str, ...], uid: int, said: list[str]) -> None:
    fault = missing_tools(lambda tool: None if tool in absent else f"/usr/bin/{tool}", uid)
    assert bool(fault) == bool(said)
    assert all(part in fault for part in said)


def test_machines_with_a_kernel_take_more_tools() -> None:
    def lacks_qemu(tool: str) -> str | None:
        return None if tool.startswith("qemu") else f"/usr/bin/{tool}"

    assert missing_tools(lacks_qemu, 0) == ""
    assert "apt-get install qemu-system-x86" in missing_tools(lacks_qemu, 0, vm=True)


def comes_up(name: str, **asked: Any) -> Path:
    return Path(f"/{name}/{asked['servers']}")


def breaks(name: str, **_: Any) -> Path:
    raise LabError(f"server1 of {name} does not answer: no route")


@pytest.mark.parametrize(
    ("reason", "up", "ends", "downs"),
    [
        ("it must run as root", breaks, (pytest.skip.Exception, "lab: it must run as root"), []),
        ("missing: systemd-nspawn", comes_up, (pytest.skip.Exception, "lab: missing: systemd-nspawn"), []),
        ("", breaks, (pytest.fail.Exception, "did not come up: server1 of demo does not answer: no route"), []),
        ("", comes_up, (KeyError, "/demo/2"), ["demo"]),
    ],
)
def test_a_lab_that_breaks_fails_its_tests_and_only_an_impossible_one_skips_them(
    reason: str, up: Any, ends: tuple[type[BaseException], str], downs: list[str]
) -> None:
    ended: list[str] = []
    with (
        pytest.raises((KeyError, pytest.skip.Exception, pytest.fail.Exception), match=ends[1]) as seen,
        for_tests.machines("demo", impossible=lambda: reason, up=up, down=ended.append, servers=2) as inventory,
    ):
        raise KeyError(str(inventory))
    assert (seen.type, ended) == (ends[0], downs)


def test_a_lab_keeps_its_network_unless_another_has_it() -> None:
    first = lab.allocate("demo", set())
    assert lab.allocate("demo", set()) == first
    assert lab.allocate("demo", {first}) != first
    assert {lab.allocate(f"lab{i}", set()) for i in range(500)} <= set(range(1, 254))
    with pytest.raises(LabError, match="in use"):
        lab.allocate("demo", set(range(1, 254)))


def test_the_inventory_has_the_groups_and_the_controller_may_come_in() -> None:
    made = rendered(real=True)
    hosts = {group: list(made["children"][group]["hosts"]) for group in made["children"]}
    assert hosts == {"k3s_server": ["server1"], "k3s_agent": ["agent1"]}
    sources = [ipaddress.IPv4Network(source) for source in made["vars"]["casemate_admin_sources"]]
    stranger = ipaddress.IPv4Address(made["vars"]["lab_stranger_address"])
    assert all(source.subnet_of(ipaddress.IPv4Network("198.18.7.0/24")) for source in sources)
    assert not any(stranger in source for source in sources)
    assert "StrictHostKeyChecking=yes" in made["vars"]["ansible_ssh_common_args"]


def test_only_the_double_excuses_what_it_cannot_do() -> None:
    real, double = (rendered(real)["vars"]["casemate_accept_not_evaluated"] for real in (True, False))
    assert "api_semantics" not in real
    assert set(double) - set(real) == set(lab.ACCEPTED_WITH_DOUBLE)


def test_a_kernel_of_its_own_excuses_nothing() -> None:
    assert rendered(real=True, vm=True)["vars"]["casemate_accept_not_evaluated"] == []
    assert rendered(real=False, vm=True)["vars"]["casemate_accept_not_evaluated"] == list(lab.ACCEPTED_WITH_DOUBLE)


def test_a_disk_begins_with_grub_and_a_table_of_one_partition(tmp_path: Path) -> None:
    (tmp_path / "boot.img").write_bytes(b"B" * 512)
    (tmp_path / "core.img").write_bytes(b"C" * 1000)
    made = vm.first_sectors(tmp_path)
    assert (made[:440], made[510:512], made[512:]) == (b"B" * 440, b"\x55\xaa", b"C" * 1000)
    state, _, sort, _, first, sectors = struct.unpack("<B3sB3sII", made[446:462])
    assert (state, sort, first) == (0x80, 0x83, 2048)
    assert (first + sectors) * 512 == vm.DISK_MIB * 1024 * 1024
    assert made[462:510] == bytes(48)
    (tmp_path / "core.img").write_bytes(b"C" * 2048 * 512)
    with pytest.raises(LabError, match="do not fit before the partition"):
        vm.first_sectors(tmp_path)


def test_shared_inputs_of_the_lab_are_known() -> None:
    known = yaml.safe_load((ROOT / "src/casemate/preflight/schema/inputs.yml").read_text())
    assert {name for name in rendered(real=True)["vars"] if name.startswith("casemate_")} <= set(known)


def test_a_process_is_known_by_its_start_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "_started", {1: 5}.get)
    assert lab.alive({"pid": 1, "started": 5})
    assert not lab.alive({"pid": 1, "started": 6})
    assert not lab.alive({"pid": 2, "started": 5})
    assert not lab.alive({"pid": 2, "started": None})
    assert not lab.alive({"address": "198.18.7.10"})


def test_without_a_lab_there_is_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "LABS", tmp_path)
    assert lab.labs() == []
    assert not lab.down("demo")
    with pytest.raises(LabError, match="casemate lab up --name demo"):
        lab.enter("demo")


def test_a_token_of_the_lab_is_taken_for_one() -> None:
    plain = f"ssh-ed25519 {blob('ssh-ed25519', bytes(range(32)))} dave"
    made = authorized_keys.parse(lab.token(plain))
    assert made.type == authorized_keys.FIDO[0]
    assert made.blob == blob(made.type, bytes(range(32)), b"ssh:")


def test_the_people_of_the_lab_are_taken_by_preflight(tmp_path: Path) -> None:
    (tmp_path / "erin_totp").touch(mode=0o600)
    (tmp_path / "erin_totp").write_text(lab.code_secret())
    given = lab.people("198.18.7", tmp_path)
    assert inputs.value_problems("casemate_people", given, inputs.known_inputs()["casemate_people"]) == []
