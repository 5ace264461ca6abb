"""What a host is doing has somebody who vouches for it: a package, K3s, Casemate, or the operator."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from unit.fake_host import FakeHost

from casemate import catalogue
from casemate.preflight import inputs
from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.host import sockets
from module_utils.casemate.kinds import vouched_state as kind

KNOWN = inputs.known_inputs()["casemate_vouched"]
INFO = "/var/lib/dpkg/info"
UNTIL = {"owner": "ops", "reason": "metrics", "expires": "2027-01-31"}
ANY, LOCAL, ANY6, LOCAL6 = "00000000", "0100007F", "0" * 32, "0" * 24 + "01000000"
HEAD = "  sl  local_address rem_address   st\n"
DATA = "/var/lib/rancher/k3s/data/0123abcd/bin"


def setting(cid: str, **more: Any) -> Any:
    """The setting of a control as it is declared, without what is a template."""
    made = {**catalogue.load()[cid]["setting"], "declared": {}, "ours": [], **more}
    del made["kind"]
    return made


def verdict(made: FakeHost, cid: str, **more: Any) -> Any:
    whole = setting(cid, **more)
    (seen,) = kind.observe([whole], made)
    if isinstance(seen, Exception):
        raise seen
    assert all(re.search("by hand|remove the rule", why) for why in seen["faults"].values()), "nothing is removed here"
    return kind.KIND.assess(whole, seen)


class Machine:
    """A machine whose processes, sockets and packages are files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.host = FakeHost(folder, context={"today": "2026-12-01", "account": "ops", "people": ["alice"]})
        self.packages: dict[str, list[str]] = {}
        self.text("/var/lib/dpkg/status", "")

    def text(self, path: str, text: str) -> None:
        real = Path(self.host.path(path))
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_text(text)
        real.chmod(0o755)

    def package(self, name: str, *paths: str, source: str = "") -> None:
        for path in paths:
            self.text(path, f"{path} of {name}")
        said = f"Package: {name}\nStatus: install ok installed\n" + (f"Source: {source} (1.0)\n" if source else "")
        self.text("/var/lib/dpkg/status", (self.host.text("/var/lib/dpkg/status") or "") + said + "\n")
        self.text(f"{INFO}/{name}.list", "".join(f"{path}\n" for path in paths))

    def unit(self, name: str, fragment: str, main: int) -> None:
        shown = f"FragmentPath={fragment}\nMainPID={main}\nLoadState=loaded\n"
        self.host.commands[f"systemctl show {name}"] = (0, shown, "")

    def process(self, pid: int, program: str, group: str, parent: int = 1, socket: int = 0) -> None:
        self.text(f"/proc/{pid}/cgroup", f"0::{group}\n")
        self.text(f"/proc/{pid}/stat", f"{pid} (a b) c) S {parent} " + "0 " * 17 + "9 0\n")
        for name, target in (("exe", program), ("fd/3", f"socket:[{socket}]")):
            real = Path(self.host.path(f"/proc/{pid}/{name}"))
            real.parent.mkdir(parents=True, exist_ok=True)
            real.symlink_to(target)

    def listens(self, port: int, inode: int, address: str = ANY, proto: str = "tcp") -> None:
        name = proto + ("6" if len(address) > 8 else "")
        state = "0A" if proto == "tcp" else "07"
        peer = f"{'0' * len(address)}:0000"
        line = f"   0: {address}:{port:04X} {peer} {state} 0:0 0:0 0 0 0 {inode} 1\n"
        path = f"/proc/self/net/{name}"
        self.text(path, (self.host.text(path) or HEAD) + line)

    def sshd(self) -> None:
        self.package("openssh-server", "/usr/sbin/sshd", "/usr/lib/systemd/system/ssh.service", source="openssh")
        self.unit("ssh.service", "/usr/lib/systemd/system/ssh.service", 70)
        self.process(70, "/usr/sbin/sshd", "/system.slice/ssh.service", socket=700)
        self.listens(22, 700)

    def faults(self, **more: Any) -> dict[str, str]:
        """Name -> why nobody vouches for it, without how to find what has to end, which each says."""
        whole = setting("HOST-SOCKETS-VOUCHED", **more)
        (seen,) = kind.observe([whole], self.host)
        assert kind.KIND.assess(whole, seen).ok == (not seen["faults"])
        found = {name: why.partition("; by hand: ") for name, why in seen["faults"].items()}
        assert all("systemctl status " in after or "ip -details" in after for _, _, after in found.values())
        return {name: why + after.partition("stopped")[2] for name, (why, _, after) in found.items()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.sshd()
    return made


@pytest.mark.skipif(os.geteuid() != 0, reason="root: files of root are what this is about")
class TestSockets:
    def test_a_package_for_what_its_unit_runs(self, machine: Machine) -> None:
        assert machine.faults() == {}

    def test_a_package_for_a_child_of_what_its_unit_runs(self, machine: Machine) -> None:
        machine.process(71, "/usr/sbin/sshd", "/system.slice/ssh.service", parent=70, socket=701)
        machine.listens(23, 701)
        assert machine.faults() == {}

    def test_two_packages_of_one_source_for_each_other(self, machine: Machine) -> None:
        machine.package("apache2-bin", "/usr/sbin/apache2", source="apache2")
        machine.package("apache2", "/usr/lib/systemd/system/apache2.service")
        machine.unit("apache2.service", "/usr/lib/systemd/system/apache2.service", 80)
        machine.process(80, "/usr/sbin/apache2", "/system.slice/apache2.service", socket=800)
        machine.listens(80, 800)
        assert machine.faults() == {}

    @pytest.mark.parametrize(
        ("group", "parent"),
        [
            ("/user.slice/user-0.slice/session-3.scope", 70),
            ("/system.slice/ssh.service", 1),
            ("/system.slice/cron.service", 1),
        ],
    )
    def test_no_package_for_its_program_that_somebody_else_starts(
        self, machine: Machine, group: str, parent: int
    ) -> None:
        machine.process(90, "/usr/sbin/sshd", group, parent=parent, socket=900)
        machine.listens(2222, 900)
        ((name, why),) = machine.faults().items()
        assert name == "tcp/2222"
        unit = group.rpartition("/")[2]
        assert why == f"0.0.0.0 /usr/sbin/sshd of {unit}: no unit of its package runs it"

    def test_no_package_for_another_ones_program_in_its_unit(self, machine: Machine) -> None:
        machine.package("netcat", "/usr/bin/nc")
        machine.process(90, "/usr/bin/nc", "/system.slice/ssh.service", parent=70, socket=900)
        machine.listens(2222, 900)
        assert list(machine.faults()) == ["tcp/2222"]

    def test_a_unit_of_somebodys_own_manager_is_no_unit_of_the_system(self, machine: Machine) -> None:
        group = "/user.slice/user-1000.slice/user@1000.service/app.slice/ssh.service"
        machine.process(90, "/usr/sbin/sshd", group, parent=70, socket=900)
        machine.listens(2222, 900)
        assert "user@1000.service" in machine.faults()["tcp/2222"]

    def test_nobody_for_a_copy(self, machine: Machine) -> None:
        machine.text("/usr/local/bin/sshd", "a copy")
        machine.process(90, "/usr/local/bin/sshd", "/system.slice/ssh.service", parent=70, socket=900)
        machine.listens(2222, 900)
        assert "no package brought it" in machine.faults()["tcp/2222"]

    @pytest.mark.parametrize("address", [LOCAL, LOCAL6, "0" * 16 + "FFFF00000100007F"])
    def test_on_the_loopback_a_packages_program_is_enough(self, machine: Machine, address: str) -> None:
        machine.process(90, "/usr/sbin/sshd", "/user.slice/session-3.scope", socket=900)
        machine.listens(6010, 900, address)
        assert machine.faults() == {}
        machine.process(91, "/var/tmp/x", "/user.slice/session-3.scope", socket=901)
        machine.listens(6011, 901, address)
        assert list(machine.faults()) == ["tcp/6011"]

    def test_nobody_for_a_program_whose_file_is_gone(self, machine: Machine) -> None:
        machine.process(90, "/var/tmp/x (deleted)", "/system.slice/ssh.service", socket=900)
        machine.listens(4444, 900, LOCAL)
        assert machine.faults()["tcp/4444"] == "127.0.0.1 /var/tmp/x (removed) of ssh.service: its file was removed"

    def test_an_upgrade_for_what_it_replaced(self, tmp_path: Path) -> None:
        made = Machine(tmp_path)
        made.package("openssh-server", "/usr/sbin/sshd", "/usr/lib/systemd/system/ssh.service")
        made.unit("ssh.service", "/usr/lib/systemd/system/ssh.service", 70)
        made.process(70, "/usr/sbin/sshd (deleted)", "/system.slice/ssh.service", socket=700)
        made.listens(22, 700)
        assert made.faults() == {}  # it began with the machine, and the package came just now
        stat_line = f"70 (sshd) S 1 {'0 ' * 17}{10**12} 0\n"
        made.text("/proc/70/stat", stat_line)
        assert "its file was removed" in made.faults()["tcp/22"]

    def test_udp_raw_and_packets_count_too(self, machine: Machine) -> None:
        machine.process(90, "/usr/bin/python3", "/user.slice/session-3.scope", socket=900)
        machine.listens(5353, 900, proto="udp")
        machine.listens(1, 900, proto="raw")
        packet = "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n00 3 3 0003 0 1 0 0 900\n"
        machine.text("/proc/self/net/packet", packet)
        assert set(machine.faults()) == {"udp/5353", "raw/1", "packet/3"}

    def test_a_connected_socket_waits_for_nobody(self, machine: Machine) -> None:
        machine.listens(40000, 900, proto="udp")
        path = "/proc/self/net/udp"
        machine.text(path, (machine.host.text(path) or "").replace(" 07 ", " 01 "))
        assert machine.faults() == {}

    def test_what_nobody_has_is_the_kernels(self, machine: Machine) -> None:
        machine.listens(4789, 900, proto="udp")
        assert machine.faults() == {"udp/4789": "0.0.0.0 the kernel: no program has it"}

    def test_k3s_for_the_overlay_and_only_while_there_is_one(self, machine: Machine) -> None:
        machine.listens(8472, 900, proto="udp")
        assert list(machine.faults()) == ["udp/8472"]
        machine.text("/sys/class/net/flannel.1", "")
        machine.unit("k3s.service", "/etc/systemd/system/k3s.service", 50)
        machine.host._cache.clear()
        assert machine.faults() == {}

    @pytest.mark.parametrize(("pid", "parent", "right"), [(50, 1, True), (51, 50, True), (52, 1, False)])
    def test_k3s_own_unit_for_what_it_runs(self, machine: Machine, pid: int, parent: int, right: bool) -> None:
        """A release that is a script is run by an interpreter of a package."""
        machine.unit("k3s.service", "/etc/systemd/system/k3s.service", 50)
        machine.package("python", "/usr/bin/python3.11")
        machine.process(pid, "/usr/bin/python3.11", "/system.slice/k3s.service", parent=parent, socket=500)
        machine.listens(6443, 500)
        assert (machine.faults() == {}) == right

    def test_k3s_for_its_programs_in_its_unit(self, machine: Machine) -> None:
        machine.unit("k3s.service", "/etc/systemd/system/k3s.service", 50)
        machine.text(f"{DATA}/k3s", "k3s")
        machine.process(50, f"{DATA}/k3s", "/system.slice/k3s.service", socket=500)
        machine.listens(6443, 500, ANY6)
        assert machine.faults() == {}
        machine.process(51, f"{DATA}/k3s", "/system.slice/ssh.service", socket=501)
        machine.listens(6444, 501, ANY6)
        assert list(machine.faults()) == ["tcp/6444"]
        machine.process(52, f"{DATA}/k3s (deleted)", "/system.slice/k3s.service", socket=502)
        machine.listens(6445, 502, LOCAL)
        assert set(machine.faults()) == {"tcp/6444", "tcp/6445"}

    def test_pods_in_the_hosts_network_are_their_workloads(self, machine: Machine) -> None:
        machine.process(60, f"{DATA}/containerd-shim-runc-v2", "/system.slice/k3s.service")
        machine.process(61, "/app", "/kubepods/burstable/pod1/1", parent=60)
        machine.process(62, "/app", "/kubepods/burstable/pod1/1", parent=61, socket=900)
        machine.listens(9100, 900)
        assert machine.faults() == {}
        machine.process(63, "/app", "/kubepods/burstable/pod1/1", parent=1, socket=901)
        machine.listens(9101, 901)
        assert list(machine.faults()) == ["tcp/9101"]

    def test_the_operator_for_a_port_until_anything_of_it_changes(self, machine: Machine) -> None:
        machine.text("/opt/agent", "agent")
        machine.process(90, "/opt/agent", "/system.slice/agent.service", socket=900)
        machine.unit("agent.service", "/etc/systemd/system/agent.service", 90)
        machine.listens(9100, 900)
        whole = setting("HOST-SOCKETS-VOUCHED")
        digest = kind.observe([whole], machine.host)[0]["contents"]["tcp/9100"]
        declared = {"tcp/9100": {**UNTIL, "digest": digest}}
        assert machine.faults(declared=declared) == {}
        machine.text("/opt/agent", "another")
        assert "ops vouched for sha256:" in machine.faults(declared=declared)["tcp/9100"]
        machine.text("/opt/agent", "agent")
        machine.listens(9100, 900, ANY6)
        assert list(machine.faults(declared=declared)) == ["tcp/9100"]

    def test_addresses_are_read_in_the_order_of_bytes_of_the_machine(self, machine: Machine) -> None:
        found = {one.address for one in sockets.waiting(machine.host)}
        machine.listens(1, 1, "0A12C612")
        machine.listens(1, 1, "B80D0120" + "0" * 16 + "01000000")
        assert {one.address for one in sockets.waiting(machine.host)} - found == {"18.198.18.10", "2001:db8::1"}


class TestGroups:
    GROUP = "root:x:0:\nsudo:x:27:ops,alice,SUDO\nshadow:x:42:\ngames:x:60:eve\n"
    PASSWD = "root:x:0:0::/root:/bin/sh\nops:x:1000:1000::/:/bin/sh\neve:x:1001:GID::/:/bin/sh\n"

    def judged(self, tmp_path: Path, group: str, gid: int = 1001) -> Any:
        files = {"/etc/group": group, "/etc/passwd": self.PASSWD.replace("GID", str(gid))}
        context = {"today": "2026-12-01", "account": "ops", "people": ["alice"]}
        return verdict(FakeHost(tmp_path, files, context=context), "HOST-GROUPS-VOUCHED")

    def test_those_whom_the_inventory_lists_are_known(self, tmp_path: Path) -> None:
        assert self.judged(tmp_path, self.GROUP.replace(",SUDO", "")).ok

    def test_anybody_else_is_named_with_the_line_and_the_command(self, tmp_path: Path) -> None:
        found = self.judged(tmp_path, self.GROUP.replace("SUDO", "eve"))
        assert found.where == ("/etc/group:2",)
        assert list(found.observed) == ["group/sudo/eve"]
        assert "gpasswd -d eve sudo" in found.reason

    @pytest.mark.parametrize(
        ("line", "by_hand"),
        [
            ("sudo:x:27:eve\n", "vigr, and take eve out of line 5"),
            ("wheels:x:27:eve\n", "gpasswd -d eve wheels"),
            ("sudo:!:27:eve:extra\n", "vigr, and take eve out of line 5"),
        ],
    )
    def test_a_second_line_of_its_name_or_number_counts(self, tmp_path: Path, line: str, by_hand: str) -> None:
        """And the command is one that reaches it: gpasswd takes the first line of a name."""
        found = self.judged(tmp_path, self.GROUP.replace(",SUDO", "") + line)
        assert (found.where, list(found.observed)) == (("/etc/group:5",), ["group/sudo/eve"])
        assert f"by hand: {by_hand}" in found.reason

    def test_the_group_of_an_account_counts(self, tmp_path: Path) -> None:
        found = self.judged(tmp_path, self.GROUP.replace(",SUDO", ""), gid=42)
        assert (found.where, list(found.observed)) == (("/etc/passwd",), ["group/shadow/eve"])

    def test_comments_and_other_groups_do_not(self, tmp_path: Path) -> None:
        assert self.judged(tmp_path, self.GROUP.replace(",SUDO", "") + "#sudo:x:27:eve\n").ok


@pytest.mark.skipif(os.geteuid() != 0, reason="root: files of root are what this is about")
class TestModules:
    @pytest.fixture
    def kernel(self, machine: Machine) -> Machine:
        folder = f"/lib/modules/{os.uname().release}"
        machine.package("linux-image", f"/usr{folder}/kernel/net/br-nf.ko.xz")
        machine.text(f"{folder}/modules.dep", "kernel/net/br-nf.ko.xz: kernel/net/x.ko.xz\nupdates/zfs.ko:\n")
        machine.text(f"/usr{folder}/updates/zfs.ko", "zfs")
        machine.text("/proc/modules", "br_nf 1 0 - Live 0x0\n")
        machine.text("/sys/module/br_nf/initstate", "live\n")
        machine.text("/sys/module/built_in/version", "1\n")
        return machine

    def test_the_package_of_the_kernel_for_what_it_brought(self, kernel: Machine) -> None:
        assert verdict(kernel.host, "HOST-MODULES-VOUCHED").ok

    @pytest.mark.parametrize(
        ("name", "taint", "says"),
        [
            ("zfs", "", "no package brought"),
            ("evil", "OE", "no package brought a file of it"),
            ("br_nf", "E", "it is not signed"),
        ],
    )
    def test_nobody_for_any_other(self, kernel: Machine, name: str, taint: str, says: str) -> None:
        kernel.text("/proc/modules", f"br_nf 1 0 - Live 0x0\n{name} 1 0 - Live 0x0\n")
        kernel.text(f"/sys/module/{name}/taint", f"{taint}\n")
        found = verdict(kernel.host, "HOST-MODULES-VOUCHED")
        assert found.where == (f"module/{name}",)
        assert says in found.reason

    def test_nobody_for_one_that_hides(self, kernel: Machine) -> None:
        kernel.text("/proc/modules", "")
        found = verdict(kernel.host, "HOST-MODULES-VOUCHED")
        assert (found.where, "hides itself" in found.reason) == (("module/br_nf",), True)

    def test_in_a_container_nothing_can_be_said(self, machine: Machine) -> None:
        with pytest.raises(Unavailable, match=r"^modules"):
            verdict(machine.host, "HOST-MODULES-VOUCHED")


@pytest.mark.skipif(os.geteuid() != 0, reason="root: files of root are what this is about")
class TestHelpers:
    @pytest.fixture
    def kernel(self, machine: Machine) -> Machine:
        machine.package("systemd", "/usr/lib/systemd/systemd-coredump", "/usr/bin/python3.11")
        for path, text in {
            "/proc/sys/kernel/core_pattern": "|/usr/lib/systemd/systemd-coredump %P",
            "/proc/sys/kernel/modprobe": "/sbin/modprobe",
            "/proc/sys/kernel/poweroff_cmd": "/sbin/poweroff",
            "/sys/kernel/uevent_helper": "",
            "/sys/fs/cgroup/memory/release_agent": "",
            "/proc/sys/fs/binfmt_misc/status": "enabled",
            "/proc/sys/fs/binfmt_misc/python": "enabled\ninterpreter /usr/bin/python3.11\nflags: \n",
            "/proc/sys/fs/binfmt_misc/off": "disabled\ninterpreter /var/tmp/x\nflags: F\n",
        }.items():
            machine.text(path, f"{text}\n")
        return machine

    def test_a_package_for_its_programs_and_nothing_for_what_is_off(self, kernel: Machine) -> None:
        assert verdict(kernel.host, "HOST-HELPERS-VOUCHED").ok

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("/proc/sys/kernel/core_pattern", "|/var/tmp/x %P"),
            ("/proc/sys/kernel/core_pattern", "| /var/tmp/x"),
            ("/proc/sys/kernel/modprobe", "/var/tmp/x"),
            ("/proc/sys/kernel/poweroff_cmd", "/var/tmp/x"),
            ("/sys/kernel/uevent_helper", "/var/tmp/x"),
            ("/sys/fs/cgroup/memory/release_agent", "/var/tmp/x"),
            ("/proc/sys/fs/binfmt_misc/python", "enabled\ninterpreter /var/tmp/x\nflags: OCF"),
        ],
    )
    def test_nobody_for_any_other_whether_it_is_there_or_not(self, kernel: Machine, path: str, text: str) -> None:
        kernel.text(path, f"{text}\n")
        found = verdict(kernel.host, "HOST-HELPERS-VOUCHED")
        assert (found.where, "it is not there" in found.reason) == ((path,), True)
        kernel.text("/var/tmp/x", "#!/bin/sh\n")
        found = verdict(kernel.host, "HOST-HELPERS-VOUCHED")
        assert (found.where, "no package brought it" in found.reason) == ((path,), True)

    def test_a_name_for_core_dumps_is_no_program(self, kernel: Machine) -> None:
        kernel.text("/proc/sys/kernel/core_pattern", "/var/tmp/core.%p\n")
        assert verdict(kernel.host, "HOST-HELPERS-VOUCHED").ok

    def test_in_a_container_they_are_another_machines(self, kernel: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("module_utils.casemate.kinds.state_helpers.os.access", lambda path, mode: False)
        with pytest.raises(Unavailable, match=r"^kernel"):
            verdict(kernel.host, "HOST-HELPERS-VOUCHED")


class TestRules:
    CHAIN = (
        "table inet x {\n\tchain pre {\n\t\ttype nat hook prerouting priority -110; policy accept;\n\t\tRULE\n\t}\n}\n"
    )
    EMPTY: Any = {"ip -j": (0, "[]", ""), "tc -j": (0, "[]", "")}  # noqa: RUF012

    def made(self, tmp_path: Path, **commands: tuple[int, str, str]) -> FakeHost:
        given = {name.replace("_", " ").replace("  ", "-"): said for name, said in commands.items()}
        return FakeHost(tmp_path, commands={**self.EMPTY, **given}, context={"today": "2026-12-01"})

    def test_a_rule_is_named_with_its_table_and_chain(self, tmp_path: Path) -> None:
        listing = self.CHAIN.replace("RULE", "tcp dport 9999 redirect to :22")
        found = verdict(self.made(tmp_path, nft=(0, listing, "")), "FW-PACKETS-UNCHANGED")
        assert found.where == ("table inet x: chain pre",)
        assert "`tcp dport 9999 redirect to :22`" in found.reason

    def test_nothing_is_said_where_the_rules_are_not_listed(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match=r"^nftables"):
            verdict(self.made(tmp_path, nft=(1, "", "Operation not permitted")), "FW-PACKETS-UNCHANGED")

    def test_iptables_is_asked_where_nft_does_not_show_its_targets(self, tmp_path: Path) -> None:
        said = "# Warning: table ip nat is managed by iptables-nft, do not touch!\nXT target REDIRECT not found\n"
        listing = self.CHAIN.replace("inet x", "ip nat").replace("pre {", "PREROUTING {").replace("RULE", "counter ")
        saved = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j REDIRECT --to-ports 22\nCOMMIT\n"
        made = self.made(tmp_path, nft=(0, listing, said))
        with pytest.raises(Unavailable, match=r"^iptables"):
            verdict(made, "FW-PACKETS-UNCHANGED")
        made.commands["iptables-nft-save"] = (0, saved, "")
        assert verdict(made, "FW-PACKETS-UNCHANGED").where == ("table ip nat: chain PREROUTING",)

    def test_rules_of_the_older_kind_count_too(self, tmp_path: Path) -> None:
        saved = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j DNAT --to 192.0.2.1\nCOMMIT\n"
        made = self.made(tmp_path, nft=(0, "", ""))
        made.commands["iptables-legacy-save"] = (0, saved, "")
        assert verdict(made, "FW-PACKETS-UNCHANGED").ok
        Path(made.path("/proc/net")).mkdir(parents=True)
        Path(made.path("/proc/net/ip_tables_names")).write_text("nat\n")
        assert verdict(made, "FW-PACKETS-UNCHANGED").where == ("table ip-legacy nat: chain PREROUTING",)

    @pytest.mark.parametrize(
        ("link", "where"),
        [
            ({"ifname": "eth0", "xdp": {"mode": 1, "prog": {"id": 7, "name": "x", "tag": "a"}}}, ("device/eth0/xdp",)),
            ({"ifname": "eth0"}, ("device/eth0/ingress",)),
            ({"ifname": "eth0", "linkinfo": {"info_kind": "veth"}, "master": "cni0"}, ()),
        ],
    )
    def test_devices_that_look_at_packets_first_are_named(
        self, tmp_path: Path, link: Any, where: tuple[str, ...]
    ) -> None:
        made = self.made(tmp_path, nft=(0, "", ""))
        made.commands["ip -j"] = (0, json.dumps([link]), "")
        if "xdp" not in link:
            made.commands["tc -j"] = (0, json.dumps([{"kind": "clsact", "dev": "eth0"}]), "")
            made.commands["tc filter"] = (0, "filter protocol ip pref 49152 matchall action order 1: mirred\n", "")
        assert verdict(made, "FW-PACKETS-UNCHANGED").where == where


def test_an_address_of_ipv4_in_one_of_ipv6_is_the_loopback_too() -> None:
    assert not sockets.Socket("udp", "::ffff:127.0.0.1", 1, "").is_reachable
    assert sockets.Socket("udp", "::ffff:10.0.0.1", 1, "").is_reachable


class TestAccounts:
    PASSWD = "root:x:0:0::/root:/bin/sh\nops:x:1000:1000::/:/bin/sh\nalice:x:1001:1001::/:/bin/bash\n"

    def judged(self, folder: Path, line: str = "", shadow: str = "") -> Any:
        files = {"/etc/passwd": self.PASSWD + line, "/etc/shadow": shadow}
        context = {"today": "2026-12-01", "account": "ops", "people": ["alice"]}
        return verdict(FakeHost(folder, files, context=context), "PEOPLE-ACCOUNTS-KNOWN", accounts=["carol"])

    def test_those_whom_the_inventory_lists_are_known(self, tmp_path: Path) -> None:
        assert self.judged(tmp_path, "carol:x:1002:1002::/:/bin/bash\n").ok

    @pytest.mark.parametrize("fields", ["1002:1002::/:/bin/bash", "1002:1002::/:", "70000:1002::/:/bin/zsh"])
    def test_anybody_else_is_named_with_what_to_do(self, tmp_path: Path, fields: str) -> None:
        found = self.judged(tmp_path, f"eve:x:{fields}\n")
        assert list(found.observed) == ["account/eve"]
        assert "userdel eve" in found.reason and "casemate_people" in found.reason

    @pytest.mark.parametrize(
        ("line", "shadow"),
        [
            ("eve:x:1002:1002::/:/usr/sbin/nologin\n", ""),
            ("svc:x:998:998::/:/bin/bash\n", ""),
            ("nobody:x:65534:65534::/:/bin/bash\n", ""),
            ("eve:x:1002:1002::/:/bin/bash\n", "eve:!:19000:::::1:\n"),
            ("ops:x:1002:1002::/:/bin/bash\n", ""),
        ],
    )
    def test_who_cannot_log_in_is_no_stranger(self, tmp_path: Path, line: str, shadow: str) -> None:
        assert self.judged(tmp_path, line, shadow).ok

    def test_the_operator_may_vouch_for_one_as_it_is(self, tmp_path: Path) -> None:
        found = self.judged(tmp_path, "eve:x:1002:1002::/:/bin/bash\n")
        entry = {"digest": found.observed["account/eve"], "owner": "o", "reason": "r", "expires": "2027-01-01"}
        host = FakeHost(tmp_path, context={"today": "2026-12-01", "account": "ops", "people": ["alice"]})
        assert verdict(host, "PEOPLE-ACCOUNTS-KNOWN", accounts=[], declared={"account/eve": entry}).ok
        assert inputs.value_problems("casemate_vouched", {"account/eve": entry}, KNOWN) == []


class TestSudo:
    RULE: ClassVar[dict[str, Any]] = {
        "Host_List": [{"hostname": "ALL"}],
        "Cmnd_Specs": [{"Commands": [{"command": "ALL"}]}],
    }

    def judged(self, folder: Path, *users: dict[str, Any], lines: str = "", rc: int = 0, **policy: Any) -> Any:
        specs = [{"User_List": [user], **self.RULE} for user in users]
        said = json.dumps({"User_Specs": specs, **policy})
        files = {"/etc/sudoers": f"root ALL=(ALL) ALL\n{lines}", "/etc/passwd": "eve:x:1002:1002::/:/bin/sh\n"}
        context = {"today": "2026-12-01", "account": "ops", "people": ["alice"]}
        host = FakeHost(folder, files, {"cvtsudoers": (rc, said, "")}, context)
        return verdict(host, "SUDO-RULES-DECLARED", accounts=["alice", "%watch"], groups=["sudo"])

    def test_rules_of_those_who_are_declared_are_known(self, tmp_path: Path) -> None:
        users = [{"username": name} for name in ("root", "ops", "alice")] + [
            {"usergroup": "sudo"},
            {"usergroup": "watch"},
        ]
        assert self.judged(tmp_path, *users).ok

    @pytest.mark.parametrize(
        ("user", "name"),
        [
            ({"username": "eve"}, "eve"),
            ({"userid": 1002}, "eve"),
            ({"usergroup": "alice"}, "%alice"),
            ({"username": "sudo"}, "sudo"),
            ({"username": "ALL"}, "ALL"),
            ({"useralias": "ADMINS"}, "eve"),
        ],
    )
    def test_anybody_else_is_named_with_the_line(self, tmp_path: Path, user: dict[str, Any], name: str) -> None:
        aliases = {"ADMINS": [{"username": "eve"}]}
        lines = f"Defaults:{name} !lecture\n{name} ALL=(ALL) ALL\n"
        found = self.judged(tmp_path, user, lines=lines, User_Aliases=aliases)
        assert list(found.observed) == [f"sudo/{name}"]
        assert "remove the rule from /etc/sudoers:3" in found.reason

    @pytest.mark.parametrize(
        ("line", "sources"),
        [
            ("sudoers: files sss\n", ["sss"]),
            ("passwd: files sss\nsudoers:\tldap [SUCCESS=return] sss files # rules\n", ["ldap", "sss"]),
            ("sudoers: files\nsudoers: files sss\n", []),
            ("passwd: files sss\n# sudoers: sss\n", []),
            ("", []),
        ],
    )
    def test_a_directory_that_sudo_asks_is_named(self, tmp_path: Path, line: str, sources: list[str]) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/nsswitch.conf").write_text(line)
        found = self.judged(tmp_path, {"username": "ops"})
        assert found.ok is not bool(sources)
        assert not sources or list(found.observed) == [f"sudo/nsswitch:{source}" for source in sources]

    def test_a_rule_that_changes_is_another(self, tmp_path: Path) -> None:
        eve = {"username": "eve"}
        assert self.judged(tmp_path, eve).observed != self.judged(tmp_path, eve, eve).observed

    def test_sudo_that_cannot_be_asked_is_never_nobody(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable):
            self.judged(tmp_path, rc=1)

    def test_a_host_without_sudo_has_no_rules(self, tmp_path: Path) -> None:
        assert verdict(FakeHost(tmp_path), "SUDO-RULES-DECLARED", accounts=[], groups=[]).ok


class TestKeys:
    CID = "SSH-OWNKEYS-VOUCHED"
    PASSWD = "root:x:0:0::/root:/bin/sh\nops:x:1000:1000::/home/ops:/bin/sh\nalice:x:1001:1001::/home/alice:/bin/sh\n"
    FILE, SECOND = "/home/ops/.ssh/authorized_keys", "/home/ops/.ssh/authorized_keys2"
    OWN, EVE = "ssh-ed25519 AAAAC3Nz ops@desk", "ecdsa-sha2-nistp256 AAAAE2Vj eve"

    def judged(self, tmp_path: Path, files: dict[str, str], **more: Any) -> Any:
        context = {"today": "2026-12-01", "account": "ops", "people": []}
        return verdict(FakeHost(tmp_path, {"/etc/passwd": self.PASSWD, **files}, context=context), self.CID, **more)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            OWN,
            f"# {EVE}\n\n{OWN}\n",
            f"{OWN}\n{OWN} again\n",
            f"no key of {EVE.split()[0]}\n{OWN}\n",
            f"{OWN} {EVE}",  # a comment
            f'command="{EVE}",from="192.0.2.1" {OWN}\n',  # and a command
        ],
    )
    def test_a_single_key_is_the_one_by_which_the_run_came(self, tmp_path: Path, text: str) -> None:
        others = {"/home/alice/.ssh/authorized_keys": f"{self.OWN}\n{self.EVE}\n"}
        assert self.judged(tmp_path, {self.FILE: text, **others}).ok

    @pytest.mark.parametrize("options", ["", "cert-authority ", 'from="*",command="echo \\"a b\\"" ', "\t"])
    def test_of_several_each_is_named_with_its_line(self, tmp_path: Path, options: str) -> None:
        found = self.judged(tmp_path, {self.FILE: f"# ours\n{self.OWN}\n{options}{self.EVE}\n"})
        assert found.where == (f"{self.FILE}:2", f"{self.FILE}:3")
        assert "delete the lines of others by hand" in found.reason
        second = self.judged(tmp_path / "second", {self.FILE: self.OWN, self.SECOND: options + self.EVE})
        assert second.where == (f"{self.FILE}:1", f"{self.SECOND}:1")

    @pytest.mark.parametrize("line", ["AuthorizedKeysFile /var/keys/%u", "Match User ops\nAuthorizedKeysFile keys x"])
    def test_files_that_sshd_is_told_of_count(self, tmp_path: Path, line: str) -> None:
        files = {"/etc/ssh/sshd_config": f"{line}\n", self.FILE: self.OWN}
        path = "/home/ops/keys" if "Match" in line else "/var/keys/ops"
        assert f"{path}:1" in self.judged(tmp_path, {**files, path: self.EVE}).where

    @pytest.mark.parametrize(
        ("line", "ok"),
        [
            ("TrustedUserCAKeys /etc/ssh/ca", False),
            ("TrustedUserCAKeys none", True),
            ("AuthorizedKeysCommand /usr/bin/x", False),
            ("AuthorizedKeysCommand none", True),
        ],
    )
    def test_where_something_else_lets_in_a_single_key_may_be_anybodys(
        self, tmp_path: Path, line: str, ok: bool
    ) -> None:
        assert self.judged(tmp_path, {"/etc/ssh/sshd_config": f"{line}\n", self.FILE: self.EVE}).ok is ok

    def test_the_operator_vouches_for_a_key_with_its_options(self, tmp_path: Path) -> None:
        found = dict(self.judged(tmp_path, {self.FILE: f"{self.OWN}\n{self.EVE}\n"}).observed)
        entries = {name: {"digest": digest, **UNTIL} for name, digest in found.items()}
        assert inputs.value_problems("casemate_vouched", entries, KNOWN) == []
        again = {self.FILE: f"{self.EVE} moved\n{self.OWN}\n"}
        assert self.judged(tmp_path / "again", again, declared=entries).ok
        name, _ = sorted(found)
        assert not self.judged(tmp_path / "one", again, declared={name: entries[name]}).ok
        wider = {self.FILE: f'{self.OWN}\n{self.EVE}\nfrom="*" {self.EVE}\n'}
        changed = self.judged(tmp_path / "wider", wider, declared=entries)
        assert changed.where == (f"{self.FILE}:2",)
