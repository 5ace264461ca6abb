"""What runs with root's rights has somebody who vouches for it: a package, Casemate, or the operator."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from casemate.catalogue import load
from module_utils.casemate.formats import dpkg
from module_utils.casemate.kinds import vouched
from module_utils.casemate.kinds.vouched import KIND

CRON = "/etc/cron.d/job"
INFO = "/var/lib/dpkg/info"
MINE = "0 3 * * * root backup\n"
UNTIL = {"owner": "ops", "reason": "backup", "expires": "2027-01-31"}


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def host(tmp_path: Path, files: dict[str, str], brought: dict[str, str] | None = None) -> FakeHost:
    """A machine with these files, of which one package brought some, with these texts."""
    database = {
        f"{INFO}/some.list": "".join(f"{path}\n" for path in brought or {}),
        f"{INFO}/some.md5sums": "".join(f"{md5(text)}  {path[1:]}\n" for path, text in (brought or {}).items()),
        "/var/lib/dpkg/status": "Package: some\n",
    }
    made = FakeHost(tmp_path, {**database, **files}, context={"today": "2026-12-01"})
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            os.chmod(f"{folder}/{name}", 0o644)
    installed(made)
    return made


def installed(made: FakeHost) -> None:
    """Date the package's list, as dpkg does once its files are there."""
    os.chmod(made.path(f"{INFO}/some.list"), 0o644)


def host_again(made: FakeHost) -> FakeHost:
    """The same machine at its next run."""
    return FakeHost(Path(made.root), context=made.context)


def faults(made: FakeHost, **setting: Any) -> dict[str, str]:
    """Path -> why nobody vouches for it."""
    whole: Any = {"paths": ["/etc/cron.d/*"], "used": "cron runs it", "ours": [], "declared": {}, **setting}
    (seen,) = vouched.observe([whole], made)
    verdict = KIND.assess(whole, seen)
    assert verdict.ok == (not seen["faults"])
    assert list(verdict.where) == list(seen["faults"])
    found: dict[str, str] = seen["faults"]
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="root: files of root are what this is about")
class TestWhoVouches:
    def test_nobody(self, tmp_path: Path) -> None:
        assert faults(host(tmp_path, {CRON: MINE})) == {CRON: "no package brought it"}

    def test_a_hidden_file_is_one(self, tmp_path: Path) -> None:
        assert list(faults(host(tmp_path, {"/etc/cron.d/.job": MINE}))) == ["/etc/cron.d/.job"]

    def test_a_package_for_what_it_brought(self, tmp_path: Path) -> None:
        assert faults(host(tmp_path, {CRON: MINE}, {CRON: MINE})) == {}

    def test_no_package_for_what_somebody_changed(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: MINE + "* * * * * root evil\n"}, {CRON: MINE})
        assert faults(made) == {CRON: "it is not what the package some brought"}
        assert faults(made, names_only=True) == {}

    def test_no_package_for_the_bytes_of_what_changed_after_it_came(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: MINE}, {CRON: MINE})
        seen = os.stat(made.path(CRON))
        Path(made.path(CRON)).write_text(MINE.replace("backup", "escape"))
        os.utime(made.path(CRON), ns=(seen.st_atime_ns, seen.st_mtime_ns))
        assert os.stat(made.path(CRON)).st_size == seen.st_size
        assert faults(made, names_only=True) == {CRON: "it is not what the package some brought"}

    def test_a_package_for_what_was_only_touched_after_it_came(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: MINE}, {CRON: MINE})
        os.chmod(made.path(CRON), 0o600)
        assert faults(made, names_only=True) == {}

    def test_no_package_for_what_it_has_no_sum_of(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: MINE}, {CRON: MINE})
        Path(made.path(f"{INFO}/some.md5sums")).write_text("")
        assert faults(made) == {CRON: "the package some has no sum of it"}

    def test_a_package_for_what_its_script_wrote_by_ucf(self, tmp_path: Path) -> None:
        ucf = {"/var/lib/ucf/registry": f"some \t {CRON}\n", "/var/lib/ucf/hashfile": f"{md5(MINE)}  {CRON}\n"}
        assert faults(host(tmp_path, {CRON: MINE, **ucf})) == {}
        made = host(tmp_path, {CRON: "other", **ucf})
        assert faults(made) == {CRON: "it is not what the package some brought"}

    def test_a_package_for_a_conffile(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: MINE}, {CRON: MINE})
        Path(made.path(f"{INFO}/some.md5sums")).write_text("")
        status = Path(made.path("/var/lib/dpkg/status"))
        status.write_text(f"Package: some\nConffiles:\n {CRON} {md5(MINE)}\n")
        assert faults(made) == {}
        status.write_text(f"Package: some\nConffiles:\n {CRON} {md5('other')}\n")
        assert list(faults(made)) == [CRON]

    def test_casemate_for_its_own(self, tmp_path: Path) -> None:
        assert faults(host(tmp_path, {CRON: MINE}), ours=[CRON]) == {}

    def test_the_operator_until_a_day_for_these_bytes(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: MINE})
        entry = {**UNTIL, "digest": sha256(MINE)}
        assert faults(made, declared={CRON: entry}) == {}
        assert faults(made, declared={CRON: {**entry, "expires": "2026-11-30"}}) == {
            CRON: "ops vouched for it until 2026-11-30"
        }
        Path(made.path(CRON)).write_text("other")
        assert faults(made, declared={CRON: entry}) == {
            CRON: f"ops vouched for {sha256(MINE)}, and it is {sha256('other')}"
        }

    def test_a_package_for_the_copy_that_its_script_made(self, tmp_path: Path) -> None:
        source = "/usr/share/some/job"
        made = host(tmp_path, {CRON: MINE, source: MINE}, {source: MINE})
        assert faults(made, copies={CRON: source}) == {}
        Path(made.path(CRON)).write_text("other")
        assert faults(made, copies={CRON: source}) == {CRON: f"it is no copy of {source}"}

    def test_no_copy_of_what_was_changed_too(self, tmp_path: Path) -> None:
        source = "/usr/share/some/job"
        made = host(tmp_path, {CRON: "evil", source: "evil"}, {source: MINE})
        assert list(faults(made, copies={CRON: source})) == [CRON]

    @pytest.mark.parametrize(("mode", "says"), [(0o646, "everybody may change it"), (0o4755, "")])
    def test_nobody_for_what_others_may_change(self, tmp_path: Path, mode: int, says: str) -> None:
        made = host(tmp_path, {CRON: MINE}, {CRON: MINE})
        os.chmod(made.path(CRON), mode)
        assert faults(made).get(CRON, "").startswith(says)

    def test_nobody_for_what_is_somebody_elses(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: MINE}, {CRON: MINE})
        os.chown(made.path(CRON), 12345, -1)
        assert faults(made) == {CRON: "it is 12345's, who may change it"}

    def test_no_pipe_is_vouched_for(self, tmp_path: Path) -> None:
        made = host(tmp_path, {"/etc/cron.d/x": ""}, {CRON: MINE})
        os.mkfifo(made.path(CRON))
        assert faults(made)[CRON] == "it is no file"

    def test_a_link_is_what_it_leads_to(self, tmp_path: Path) -> None:
        made = host(
            tmp_path,
            {"/usr/lib/good": MINE, "/opt/bad": MINE, "/etc/cron.d/x": ""},
            {"/usr/lib/good": MINE, "/etc/cron.d/x": ""},
        )
        for name, target in (("good", "/usr/lib/good"), ("bad", "/opt/bad"), ("off", "/dev/null"), ("gone", "/opt/no")):
            os.symlink(target if target == "/dev/null" else made.path(target), made.path(f"/etc/cron.d/{name}"))
        wrong = {
            "/etc/cron.d/bad": "it is a link to /opt/bad: no package brought it",
            "/etc/cron.d/gone": "it is a link to /opt/no, which is not there",
        }
        assert faults(made, comments="#") == wrong
        entry = {**UNTIL, "digest": "link:/opt/bad"}
        assert list(faults(made, comments="#", declared={"/etc/cron.d/bad": entry})) == ["/etc/cron.d/gone"]
        assert faults(made) == {**wrong, "/etc/cron.d/off": "it masks what has its name elsewhere"}

    @pytest.mark.parametrize("names_only", [True, False])
    def test_a_mask_that_a_package_brought_is_its_own(self, tmp_path: Path, names_only: bool) -> None:
        made = host(tmp_path, {"/etc/cron.d/x": ""}, {"/etc/cron.d/x": "", CRON: MINE})
        for path in ("/etc/cron.d/shipped", CRON):
            os.symlink("/dev/null", made.path(path))
        with open(made.path(f"{INFO}/some.list"), "a") as known:
            known.write("/etc/cron.d/shipped\n")
        listed = os.stat(made.path(f"{INFO}/some.list")).st_ctime_ns
        while os.lstat(made.path(CRON)).st_ctime_ns <= listed:  # the link is younger than the package
            os.lchown(made.path(CRON), 0, 0)
        assert faults(made, names_only=names_only) == {CRON: "it masks what has its name elsewhere"}

    def test_where_names_count_a_link_of_nobodys_gives_no_other_name(self, tmp_path: Path) -> None:
        true, tool = "/usr/bin/true", "/usr/bin/tool.real"
        files = {true: "true", tool: "tool", "/etc/cron.d/x": "", "/var/lib/dpkg/alternatives/tool": ""}
        made = host(tmp_path, files, {true: "true", tool: "tool", "/etc/cron.d/owned": "", "/etc/cron.d/x": ""})
        Path(made.path("/var/lib/dpkg/alternatives/tool")).write_text(f"auto\n/etc/cron.d/tool\n\n{tool}\n30\n")
        os.mkdir(made.path("/etc/alternatives"))

        def link(path: str, target: str) -> None:
            os.symlink(os.path.relpath(made.path(target), os.path.dirname(made.path(path))), made.path(path))

        for name in ("nft", "true", "owned"):
            link(f"/etc/cron.d/{name}", true)
        link("/etc/alternatives/tool", tool)
        link("/etc/cron.d/tool", "/etc/alternatives/tool")
        assert faults(made) == {}
        wrong = {"/etc/cron.d/nft": f"it is a link to {true}: nobody vouches for that name of it"}
        assert faults(made, named=True) == wrong
        os.remove(made.path("/etc/alternatives/tool"))
        link("/etc/alternatives/tool", true)
        assert set(faults(host_again(made), named=True)) == {"/etc/cron.d/nft", "/etc/cron.d/tool"}

    def test_an_alternative_may_be_known_by_where_it_was_before_the_merge(self, tmp_path: Path) -> None:
        made = host(tmp_path, {"/usr/bin/nc.real": "x", "/var/lib/dpkg/alternatives/nc": ""}, {"/bin/nc.real": "x"})
        Path(made.path("/var/lib/dpkg/alternatives/nc")).write_text("auto\n/bin/nc\n\n/bin/nc.real\n50\n")
        os.makedirs(made.path("/etc/alternatives"))
        os.symlink("../../etc/alternatives/nc", made.path("/usr/bin/nc"))
        os.symlink("../../usr/bin/nc.real", made.path("/etc/alternatives/nc"))
        assert faults(made, named=True, paths=["/usr/bin/*"]) == {}
        os.symlink("../../usr/bin/nc.real", made.path("/usr/bin/ls"))
        assert list(faults(host_again(made), named=True, paths=["/usr/bin/*"])) == ["/usr/bin/ls"]

    @pytest.mark.parametrize(
        ("text", "comments", "nothing"),
        [
            ("", "#", True), ("", None, False), ("# a\n\n  # b\n", "#", True), ("# a\n", None, False),
            ("#!/tmp/x\n", "#", False),
            ("# a\nb\n", "#", False), ("#\n" * 40000, "#", False),
        ],
    )  # fmt: skip
    def test_what_does_nothing_needs_nobody(
        self, tmp_path: Path, text: str, comments: str | None, nothing: bool
    ) -> None:
        known = {"comments": comments} if comments else {}
        assert (faults(host(tmp_path, {CRON: text}), **known) == {}) == nothing

    @pytest.mark.parametrize("text", ["", "# nothing\n"])
    def test_what_a_package_brought_does_something(self, tmp_path: Path, text: str) -> None:
        made = host(tmp_path, {CRON: text}, {CRON: MINE})
        assert faults(made, comments="#") == {CRON: "it is not what the package some brought"}

    def test_what_another_control_tells_is_told_once(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: MINE})
        made.failing_files.add(CRON)
        assert faults(made) == {}

    @pytest.mark.parametrize(("began", "there"), [(-1000, True), (-60, False), (None, False)])
    def test_a_unit_for_what_it_writes_at_its_start(self, tmp_path: Path, began: int | None, there: bool) -> None:
        made = host(tmp_path, {CRON: MINE, "/etc/cron.d/other": MINE})
        if began is not None:
            at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=began)
            shown = f"ActiveState=active\nActiveEnterTimestamp=Mon {at:%Y-%m-%d %H:%M:%S} UTC\n"
            made.commands["systemctl show k3s.service"] = (0, shown, "")
        found = faults(made, written_by="k3s.service", writes=["/etc/cron.d/j*"])
        assert found.pop("/etc/cron.d/other") == "no package brought it"
        assert list(found) == ([CRON] if there else [])

    def test_of_what_matters_only(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: 'DPkg::Post-Invoke {"x";};', "/etc/cron.d/plain": 'APT::Periodic "1";'})
        assert list(faults(made, matters="(?i)invoke")) == [CRON]

    @pytest.mark.parametrize(("mode", "known", "named"), [
        (0o755, [], False), (0o4755, [], True), (0o2755, [], True), (0o4755, [CRON], False),
    ])  # fmt: skip
    def test_a_program_with_rights_of_its_own(self, tmp_path: Path, mode: int, known: list[str], named: bool) -> None:
        made = host(tmp_path, {CRON: MINE}, {CRON: MINE})
        os.chmod(made.path(CRON), mode)
        found = faults(made, powerful=True, known=known, names_only=True)
        assert found == ({CRON: "some brought it without these rights"} if named else {})

    def test_a_program_of_nobody_with_rights_of_its_own(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: MINE})
        os.chmod(made.path(CRON), 0o4755)
        assert faults(made, powerful=True, known=[CRON], names_only=True) == {CRON: "no package brought it"}

    def test_whoever_asks_for_names_only_keeps_no_sum_from_others(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: "evil"}, {CRON: MINE})
        whole: Any = {"paths": ["/etc/cron.d/*"], "used": "cron runs it", "ours": [], "declared": {}}
        settings: Any = [{**whole, "names_only": True}, whole]
        names, whole_files = vouched.observe(settings, made)
        assert (names["faults"], list(whole_files["faults"])) == ({}, [CRON])

    def test_what_a_package_gave_to_a_static_account(self, tmp_path: Path) -> None:
        made = host(tmp_path, {CRON: MINE}, {CRON: MINE})
        os.chown(made.path(CRON), 1, -1)
        assert faults(made) == {}

    def test_what_is_skipped(self, tmp_path: Path) -> None:
        assert faults(host(tmp_path, {CRON: MINE}), skipped=["/etc/cron.d/jo*"]) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="root: files of root are what this is about")
def test_rights_are_looked_for_wherever_others_than_root_get(tmp_path: Path) -> None:
    made = host(tmp_path, {"/mnt/.deep/a": "x", "/var/closed/in/b": "x", "/mnt/plain": "x", "/mnt/no-program": "x"})
    for path, mode in (("/mnt/.deep/a", 0o4755), ("/var/closed/in/b", 0o4755), ("/mnt/no-program", 0o4644)):
        os.chmod(made.path(path), mode)
    os.chmod(made.path("/var/closed"), 0o700)
    os.symlink(made.path("/var/closed/in"), made.path("/mnt/link"))
    os.chmod(tmp_path, 0o755)
    setting: Any = {"paths": ["/"], "everywhere": True, "powerful": True, "known": [], "names_only": True}
    assert list(faults(made, **setting)) == ["/mnt/.deep/a"]
    os.chmod(made.path("/var/closed"), 0o711)
    assert list(faults(made, **setting)) == ["/mnt/.deep/a", "/var/closed/in/b"]


def test_folders_are_looked_through_to_the_bottom(tmp_path: Path) -> None:
    made = host(tmp_path, {"/etc/cron.d/a/b/c": "x"})
    assert list(faults(made, paths=["/etc/cron.d/**/*"])) == ["/etc/cron.d/a/b/c"]


def test_the_database_says_where_files_were_before_the_merge(tmp_path: Path) -> None:
    made = host(tmp_path, {"/usr/lib/x": "1"}, {"/lib/x": "1"})
    assert dpkg.owners(["/usr/lib/x"], made) == {"/usr/lib/x": "some"}
    assert dpkg.sums(["/usr/lib/x"], ["some"], made) == {"/usr/lib/x": md5("1")}


def test_a_diverted_file_is_of_whoever_diverted_it(tmp_path: Path) -> None:
    made = host(
        tmp_path, {f"{INFO}/other.list": "/bin/x\n", f"{INFO}/other.md5sums": f"{md5('2')}  bin/x\n"}, {"/bin/x": "1"}
    )
    Path(made.path("/var/lib/dpkg/diversions")).write_text("/bin/x\n/bin/x.real\nother\n")
    assert dpkg.owners(["/bin/x", "/bin/x.real"], made) == {"/bin/x": "other", "/bin/x.real": "some"}
    both = dpkg.sums(["/bin/x", "/bin/x.real"], ["some", "other"], made)
    assert both == {"/bin/x": md5("2"), "/bin/x.real": md5("1")}


def test_a_finding_says_of_a_few_why_and_names_all(tmp_path: Path) -> None:
    names = [f"/etc/cron.d/{i}" for i in range(9)]
    setting: Any = {"paths": ["/etc/cron.d/*"], "used": "cron runs it", "ours": [], "declared": {}}
    (seen,) = vouched.observe([setting], host(tmp_path, dict.fromkeys(names, MINE)))
    verdict = KIND.assess(setting, seen)
    assert "and 4 more" in verdict.reason
    assert verdict.where == tuple(names)
    assert verdict.observed == dict.fromkeys(names, sha256(MINE))


@pytest.mark.parametrize(
    ("control", "text", "counts"),
    [
        ("HOST-NSS-VOUCHED", "passwd: files systemd\nhosts: files mdns4_minimal [NOTFOUND=return] dns # own\n", False),
        ("HOST-NSS-VOUCHED", "# passwd: extra\nnetgroup:       nis\n", False),
        ("HOST-NSS-VOUCHED", "passwd: files extra\n", True),
        ("HOST-NSS-VOUCHED", "hosts: extra [!UNAVAIL=return] dns\n", True),
        ("HOST-NSS-VOUCHED", "passwd:extra\n", True),
        ("HOST-SOURCES-VOUCHED", "deb http://deb.debian.org/debian bookworm main\n", False),
        ("HOST-SOURCES-VOUCHED", "deb [trusted=yes] file:/srv/apt ./\n", False),
        ("HOST-SOURCES-VOUCHED", "deb [arch=amd64 trusted=yes] http://192.0.2.66/ ./\n", True),
        ("HOST-SOURCES-VOUCHED", "Types: deb\nTrusted: yes\n", True),
        ("HOST-SOURCES-VOUCHED", "Package: sudo\nPin: version *\nPin-Priority: -1\n", True),
        ("HOST-ENVIRONMENT-VOUCHED", "# PATH=/x\nLANG=C.UTF-8\nSSHD_OPTS=\n", False),
        ("HOST-ENVIRONMENT-VOUCHED", "export PATH=/var/tmp:$PATH\n", True),
        ("HOST-ENVIRONMENT-VOUCHED", "LD_PRELOAD=/var/tmp/x.so\n", True),
        ("HOST-COMMANDS-VOUCHED", "cloud_init_modules:\n - bootcmd\n - runcmd\n#   ProxyCommand ssh -q gw\n", False),
        ("HOST-COMMANDS-VOUCHED", '*.* action(type="omprog" binary="/var/tmp/x")\n', True),
        ("HOST-COMMANDS-VOUCHED", "runcmd: [x]\n", True),
        ("HOST-COMMANDS-VOUCHED", "Host *\n  ProxyCommand /var/tmp/x\n", True),
        ("HOST-LIMITS-VOUCHED", "#* soft core unlimited\n* hard core 0\nroot - nofile 9\n", False),
        ("HOST-LIMITS-VOUCHED", "root hard core 1024\n", True),
        (
            "HOST-NAMES-VOUCHED",
            "127.0.0.1 localhost\n127.0.1.1 n1.example.org n1\n::1 ip6-localhost ip6-loopback\n",
            False,
        ),
        (
            "HOST-NAMES-VOUCHED",
            "192.0.2.9 mirror.example.org notdebian.org debian.org.example # deb.debian.org\n",
            False,
        ),
        ("HOST-NAMES-VOUCHED", "169.254.169.254 metadata.google.internal metadata\n198.18.0.2 server1\n", False),
        ("HOST-NAMES-VOUCHED", "192.0.2.66 deb.debian.org\n", True),
        ("HOST-NAMES-VOUCHED", "127.0.0.1\tlocalhost  Security.Debian.org. # off\n", True),
        ("HOST-NAMES-VOUCHED", "192.0.2.66 x registry-1.docker.io\r\n", True),
        ("HOST-NAMES-VOUCHED", "192.0.2.66 kubernetes.default.svc\n", True),
        ("HOST-NAMES-VOUCHED", "2001:db8::66 europe-docker.pkg.dev", True),
        ("HOST-TIME-VOUCHED", "#NTP=\nFallbackNTP=0.debian.pool.ntp.org 1.debian.pool.ntp.org\nNTP=\n", False),
        ("HOST-TIME-VOUCHED", "NTP = 169.254.169.123\n", False),
        ("HOST-TIME-VOUCHED", "pool 2.debian.pool.ntp.org iburst\nsourcedir /run/chrony-dhcp\nkeyfile /etc/x\n", False),
        ("HOST-TIME-VOUCHED", "confdir /etc/chrony/conf.d\nrefclock PHC /dev/ptp0 poll 3\nmakestep 1 3\n", False),
        ("HOST-TIME-VOUCHED", "# server 192.0.2.66\n! pool x\nserver metadata.google.internal prefer\n", False),
        ("HOST-TIME-VOUCHED", "[Time]\nNTP=192.0.2.66\n", True),
        ("HOST-TIME-VOUCHED", "NTP=0.debian.pool.ntp.org 192.0.2.66\n", True),
        ("HOST-TIME-VOUCHED", "FallbackNTP= pool.ntp.org.example.org\n", True),
        ("HOST-TIME-VOUCHED", "server 192.0.2.66 iburst\n", True),
        ("HOST-TIME-VOUCHED", "  peer time.example.org\n", True),
        ("HOST-TIME-VOUCHED", "refclock SHM 0\n", True),
        ("HOST-TIME-VOUCHED", "sourcedir /var/tmp\n", True),
        ("HOST-TIME-VOUCHED", "include /etc/chrony/conf.d/../x\n", True),
    ],
)
def test_a_file_counts_by_what_matters_in_it(control: str, text: str, counts: bool) -> None:
    assert bool(re.search(load()[control]["setting"]["matters"], text)) is counts


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKwL5lGRUjV1kF0uX1bq3mK0yYbG3dWqW5dHnN8y9b1x eve\n"
LIMITED = "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,"
TOLD = (
    'command="echo \'Please login as the user \\"debian\\" rather than the user \\"root\\".\';echo;sleep 10;exit 142" '
)
KEYS = {
    "/etc/passwd": "root:x:0:0::/root:/bin/sh\nmail:x:8:8::/var/mail:/bin/false\nops:x:998:998::/home/ops:/bin/sh\n"
    "nobody:x:65534:65534::/nonexistent:/bin/false\nalice:x:1000:1000::/home/alice:/bin/sh\n",
    "/etc/login.defs": "UID_MIN 1000\n",
    "/etc/ssh/sshd_config": "AuthorizedKeysFile .ssh/authorized_keys\n"
    "Match User mail\n  AuthorizedKeysFile /etc/keys/%u\n",
}


@pytest.mark.skipif(os.geteuid() != 0, reason="root: files of root are what this is about")
class TestKeysOfSystem:
    def keys(self, tmp_path: Path, files: dict[str, str], account: str = "ops") -> list[str]:
        made = host(tmp_path, {**KEYS, **files})
        made.context = {**made.context, "account": account, "people": ["alice"]}
        setting = load()["SSH-SYSTEMKEYS-VOUCHED"]["setting"]
        return list(
            faults(made, **{name: value for name, value in setting.items() if name not in ("ours", "declared")})
        )

    @pytest.mark.parametrize(
        "path",
        [
            "/root/.ssh/authorized_keys",
            "/root/.ssh/authorized_keys2",
            "/var/mail/.ssh/authorized_keys",
            "/etc/keys/mail",
            "/etc/keys/root",
            "/nonexistent/.ssh/authorized_keys",
        ],
    )
    def test_nobody_wherever_sshd_looks(self, tmp_path: Path, path: str) -> None:
        assert self.keys(tmp_path, {path: KEY}) == [path]

    def test_those_whom_the_inventory_lists_have_theirs(self, tmp_path: Path) -> None:
        theirs = {f"/home/{name}/.ssh/authorized_keys": KEY for name in ("ops", "alice")}
        assert self.keys(tmp_path, theirs) == []
        assert self.keys(tmp_path, theirs, account="other") == ["/home/ops/.ssh/authorized_keys"]

    @pytest.mark.parametrize(
        "line", ["", "# " + KEY, LIMITED + TOLD + KEY, LIMITED + TOLD.replace(";exit 142", "") + KEY]
    )
    def test_what_lets_nobody_in_needs_nobody(self, tmp_path: Path, line: str) -> None:
        assert self.keys(tmp_path, {"/root/.ssh/authorized_keys": f"\n  {line}\n"}) == []

    @pytest.mark.parametrize(
        "line",
        [
            "restrict " + KEY,
            TOLD + KEY,
            LIMITED + TOLD.replace("sleep 10", "sh") + KEY,
            LIMITED + TOLD.replace("Please", "$(sh)") + KEY,
            LIMITED + TOLD.replace("Please", '",port-forwarding,pty,environment="A=') + KEY,
            LIMITED + TOLD + KEY + KEY,
        ],
    )
    def test_what_is_only_like_it_does(self, tmp_path: Path, line: str) -> None:
        assert self.keys(tmp_path, {"/root/.ssh/authorized_keys": line}) == ["/root/.ssh/authorized_keys"]
