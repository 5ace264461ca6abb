"""A waiver that comes after an apply: what was written is taken back, once, and check foretells it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost
from unit.kinds.test_nft import GOOD, listing
from unit.test_engine import control
from unit.test_exact import FIREWALL, SSH, SSH_FILES, WAIVER_NOW, Controls, Machine, ids, settled

from module_utils.casemate.engine import run as engine
from module_utils.casemate.formats import sshd_files
from module_utils.casemate.kinds import KINDS, k8s_object, kernel_module, nft, sysctl
from module_utils.casemate.kinds.kind import Owned

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")

ENDED = {**WAIVER_NOW, "expires": "2020-01-31"}
PROC = {"/proc/sys/kernel/panic": "0\n", "/proc/sys/kernel/sysrq": "0\n"}
POLICY, DROPIN = "/etc/rancher/k3s/audit-policy.yaml", "/etc/rancher/k3s/config.yaml.d/casemate-k3s_x.yaml"
MODULES = f"/lib/modules/{os.uname().release}"
FILE = {"kind": "file", "path": "/etc/x.d/99-casemate.conf", "mode": "0644", "content": "# Managed by Casemate.\nx\n"}
K3S = {"kind": "k3s_config", "file": "casemate-k3s_x.yaml"}
DEBUG = {**K3S, "key": "debug", "value": True}


def many(*settings: dict[str, Any]) -> Controls:
    return [control(f"TEST-{number}-SET", setting) for number, setting in enumerate(settings)]


def host(where: Path) -> Machine:
    made = Machine(
        where, {**SSH_FILES, **PROC, MODULES + "/x": "", "/proc/modules": ""}, live="", declared=listing(GOOD)
    )
    made.context = {"version": "v1.36.4+k3s1"}
    made.commands["modprobe"] = (0, "install /bin/false\n", "")
    return made


CASES: dict[str, tuple[Controls, str, str, str | None]] = {
    "file": (many(FILE, {**FILE, "path": "/etc/x.d/98-casemate.conf"}), "TEST-0-SET", FILE["path"], None),
    "sshd": (SSH, "SSH-ROOT-REFUSED", sshd_files.OWNED, "maxauthtries 4"),
    "sysctl": (
        many(*({"kind": "sysctl", "key": key, "value": 4} for key in ("kernel.panic", "kernel.sysrq"))),
        "TEST-0-SET", sysctl.OWNED, "kernel.sysrq = 4",
    ),
    "k3s_config": (many(DEBUG, {**K3S, "key": "write-kubeconfig-mode", "value": "0600"}), "TEST-0-SET",
                    DROPIN, 'write-kubeconfig-mode: "0600"'),
    "k3s_config flag": (
        many({**K3S, "key": "kubelet-arg", "value": "v=2"}, {**K3S, "key": "kubelet-arg", "value": "max-pods=9"}),
        "TEST-0-SET", DROPIN, '  - "max-pods=9"',
    ),
    "k3s_config alone": (many(DEBUG), "TEST-0-SET", DROPIN, None),
    "nft": (FIREWALL, "FW-RULES-LOADED", nft.FILE, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_was_written_is_taken_back_and_the_second_apply_changes_nothing(tmp_path: Path, case: str) -> None:
    controls, waived, path, rest = CASES[case]
    hosts: list[Machine] = []

    def hardened(where: Path) -> Machine:
        made = host(where)
        engine.run({"role": controls}, made, False)
        assert made.text(path) is not None
        made.changes.clear()
        hosts.append(made)
        return made

    waivers = {waived: WAIVER_NOW}
    plan, done = settled(tmp_path, hardened, controls, waivers)
    planned, made = (next(f for f in one.findings if f["control"] == waived) for one in (plan, done))
    assert (planned["status"], planned["action"], planned["waiver"]["owner"]) == ("waived", "would_change", "me")
    assert path in planned["reason"]
    assert (made["status"] in ("waived", "pass"), made["action"]) == (True, "changed")
    lines = (hosts[-1].text(path) or "").splitlines()
    assert [line for line in lines if not line.startswith("#") and not line.endswith(":")] == ([rest] if rest else [])
    assert engine.foreseen({"role": controls}, plan.findings, hosts[0])[0]["after"] == ""
    assert path in hosts[-1].armed


@pytest.mark.parametrize("case", CASES)
def test_one_that_has_ended_counts_as_none(tmp_path: Path, case: str) -> None:
    controls, waived, path, _ = CASES[case]
    plan, done = settled(tmp_path, host, controls, {waived: ENDED})
    planned, made = (next(f for f in one.findings if f["control"] == waived) for one in (plan, done))
    assert (planned["status"], planned["action"]) == ("fail", "would_change")
    assert planned["reason"].startswith("the waiver expired on 2020-01-31; ")
    assert (made["status"], made["action"], made["waiver"]) == ("pass", "changed", None)
    assert host(tmp_path / "apply").text(path)


@pytest.mark.parametrize("case", CASES)
def test_one_from_the_start_is_written_by_nobody(tmp_path: Path, case: str) -> None:
    controls, waived, path, rest = CASES[case]
    settled(tmp_path, host, controls, {waived: WAIVER_NOW})
    text = host(tmp_path / "apply").text(path) or ""
    assert [one for one in text.splitlines() if one[0] not in "#k" or one == rest][-1:] == ([rest] if rest else [])


def test_a_parameter_gets_the_value_of_the_next_boot(tmp_path: Path) -> None:
    controls = CASES["sysctl"][0]
    made = FakeHost(tmp_path, {**PROC, "/etc/sysctl.d/10.conf": "kernel.panic = 7\n"})
    engine.run({"role": controls}, made, False)
    made.armed.clear()
    engine.run({"role": controls}, made, False, {"TEST-0-SET": WAIVER_NOW})
    assert (made.text("/proc/sys/kernel/panic"), made.text("/proc/sys/kernel/sysrq")) == ("7", "4")
    assert "value /proc/sys/kernel/panic" in made.armed  # a parameter of the network may cut off who changes it


@pytest.mark.parametrize(("leads", "goes"), [("k3s", True), ("/usr/local/bin/k3s", True), ("/opt/mine", False)])
def test_a_link_goes_where_it_leads_to_our_program(tmp_path: Path, leads: str, goes: bool) -> None:
    controls = many({"kind": "link", "path": "/usr/local/bin/ctr", "target": "k3s"})

    def make(where: Path) -> FakeHost:
        made = FakeHost(where, {"/usr/local/bin/k3s": "x"})
        os.symlink(leads, made.path("/usr/local/bin/ctr"))
        return made

    plan, _ = settled(tmp_path, make, controls, {"TEST-0-SET": WAIVER_NOW})
    assert (plan.findings[0]["action"] == "would_change", plan.findings[0]["status"]) == (goes, "waived")
    assert os.path.lexists(tmp_path / "apply/usr/local/bin/ctr") is not goes


@pytest.mark.parametrize("state", ["blocked", "loaded"])
def test_modules_leave_their_files(tmp_path: Path, state: str) -> None:
    path = kernel_module.BLOCKED if state == "blocked" else kernel_module.LOADED
    controls = many(*({"kind": "kernel_module", "name": name, "state": state} for name in ("cramfs", "hfs")))
    both = "".join(
        f"install {n} /bin/false\nblacklist {n}\n" if state == "blocked" else f"{n}\n" for n in ("cramfs", "hfs")
    )
    loaded = "" if state == "blocked" else "cramfs 1 0\nhfs 1 0\n"
    files = {path: kernel_module.HEADER + both, MODULES + "/x": "", "/proc/modules": loaded}
    answer = "install /bin/false\n" if state == "blocked" else "insmod /x/cramfs.ko\n"

    def make(where: Path) -> FakeHost:
        return FakeHost(where, files, {"modprobe": (0, answer, "")})

    settled(tmp_path / "one", make, controls, {"TEST-0-SET": WAIVER_NOW})
    left = FakeHost(tmp_path / "one/apply").text(path) or ""
    assert ("cramfs" in left, "hfs" in left) == (False, True)
    settled(tmp_path / "both", make, controls, {c["id"]: WAIVER_NOW for c in controls})
    assert FakeHost(tmp_path / "both/apply").text(path) is None


AUDIT = {"kind": "file", "path": POLICY, "mode": "0600", "content": "# Managed by Casemate.\nkind: Policy\n"}
NAMES_IT = {**K3S, "key": "kube-apiserver-arg", "value": f"audit-policy-file={POLICY}"}


@pytest.mark.parametrize(
    ("setting", "text", "others", "why"),
    [
        (AUDIT, AUDIT["content"], [NAMES_IT], "a control that is not waived names it"),
        (AUDIT, AUDIT["content"], [], "config.yaml.d/mine.yaml still names it"),
        ({**AUDIT, "path": "/etc/issue"}, AUDIT["content"], [], "it belongs to the system"),
        ({**AUDIT, "path": "/etc/systemd/system/k3s.service"}, AUDIT["content"], [], "it belongs to the system"),
        ({**K3S, "options": {"server": "https://a:6443"}}, None, [], "the node could not go on without it"),
        ({**K3S, "key": "secrets-encryption", "value": True}, None, [], "the node could not go on without it"),
    ],
)
def test_what_something_still_needs_stays_and_says_so(
    tmp_path: Path, setting: dict[str, Any], text: str | None, others: list[dict[str, Any]], why: str
) -> None:
    mine = {"/etc/rancher/k3s/config.yaml.d/mine.yaml": f"x: {POLICY}\n"} if "mine.yaml" in why else {}
    waivers = {"TEST-0-SET": WAIVER_NOW}
    made = FakeHost(tmp_path, mine, context={"version": "v1.36.4+k3s1"})
    controls = many(setting, *others)
    engine.run({"role": controls}, made, False)
    path = setting.get("path") or DROPIN
    before = made.text(path)
    made.changes.clear()
    for check in (True, False):
        result = engine.run({"role": controls}, made, check, waivers)
        one = result.findings[0]
        assert (one["status"], one["action"], result.roles_to_apply, made.changes) == ("waived", "none", [], [])
        assert why in one["reason"]
    assert made.text(path) == before


@pytest.mark.parametrize("case", CASES)
def test_what_even_root_may_not_change_stays_with_the_command_that_lifts_it(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls, waived, path, _ = CASES[case]
    made = host(tmp_path)
    engine.run({"role": controls}, made, False)
    made.changes.clear()
    monkeypatch.setattr(made, "barred", lambda *_, **__: f"{path} is immutable: chattr -i {path}")
    for check in (True, False):
        result = engine.run({"role": controls}, made, check, {waived: WAIVER_NOW})
        (one,) = [found for found in result.findings if found["control"] == waived]
        assert (one["status"], one["action"], made.changes) == ("waived", "none", [])
        assert f"it stays: {path} is immutable: chattr -i {path}" in one["reason"]


def test_what_stays_goes_on_being_written_when_something_else_drifts(tmp_path: Path) -> None:
    controls = many({**K3S, "options": {"server": "https://a:6443"}}, {**K3S, "key": "debug", "value": True})
    made = FakeHost(tmp_path, context={"version": "v1.36.4+k3s1"})
    engine.run({"role": controls}, made, False)
    text = made.text(DROPIN) or ""
    Path(made.path(DROPIN)).write_text(text.replace("true", "false"))
    engine.run({"role": controls}, made, False, {"TEST-0-SET": WAIVER_NOW})
    assert made.text(DROPIN) == text


def test_a_file_that_a_configuration_names_goes_after_the_configuration(tmp_path: Path) -> None:
    """Killed between the two, K3s would start neither with the one nor with the other."""
    controls = many(AUDIT, NAMES_IT)
    made = FakeHost(tmp_path, context={"version": "v1.36.4+k3s1"})
    engine.run({"role": controls}, made, False)
    waivers = {c["id"]: WAIVER_NOW for c in controls}
    plan = engine.run({"role": controls}, made, True, waivers)
    assert ids(plan, "would_change") == set(waivers)
    first = engine.run({"role": controls}, made, False, waivers)
    assert (ids(first, "changed"), made.text(DROPIN), bool(made.text(POLICY))) == ({"TEST-1-SET"}, None, True)
    second = engine.run({"role": controls}, made, False, waivers)
    assert (ids(second, "changed"), made.text(POLICY)) == ({"TEST-0-SET"}, None)
    assert engine.run({"role": controls}, made, True, waivers).roles_to_apply == []


def test_somebody_elses_file_in_the_place_of_ours_stays(tmp_path: Path) -> None:
    made = FakeHost(tmp_path, {POLICY: "kind: Policy of mine\n"})
    result = engine.run({"role": many(AUDIT)}, made, False, {"TEST-0-SET": WAIVER_NOW})
    assert (result.findings[0]["status"], result.findings[0]["action"], made.changes) == ("waived", "none", [])


def test_a_unit_that_read_the_file_at_its_start_is_stale(tmp_path: Path) -> None:
    controls = many({**FILE, "unit": "k3s.service"})
    made = FakeHost(tmp_path)
    engine.run({"role": controls}, made, False)
    assert engine.run({"role": controls}, made, False, {"TEST-0-SET": WAIVER_NOW}).stale == ["k3s.service"]


@pytest.mark.parametrize("case", ["sshd", "sysctl"])
def test_what_no_control_asks_for_any_more_is_named_and_goes(tmp_path: Path, case: str) -> None:
    """A control that is not for this level any more, or that a release has dropped."""
    controls, dropped, path, rest = CASES[case]
    fewer = [one for one in controls if one["id"] != dropped]

    def hardened(where: Path) -> Machine:
        made = host(where)
        engine.run({"role": controls}, made, False)
        made.changes.clear()
        return made

    plan, _ = settled(tmp_path, hardened, fewer)
    (finding,) = [one for one in plan.findings if one["status"] == "fail"]
    assert re.search(f"{path} holds .*, which no control asks for", finding["reason"])
    assert [line for line in (host(tmp_path / "apply").text(path) or "").splitlines() if line[0] != "#"] == [rest]


OBJECTS = {
    "/api/v1/namespaces/default": {
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": {"a": "b"}},
    },
    "/apis/x/v1/p/casemate-p": {"apiVersion": "x/v1", "kind": "P", "metadata": {"name": "casemate-p"}, "spec": {}},
}  # fmt: skip


class Cluster:
    """An API server that tracks who manages what, as far as one field manager is concerned."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = json.loads(json.dumps(OBJECTS))
        for path, item in self.items.items():
            others = [] if "casemate-p" in path else [{"manager": "k3s"}]
            managers = [*others, {"manager": "casemate"}, {"manager": "other", "subresource": "status"}]
            item["metadata"].update(uid="1", managedFields=managers)
        self.asked: list[str] = []

    def get(self, path: str) -> Any:
        return self.call("GET", path)[1]

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        plain = path.partition("?")[0]
        if plain == "/api/v1/namespaces":
            return 200, {"items": []}
        if method != "GET":
            self.asked.append(f"{method} {path}")
        if method == "DELETE":
            return 200, self.items.pop(plain)
        if method == "PATCH":
            assert body == {k: v for k, v in OBJECTS[plain].items() if k in ("apiVersion", "kind")} | {
                "metadata": {"name": "default"}
            }
            meta = self.items[plain]["metadata"]
            meta["managedFields"] = [one for one in meta["managedFields"] if one["manager"] != "casemate"]
            meta.pop("labels")
        return (200, self.items[plain]) if plain in self.items else (404, {})


def test_objects_lose_our_fields_and_go_where_they_are_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls = many(*({"kind": "k8s_object", "path": path, "body": body} for path, body in OBJECTS.items()))
    cluster = Cluster()
    monkeypatch.setattr(k8s_object, "Api", lambda host: cluster)
    made, waivers = FakeHost(tmp_path), {c["id"]: WAIVER_NOW for c in controls}
    plan = engine.run({"role": controls}, made, True, waivers)
    assert (ids(plan, "would_change"), cluster.asked) == (set(waivers), [])
    done = engine.run({"role": controls}, made, False, waivers)
    assert ids(done, "changed") == set(waivers)
    assert [one.split("?")[0] for one in cluster.asked] == [
        "PATCH /api/v1/namespaces/default", "DELETE /apis/x/v1/p/casemate-p",
    ]  # fmt: skip
    assert [f["status"] for f in done.findings] == ["waived", "waived"]
    cluster.asked.clear()
    assert (engine.run({"role": controls}, made, False, waivers).roles_to_apply, cluster.asked) == ([], [])


def test_a_refused_taking_back_is_blocked_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    controls = many(
        {"kind": "k8s_object", "path": "/apis/x/v1/p/casemate-p", "body": OBJECTS["/apis/x/v1/p/casemate-p"]}
    )
    cluster = Cluster()
    monkeypatch.setattr(
        cluster,
        "call",
        lambda m, p, b=None, real=cluster.call: (403, {"message": "no"}) if m == "DELETE" else real(m, p, b),
    )
    monkeypatch.setattr(k8s_object, "Api", lambda host: cluster)
    (made,) = engine.run({"role": controls}, FakeHost(tmp_path), False, {"TEST-0-SET": WAIVER_NOW}).findings
    assert (made["status"], made["action"]) == ("waived", "blocked")
    assert re.search("HTTP 403.*by hand: kubectl delete --raw /apis/x/v1/p/casemate-p", made["reason"])


def test_every_kind_that_writes_takes_back() -> None:
    # They write nothing: a mode has no earlier state that is known, and a firewall was switched off by an input. What
    # a host has accepted of locks stays on purpose.
    removing = {"leftover", "home", "sessions", "other_firewalls", "image_verifier", "accepted_lock"}
    taking_back = {name for name, kind in KINDS.items() if kind.owned.take_back is not Owned().take_back}
    enforced = {name for name, kind in KINDS.items() if kind.enforced_by == "engine" and not kind.evicts}
    assert taking_back == enforced - removing
