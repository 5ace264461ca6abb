"""Hardening that is known to break K3s or to lock people out, from public reports, stands in no control.

Where a harm is one of behaviour and not of a declared value, the test that tries it is named, and exists.
"""

from __future__ import annotations

import ast
import fnmatch
from typing import Any

import pytest

from casemate import ROOT, catalogue

CONTROLS = catalogue.load()
EXACT = {
    "net.ipv4.ip_forward": 1,  # with 0 pods lose the network until K3s restarts
    "net.ipv4.conf.all.rp_filter": 2,  # 1 breaks nodes with several ways
    "net.ipv4.conf.default.rp_filter": 2,
    "vm.overcommit_memory": 1,  # with protect-kernel-defaults the kubelet starts with these values alone
    "vm.panic_on_oom": 0,
    "kernel.panic": 10,
    "kernel.panic_on_oops": 1,
    "kernel.keys.root_maxkeys": 1000000,
    "kernel.keys.root_maxbytes": 25000000,
}
NEVER_SET = (
    "kernel.modules_disabled",
    "user.max_user_namespaces",
    "kernel.unprivileged_userns_clone",
    "net.ipv6.*.disable_ipv6",
)
NEEDED_MODULES = (
    "overlay", "overlayfs", "squashfs", "br_netfilter", "nf_*", "nft_*", "nfnetlink*", "iptable_*", "ip6table_*",
    "ip_set*", "xt_*", "vxlan", "wireguard", "nfs*", "cifs", "ceph", "fuse", "ext4", "xfs", "veth", "bridge", "tun",
    "dm_*", "loop",
)  # fmt: skip
NEEDED_PACKAGES = (
    "apparmor", "nftables", "iptables", "ipset", "conntrack", "socat", "openssh-server", "sudo", "python3", "systemd",
    "iproute2", "kmod", "mount", "dbus", "libpam-systemd",
)  # fmt: skip
NEEDED_UNITS = ("ssh.*", "sshd.*", "k3s*", "systemd-*d.service", "dbus.*", "cron.service", "networking.service")
EXECUTABLE = ("/", "/var", "/var/lib", "/var/lib/rancher", "/var/lib/kubelet", "/usr", "/opt", "/run")
TRIED = {
    "the ruleset is flushed": "tests/contract/test_safety.py::test_the_unit_that_flushes_every_table_is_masked",
    "the guard dies with a reboot": "tests/lab/test_guard_lab.py",
    "the automation is locked out": "tests/lab/test_lockout_lab.py",
    "a reload is lost": "tests/lab/test_sshd_lab.py",
}


def settings(kind: str) -> list[tuple[str, dict[str, Any]]]:
    return [(cid, control["setting"]) for cid, control in CONTROLS.items() if control["setting"]["kind"] == kind]


def test_parameters_that_k3s_needs_have_the_values_that_it_needs() -> None:
    found = {setting["key"]: setting["value"] for _, setting in settings("sysctl") if setting["key"] in EXACT}
    assert found == EXACT


def test_parameters_that_break_pods_are_never_set() -> None:
    keys = [setting["key"] for _, setting in settings("sysctl")]
    assert [key for key in keys for never in NEVER_SET if fnmatch.fnmatchcase(key, never)] == []


def test_no_module_that_k3s_or_a_volume_needs_is_blocked() -> None:
    blocked = [setting["name"] for _, setting in settings("kernel_module") if setting["state"] == "blocked"]
    assert blocked
    assert [name for name in blocked for needed in NEEDED_MODULES if fnmatch.fnmatchcase(name, needed)] == []


def test_what_k3s_runs_from_stays_executable() -> None:
    noexec = [setting["path"] for _, setting in settings("mount_option") if "noexec" in setting.get("options", ())]
    assert noexec
    assert set(noexec).isdisjoint(EXECUTABLE)


def test_no_package_that_a_node_needs_is_removed() -> None:
    unwanted = [setting["name"] for _, setting in settings("package") if setting.get("state") == "absent"]
    assert unwanted
    assert [(name, need) for name in unwanted for need in NEEDED_PACKAGES if fnmatch.fnmatchcase(need, name)] == []


def test_no_unit_that_a_node_needs_is_switched_off() -> None:
    stopped = [setting["unit"] for _, setting in settings("service") if setting.get("state") == "stopped"]
    stopped = [unit for unit in stopped if unit != "systemd-journal-remote.service"]
    assert stopped
    assert [unit for unit in stopped for need in NEEDED_UNITS if fnmatch.fnmatchcase(unit, need)] == []


def test_what_makes_pods_start_and_outlive_a_restart_is_demanded() -> None:
    """Without AppArmor's parser every pod ends in CreateContainerError."""
    assert "apparmor" in [setting["name"] for _, setting in settings("package") if setting["state"] == "present"]
    (unit,) = [
        setting["properties"] for _, setting in settings("service") if "KillMode" in setting.get("properties", {})
    ]
    assert (unit["KillMode"], unit["Delegate"]) == ("process", True)


def test_what_bans_nodes_or_reads_all_layers_is_not_brought() -> None:
    """fail2ban without the cluster's addresses bans nodes; AIDE over the layers of containers runs for half a day."""
    brought = [setting["name"] for _, setting in settings("package") if setting["state"] == "present"]
    assert brought
    assert [name for name in brought if name.startswith(("fail2ban", "aide"))] == []


def test_a_disk_that_is_full_of_audit_stops_no_machine() -> None:
    values = [value for _, setting in settings("audit_daemon") for value in setting["values"].values()]
    assert values
    assert [one for one in values if {"halt", "single"} & set(one)] == []
    rules = " ".join(str(setting) for _, setting in settings("audit_rules"))
    assert rules
    assert "-f 2" not in rules, "the kernel panics where it cannot audit"


def test_masks_of_files_are_for_people_and_never_for_services() -> None:
    """With a umask in K3s' unit /etc/rancher would be closed to everybody who uses kubectl."""
    written = {setting["path"]: str(setting["content"]) for _, setting in settings("file") if "content" in setting}
    assert [path for path, text in written.items() if "umask" in text and not path.startswith("/etc/profile.d/")] == []
    assert [path for path, text in written.items() if "UMask=" in text] == []


@pytest.mark.parametrize("harm", TRIED)
def test_other_harms_are_tried_by_tests_that_exist(harm: str) -> None:
    path, _, name = TRIED[harm].partition("::")
    names = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)}
    assert name in names if name else any(one.startswith("test_") for one in names)
