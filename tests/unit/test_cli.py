"""The command line: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from unit import made

from casemate import ROOT, catalogue
from casemate.cli import app as cli
from casemate.cli import image_timer
from casemate.prove import proof as prove
from casemate.prove import recorder as recording
from casemate.report import findings
from casemate.run import runner
from module_utils.casemate.core import waiver

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **more: CliRunner().invoke(cli.main, arguments, **more)


def finding(status: str, control: str = "SSH-ROOT-REFUSED", **rest: Any) -> findings.Finding:
    return made.finding(status, control, **rest)


def outcome(*found: findings.Finding, errors: tuple[str, ...] = (), **rest: Any) -> runner.Run:
    made = runner.Run(errors=list(errors), settled=True)
    if found or rest:
        made.hosts["n1"] = runner.Host("n1", passes={f["control"]: [f] for f in found}, **rest)
    return made


def played(monkeypatch: pytest.MonkeyPatch, run: runner.Run) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def fake(*given: Any, **_: Any) -> runner.Run:
        calls.append(given)
        return run

    monkeypatch.setattr(runner, "play", fake)
    return calls


@pytest.mark.parametrize(
    "verb", ["apply", "apply --plan", "check", "check --scan", "prove", "unlock somebody", "explain --all"]
)
def test_every_verb_that_looks_at_hosts_demands_an_inventory(
    verb: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANSIBLE_INVENTORY", raising=False)
    monkeypatch.setattr(cli, "CHECKOUT", False)  # which would bring an inventory of its own
    calls = played(monkeypatch, outcome(finding("pass")))
    done = invoke(*verb.split())
    assert (done.exit_code, calls) == (1, [])
    assert "there is no inventory: give -i INVENTORY" in done.output


@pytest.mark.parametrize(
    ("run", "code", "message"),
    [
        (outcome(finding("pass")), 0, "Every control holds"),
        (outcome(finding("fail", expected="no", observed="yes")), 2, "n1: expected no, is yes"),
        (outcome(finding("not_evaluated", reason="kernel: read-only")), 2, "1 kernel"),
        (outcome(finding("not_evaluated", reason="kernel: read-only"), accepted=["kernel"]), 0, "1 kernel (accepted)"),
        (outcome(status="unreachable", message="no route"), 3, "n1: no route"),
        (outcome(status="error", message="Preflight: no\n- wrong"), 1, "n1: Preflight: no"),
        (outcome(errors=("the playbook is broken",)), 1, "the playbook is broken"),
        (outcome(), 1, "no host of k3s_server"),
    ],
)
def test_check(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, run: runner.Run, code: int, message: str) -> None:
    calls = played(monkeypatch, run)
    done = invoke("check", "-i", "n1,", "--limit", "n1")
    assert done.exit_code == code, done.output
    assert message in done.output
    assert calls[0][:4] == ("check.yml", ("n1,",), "n1", None)


def test_reports_are_written_where_asked(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, outcome(finding("pass")))
    assert invoke("apply", "--format", "json:deep/r.json", "--format", "junit:j.xml").exit_code == 0
    assert json.loads(Path("deep/r.json").read_text())["run"]["verb"] == "apply"
    assert Path("j.xml").exists()
    assert not Path("report").exists()


def test_a_report_on_standard_output_is_alone_there(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    played(
        monkeypatch,
        outcome(finding("fail", expected="no", observed="yes"), finding("not_evaluated", "A-B", reason="x: y")),
    )
    done = invoke("check", "--format", "json:-", "--format", "html:~/r.html")
    assert json.loads(done.stdout)["run"]["verb"] == "check"
    assert "1 finding fails" in done.stderr and "expected no" in done.stderr
    assert (tmp_path / "r.html").is_file()
    assert "1 finding fails" in invoke("check").stdout


def test_the_default_reports(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, outcome(finding("pass")))
    assert invoke("check").exit_code == 0
    assert sorted(path.name for path in Path("report").iterdir()) == ["report.html", "report.json"]


def test_scan_asks_for_expensive_controls(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = played(monkeypatch, outcome(finding("pass"), left_out=["A-B"]))
    assert "1 expensive" in invoke("check").output
    invoke("check", "--scan")
    assert [call[3] for call in calls] == [None, {"__casemate_scan": True}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "-i", "nowhere.yml"), "no inventory at 'nowhere.yml'"),
        (("apply", "--plan", "--format", "json:x.json"), "a plan has no report"),
        (("explain", "SSH-ROOT-REFUSED", "--limit", "n1"), "leave one of both out"),
        (("check", "--format", "json:x", "--format", "html:./x"), "x is named twice"),
        (("check", "--format", "pdf:x"), "json, html, junit"),
        (("check", "--format", "json"), "NAME:PATH"),
        (("chekc",), "No such command"),
        (("check", "--nope"), "No such option"),
        (("explain",), "Name one control or variable"),
        (("explain", "SSH-ROOT-REFUSE", "--all"), "Name one control"),
        (("report", "--from", "nowhere.json"), "nowhere.json"),
        (("apply", "--evict", "HOST-JOB-VOUCHED"), "no control 'HOST-JOB-VOUCHED'; did you mean HOST-JOBS-VOUCHED?"),
        (("apply", "--evict", "SSH-ROOT-REFUSED"), "SSH-ROOT-REFUSED is healed by apply itself"),
        (
            ("apply", "--plan", "--evict", "HOST-JOBS-VOUCHED,"),
            "an ID is empty. An ID is one of SSH-SYSTEMKEYS-",
        ),
        (("apply", "--evict", "HOST-GROUPS-VOUCHED"), "HOST-GROUPS-VOUCHED names what Casemate does not remove"),
        (("apply", "--evict", "API-AUTHORITIES-VOUCHED"), "its finding says how each goes"),
        (("apply", "--evict", "ACCOUNT-UID0-UNIQUE"), "ACCOUNT-UID0-UNIQUE names nothing that Casemate could remove"),
        (("check", "--evict", "HOST-JOBS-VOUCHED"), "No such option"),
    ],
)
def test_misuse_exits_1_and_says_what_is_right(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 1
    assert message in done.output


@pytest.mark.parametrize(
    "command",
    [
        *(f"{verb} --format json:file/r.json" for verb in ("apply", "check", "prove", "images scan")),
        *(f"{verb} --format html:folder" for verb in ("apply", "check", "prove", "images scan")),
        "sbom -o file/sbom",
        "baseline --owner a --reason b --expires 2999-01-01 -o file/baseline.yml",
    ],
)
def test_what_cannot_be_written_is_told_before_any_host_is_touched(
    command: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = played(monkeypatch, outcome(finding("pass")))
    monkeypatch.setattr(prove, "attack", lambda *asked: calls.append(asked))
    Path("file").touch()
    Path("folder").mkdir()
    done = invoke(*command.split(), "-i", "n1,")
    assert (done.exit_code, calls) == (1, [])
    assert re.search("file is no folder|folder cannot be written: it is a folder", " ".join(done.output.split()))


def leaves(command: click.Command = cli.main, *path: str) -> Iterator[tuple[list[str], click.Command]]:
    """Each verb with the words that call it."""
    if not isinstance(command, click.Group):
        yield list(path), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, *path, name)


OF_HOSTS = [(words, verb) for words, verb in leaves() if any(one.name == "limit" for one in verb.params)]


@pytest.mark.parametrize(("words", "verb"), OF_HOSTS, ids=[" ".join(words) for words, _ in OF_HOSTS])
def test_an_empty_limit_is_refused_as_it_would_mean_all_hosts(
    words: list[str], verb: click.Command, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = played(monkeypatch, outcome(finding("pass")))
    done = invoke(*words, "-i", "n1,", "--limit", " ")
    assert (done.exit_code, calls) == (1, [])
    assert "--limit is empty" in done.output


ON_HOSTS = [
    "apply", "apply --plan", "check", "revert", "bootstrap", "sbom", "advisories", "images scan", "explain --all",
    "unlock somebody", "baseline --owner a --reason b --expires 2999-01-01",
    f"images allow --list l.json --until 2999-01-01 --reason b example.org/a@sha256:{'0' * 64}",
]  # fmt: skip


@pytest.mark.parametrize("command", ON_HOSTS)
def test_an_inventory_without_our_groups_is_told_by_every_verb(
    command: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, outcome())
    done = invoke(*command.split(), "-i", "n1,")
    assert done.exit_code == 1
    assert "no host of k3s_server or k3s_agent is in this inventory" in " ".join(done.output.split())


@pytest.mark.parametrize("command", [*ON_HOSTS, "prove", "images scan --print-timer"])
def test_the_inventory_of_the_environment_counts_for_every_verb(
    command: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its paths count from here, as Ansible has it, although Ansible runs elsewhere."""
    calls = played(monkeypatch, outcome())

    def noted(*asked: Any) -> tuple[list[Any], dict[str, Any], str]:
        calls.append(("", *asked))
        return [], {}, "no attack"

    monkeypatch.setattr(prove, "attack", noted)
    monkeypatch.setattr(image_timer, "units", noted)
    monkeypatch.setenv("ANSIBLE_INVENTORY", "hosts.yml,more.yml")
    assert "ANSIBLE_INVENTORY names 'hosts.yml', where no inventory is" in invoke(*command.split()).output
    for name in ("hosts.yml", "more.yml"):
        Path(name).touch()
    invoke(*command.split())
    assert [call[1] for call in calls] == [("hosts.yml", "more.yml")]


ODD = "[/b]:key:[fe80::1]"


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_printed_is_no_markup(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """Neither a tag of rich, which may have no beginning, nor the name of an emoji."""
    run = outcome(finding("fail", observed=ODD), errors=(f"error {ODD}",), message=ODD)
    run.warnings, run.hosts = [f"warning {ODD}"], {ODD: run.hosts["n1"]}
    run.hosts[ODD].name, run.stage = ODD, f"stage {ODD}"
    console = cli.console(stderr=True)
    monkeypatch.setattr(console, "_force_terminal", terminal)
    monkeypatch.setattr(cli, "err", console)

    def play(*given: Any, **_: Any) -> runner.Run:
        given[5](run)
        console.print(runner.table(run))
        return run

    monkeypatch.setattr(runner, "play", play)
    done = invoke("check", "--format", f"json:{ODD}.json", env={"COLUMNS": "200"})
    for said in (f"stage {ODD}", f"error {ODD}", f"warning {ODD}", f"{ODD}: expected", f"report: {ODD}.json"):
        assert said in done.output, said


def test_an_interruption_exits_1(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    run = outcome(status="ok")
    run.cancelled = True
    played(monkeypatch, run)
    done = invoke("apply")
    assert done.exit_code == 1
    assert "interrupted" in done.output


CONTROL = {
    "id": "SSH-ROOT-REFUSED", "title": "Root cannot log in", "why": "Stolen keys.", "severity": "high",
    "level": "baseline", "applies_to": ["node"], "mitigations": ["T1.4"], "role": "k3s_access",
    "setting": {"kind": "sshd", "key": "permitrootlogin", "value": "no"},
}  # fmt: skip


def test_explain_one_control(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "load", lambda: {"SSH-ROOT-REFUSED": CONTROL})
    assert "Root cannot log in" in invoke("explain", "ssh-root-refused").output
    assert json.loads(invoke("explain", "SSH-ROOT-REFUSED", "--format", "json").output) == CONTROL
    done = invoke("explain", "SSH-ROOT-REFUSE")
    assert done.exit_code == 1
    assert "did you mean SSH-ROOT-REFUSED?" in done.output


def test_explain_one_variable(invoke: Invoke) -> None:
    said = invoke("explain", "K3S_node_ready_timeout").output
    assert "allowed     a whole number from 60 to 3600\n  default     600\n" in said
    assert json.loads(invoke("explain", "casemate_level", "--format", "json").output)["choices"] == [
        "baseline",
        "strict",
    ]
    done = invoke("explain", "casemate_levle")
    assert (done.exit_code, "did you mean casemate_level?" in done.output) == (1, True)


def test_explain_all_prints_what_holds_for_the_host(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runner.Run()
    run.hosts["n1"] = runner.Host("n1")
    run.results["n1"] = {"controls": {"k3s_access": [CONTROL]}}
    played(monkeypatch, run)
    done = invoke("explain", "--all", "--format", "json", "--limit", "n1", "-i", "n1,")
    assert json.loads(done.output) == [{**CONTROL, "role": "k3s_access"}]


def test_report_merges_runs(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, outcome(finding("pass")))
    invoke("check", "--format", "json:a.json")
    attacked = [findings.host_entry("n1", "ok", [finding("fail", reason="got in")])]
    monkeypatch.setattr(prove, "attack", lambda *_: (attacked, {}, ""))
    assert invoke("prove", "--format", "json:b.json").exit_code == 2
    done = invoke("report", "--from", "a.json", "--from", "b.json", "--format", "json:c.json")
    assert done.exit_code == 2
    merged = json.loads(Path("c.json").read_text())
    assert merged["hosts"][0]["findings"][0]["reason"] == "got in"


def test_prove_that_could_not_run_exits_1(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove, "attack", lambda *_: ([], {}, "pytest found no attack to run"))
    done = invoke("prove")
    assert done.exit_code == 1
    assert "found no attack" in done.output


@pytest.mark.parametrize("command", ["check", "prove"])
def test_an_ansible_cfg_that_is_not_read_is_told(command: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, outcome(finding("pass")))
    monkeypatch.setattr(prove, "attack", lambda *_: ([], {}, "no"))
    monkeypatch.setenv("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))
    assert "is not read" not in invoke(command, "-i", "n1,").output
    monkeypatch.delenv("ANSIBLE_CONFIG")
    assert "is not read" not in invoke(command, "-i", "n1,").output
    Path("ansible.cfg").touch()
    assert "warning ansible.cfg is not read" in invoke(command, "-i", "n1,").output


def test_an_inventory_that_may_not_be_read_is_told_so(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("hosts.yml").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root reads everything
    assert "you may not read 'hosts.yml'" in invoke("check", "-i", "hosts.yml").output


@pytest.mark.parametrize("text", ['{"hosts": []}', "", "[" * 100_000, "\udcff", "7"])
def test_a_file_that_is_no_report_is_refused(invoke: Invoke, text: str) -> None:
    Path("x.json").write_bytes(text.encode(errors="surrogateescape"))
    done = invoke("report", "--from", "x.json")
    assert done.exit_code == 1
    assert "not a Casemate report" in done.output


@pytest.mark.parametrize(
    ("was", "becomes"),
    [('"2099-02-01"', '"some day"'), ('"2099-02-01"', '"2099-02-31"'), ('"ended": "2', '"ended": "9')],
)
def test_a_report_with_a_day_that_is_none_is_refused(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, was: str, becomes: str
) -> None:
    excused = finding("waived", waiver={"reason": "r", "owner": "o", "expires": "2099-02-01"})
    played(monkeypatch, outcome(excused))
    invoke("check", "--format", "json:x.json")
    text = Path("x.json").read_text()
    assert was in text
    Path("x.json").write_text(re.sub(r'"ended": "9\d{3}-\d\d', '"ended": "9999-99', text.replace(was, becomes)))
    done = invoke("report", "--from", "x.json")
    assert done.exit_code == 1
    assert "does not begin with a date" in done.output


class TestProve:
    """The plugin's pure parts."""

    @pytest.mark.parametrize(
        ("fixtures", "hosts"),
        [
            (["nodes", "servers", "agents"], ["s1", "s2", "a1"]),
            (["server", "servers"], ["s1"]),
            (["servers"], ["s1", "s2"]),
            (["agent", "agents"], ["a1"]),
            (["agent", "kubectl", "server", "servers"], ["s1", "a1"]),
            ([], ["s1"]),
        ],
    )
    def test_an_attack_is_about_the_hosts_of_its_fixtures(self, fixtures: list[str], hosts: list[str]) -> None:
        assert recording.targets(fixtures, ["s1", "s2"], ["a1"]) == hosts

    def test_the_worst_attack_decides(self) -> None:
        attacks = [
            {"status": "pass", "code": "", "said": "", "claim": "root is refused", "node": "t.py::test_a[x]"},
            {
                "status": "fail", "code": "broken", "said": "assert 0 == 255", "claim": "root is refused",
                "node": "t.py::test_a[y]",
            },
        ]  # fmt: skip
        found = prove.conclude(CONTROL, attacks)
        assert (found["status"], found["code"], found["reason"]) == ("fail", "broken", "assert 0 == 255")
        assert found["evidence"] == "t.py::test_a (2 cases)"
        assert prove.conclude(CONTROL, attacks[:1])["observed"] == "withstood 1 attack"

    @pytest.mark.parametrize(
        ("said", "code", "reason"),
        [
            ("Skipped: api_semantics: a double", "api_semantics", "api_semantics: a double"),
            ("Skipped: no tool here", "skipped", "skipped: no tool here"),
            ("", "skipped", "skipped: without a reason"),
        ],
    )
    def test_a_skip_has_a_code(self, said: str, code: str, reason: str) -> None:
        assert recording.skipped(said) == (code, reason)

    def test_only_a_waiver_that_holds_excuses(self) -> None:
        import datetime

        given = {"reason": "r", "owner": "o", "expires": datetime.date(2026, 2, 1)}
        failing = finding("fail", reason="got in")
        assert waiver.excused(failing, given, datetime.date(2026, 2, 1))["status"] == "waived"
        late = waiver.excused(failing, given, datetime.date(2026, 2, 2))
        assert (late["status"], "expired" in late["reason"]) == ("fail", True)
        assert waiver.excused(finding("pass"), given, datetime.date(2026, 2, 2))["waiver"] is None


@pytest.mark.parametrize(
    ("fixtures", "undisturbed", "lanes"),
    [
        (["nodes", "servers", "agents", "request"], False, ["s1", "a1"]),
        (["genuine", "running", "nodes", "servers", "agents"], False, ["s1", "a1"]),
        (["genuine", "running", "nodes", "servers", "agents"], True, [recording.LAST]),
        (["kubectl", "api", "server", "nodes", "servers", "agents"], False, [recording.TOGETHER]),
        (["kubectl", "api", "server", "nodes", "servers", "agents"], True, [recording.LAST]),
        (["api", "server", "servers", "agent", "agents"], False, [recording.TOGETHER]),
        (["servers", "agents"], False, [recording.TOGETHER]),
        (["server", "servers"], False, [recording.TOGETHER]),
    ],
)
def test_only_attacks_on_each_host_by_itself_are_in_the_lanes_of_hosts(
    fixtures: list[str], undisturbed: bool, lanes: list[str]
) -> None:
    every = ["s1", "a1", recording.TOGETHER, recording.LAST]
    assert [lane for lane in every if recording.is_in(lane, fixtures, undisturbed)] == lanes
    assert recording.is_in(None, fixtures, undisturbed)


ATTACKS = """
import os, pytest
@pytest.fixture
def nodes(): return ["s1", "a1"]
@pytest.fixture
def server(): return "s1"
def note(name): open(os.environ["NOTES"], "a").write(f"{name} {os.environ.get('CASEMATE_PROVE_LANE')!r}\\n")
@pytest.mark.control("SSH-ROOT-REFUSED")
def test_each_host(nodes): note("each"); assert os.environ.get("CASEMATE_PROVE_LANE") != "a1"
@pytest.mark.undisturbed
@pytest.mark.control("SSH-ROOT-REFUSED")
def test_alone(nodes): note("alone")
@pytest.mark.control("FW-SSH-LISTED")
def test_first(server): note("first")
"""


def lanes(folder: Path, hosts: list[str], *more: str) -> tuple[str, Any, list[str]]:
    """What the lanes of these hosts end with and write, and which attack ran in which lane."""
    folder = folder / str(len(list(folder.iterdir())))  # each run has a folder of its own
    folder.mkdir()
    (folder / "test_attacks.py").write_text(ATTACKS)
    (folder / "hosts.ini").write_text("[k3s_server]\ns1\n[k3s_agent]\na1\n")
    command = [sys.executable, "-m", "pytest", "-p", recording.__name__, "-p", "no:cacheprovider", "-q", "--tb=no",
               f"--ansible-inventory={folder / 'hosts.ini'}", str(folder / "test_attacks.py"), *more]  # fmt: skip
    environment = {**os.environ, **runner.environment(str(folder)), "NOTES": str(folder / "notes")}
    trouble, read = prove.run_lanes(command, environment, hosts, folder, verbose=True)
    return trouble, read, (folder / "notes").read_text().splitlines() if (folder / "notes").exists() else []


def test_each_host_is_attacked_by_itself_beside_what_takes_several(tmp_path: Path) -> None:
    trouble, read, ran = lanes(tmp_path, ["a1", "s1"])
    assert (trouble, sorted(ran)) == ("", ["alone '!'", "each 'a1'", "each 's1'", "first '*'"])
    assert ran[-1] == "alone '!'", "what must not be disturbed waits for all others"
    hosts = prove.judged(read)
    assert [host["name"] for host in hosts] == ["s1", "a1"]
    found = {(host["name"], one["control"]): one["status"] for host in hosts for one in host["findings"]}
    assert found[("s1", "SSH-ROOT-REFUSED")] == "pass"
    assert found[("a1", "SSH-ROOT-REFUSED")] == "fail"


def test_a_host_without_ssh_is_unreachable_and_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever ssh says, such as of a jump host, its exit code 255 counts; dots of pytest stand in no line."""
    said = "CommandResult(backend=<testinfra.backend.ssh.SshBackend object at 0x7f>, exit_status=255, command=b'x', "
    said += "_stdout=b'', _stderr=b'kex_exchange_identification: closed\\r\\nConnection closed\\r\\n')"
    crash = f"raise RuntimeError({said!r})"
    attacks = ATTACKS.replace("def nodes(): return", f"def nodes(request):\n    {crash}\n    return")
    (tmp_path / "test_attacks.py").write_text(attacks)
    (tmp_path / "hosts.ini").write_text("[k3s_server]\ns1\n")
    command = [sys.executable, "-m", "pytest", "-p", recording.__name__, "-p", "no:cacheprovider", "-q", "--tb=no",
               f"--ansible-inventory={tmp_path / 'hosts.ini'}", str(tmp_path / "test_attacks.py")]  # fmt: skip
    environment = {**os.environ, **runner.environment(str(tmp_path)), "NOTES": str(tmp_path / "notes")}
    _, read = prove.run_lanes(command, environment, ["s1"], tmp_path, verbose=False)
    assert [host["status"] for host in prove.judged(read)] == ["unreachable"]
    lines = [line for line in capfd.readouterr().err.splitlines() if "s1" in line]
    assert lines[0] == "s1: unreachable: kex_exchange_identification: closed; Connection closed"
    assert len(lines) == 2 and lines[1].startswith("3/3 s1 withstood: first")


def test_one_host_takes_one_process(tmp_path: Path) -> None:
    trouble, _, ran = lanes(tmp_path, ["s1"])
    assert (trouble, sorted(ran)) == ("", ["alone None", "each None", "first None"])


def test_lanes_without_an_attack_are_no_trouble_where_another_has_one(tmp_path: Path) -> None:
    assert lanes(tmp_path, ["a1", "s1"], "-k", "first")[0::2] == ("", ["first '*'"])
    assert lanes(tmp_path, ["a1", "s1"], "-k", "none")[0] == "found no attack to run"
    assert lanes(tmp_path, ["a1", "s1"], "--no-such-option")[0] == "was called wrongly"


def test_connections_are_kept_open_where_ansible_keeps_them(tmp_path: Path) -> None:
    """Without the folder, which a fresh controller lacks, each of some hundred commands would log in anew."""
    (tmp_path / "ansible.cfg").write_text(f"[ssh_connection]\ncontrol_path_dir = {tmp_path}/settled\n")
    settled = {"ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg")}
    assert prove.connections(settled) == f"{tmp_path}/settled"
    assert prove.connections({**settled, recording.CONNECTIONS: f"{tmp_path}/asked/for"}) == f"{tmp_path}/asked/for"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("settled", "asked/for")] == [0o700, 0o700]
    (tmp_path / "file").touch()
    assert prove.connections({**settled, recording.CONNECTIONS: f"{tmp_path}/file/no"}) == f"{tmp_path}/file/no"


def test_each_attack_is_named_with_its_end() -> None:
    said: list[str] = []
    recorder = recording.Recorder("unused")
    recorder.show = said.append
    recorder.servers, recorder.agents = ["s1"], ["a1", "a2", "a3"]
    recorder.about = {"t.py::test_root_is_refused[key\x1b]": ((), ["server"]), "t.py::test_it_holds": ((), ["nodes"])}
    for name, outcome in (("root_is_refused[key\x1b]", "failed"), ("it_holds", "passed")):
        recorder.pytest_runtest_logreport(
            pytest.TestReport(f"t.py::test_{name}", ("", 0, ""), {}, outcome, None, "call")  # type: ignore[arg-type]
        )
    assert said == ["1/2 s1 error: root is refused (key\\x1b)", "2/2 4 hosts withstood: it holds"]


def test_a_plan_is_printed_step_by_step_and_takes_none(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    run = outcome(finding("pass"))
    run.steps = ["restart n1", "join n2"]
    asked: dict[str, Any] = {}

    def fake(*given: Any, **more: Any) -> runner.Run:
        asked.update(more, given=given)
        return run

    monkeypatch.setattr(runner, "play", fake)
    done = invoke("apply", "--plan", "-i", "n1,")
    assert done.exit_code == 0, done.output
    assert "1. K3s: restart n1\n2. K3s: join n2" in done.output
    assert asked["check"] is True
    assert asked["given"][3] == {"__casemate_foresees": True}


def test_a_plan_says_that_nothing_is_due_only_of_hosts_that_answered(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, outcome(finding("pass")))
    assert "1. nothing" in invoke("apply", "--plan", "-i", "n1,").output
    played(monkeypatch, outcome(status="unreachable"))
    done = invoke("apply", "--plan", "-i", "n1,")
    assert (done.exit_code, "nothing" in done.output) == (3, False)


def test_a_shell_completes_verbs_by_the_line_of_the_readme() -> None:
    (variable,) = re.findall(r'`eval "\$\((\w+)=bash_source casemate\)"`', (ROOT / "README.md").read_text())
    asked = {variable: "bash_complete", "COMP_WORDS": "casemate boot", "COMP_CWORD": "1"}
    done = CliRunner().invoke(cli.main, [], env=asked, prog_name="casemate")
    assert done.output.split() == ["plain,bootstrap"]


JOBS, PROGRAMS, EVERYWHERE = "HOST-JOBS-VOUCHED", "HOST-PROGRAMS-VOUCHED", "HOST-SETUID-EVERYWHERE"


@pytest.mark.parametrize(
    ("given", "named", "scans"),
    [
        (("--evict", JOBS), [JOBS], False),
        (("--evict", f"{JOBS.lower()},{PROGRAMS}", "--evict", JOBS), [JOBS, PROGRAMS], False),
        (("--evict", EVERYWHERE), [EVERYWHERE], True),
    ],
)
def test_what_is_named_is_told_to_the_run(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], named: list[str], scans: bool
) -> None:
    calls = played(monkeypatch, outcome(finding("pass")))
    assert invoke("apply", "-i", "n1,", *given).exit_code == 0
    assert invoke("apply", "-i", "n1,", "--plan", *given).exit_code == 0
    variables = {"__casemate_evict": named, **({"__casemate_scan": True} if scans else {})}
    assert [call[3] for call in calls] == [variables, {"__casemate_foresees": True, **variables}]


def test_what_was_evicted_is_told_with_its_copies(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    run = outcome(finding("pass", PROGRAMS))
    there = [finding("fail", JOBS, where=paths) for paths in (["/etc/cron.d/x", "/etc/cron.d/y"], ["/etc/cron.d/y"])]
    run.hosts["n1"].passes[JOBS] = there
    played(monkeypatch, run)
    done = invoke("apply", "-i", "n1,", "--evict", f"{JOBS},{PROGRAMS},{EVERYWHERE}")
    assert f"evicted n1: {JOBS}: removed /etc/cron.d/x; copies lie below /var/lib/casemate/evicted" in done.output
    assert f"{EVERYWHERE} is judged on no host of this run" in done.output
    assert PROGRAMS not in done.output


def test_a_plan_says_what_would_be_evicted(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    goes = finding("fail", JOBS, kind="vouched", action="would_change", where=["/etc/cron.d/x", "/etc/cron.d/y"])
    stays = finding("fail", PROGRAMS, kind="vouched", action="blocked", reason="/usr/bin/x: it is a package's")
    run = outcome(goes, stays)
    run.hosts["n1"].roles_to_apply = ["k3s_host"]
    played(monkeypatch, run)
    done = invoke("apply", "-i", "n1,", "--plan", "--evict", f"{JOBS},{PROGRAMS}")
    assert (
        f"2. evict from n1 what {JOBS} names: /etc/cron.d/x, /etc/cron.d/y\n3. evict from n1 what can go" in done.output
    )
    assert done.exit_code == 0


@pytest.mark.parametrize(
    ("broken", "code", "says"), [(["file", "lease"], 0, "is ended (file, lease)"), ([], 1, "no host")]
)
def test_a_lock_is_ended_by_its_holder_s_name(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, broken: list[str], code: int, says: str
) -> None:
    run = runner.Run(hosts={"n1": runner.Host("n1"), "n2": runner.Host("n2", "unreachable", "no route")})
    run.results = {"n1": {"broken": broken}}
    calls = played(monkeypatch, run)
    done = invoke("unlock", "bob@there:8", "-i", "n1,")
    assert done.exit_code == code and says in done.output
    assert "n2: no route" in done.output and "n1: not" not in done.output
    assert calls[0][:4] == ("unlock.yml", ("n1,",), None, {"__casemate_unlocks": "bob@there:8"})
