"""What the runner makes of ansible-runner's events."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
from rich.console import Console
from unit import made

from casemate import ROOT
from casemate.report import findings
from casemate.run import advice, runner


def result(*found: dict[str, Any], accepted: tuple[str, ...] = (), **rest: Any) -> dict[str, Any]:
    return {"findings": list(found), "accepted": list(accepted), **rest}


def finding(status: str, **rest: Any) -> dict[str, Any]:
    return made.finding(status, **rest)


def event(kind: str, host: str = "n1", task: str = "Engine | Judge", **data: Any) -> runner.Event:
    return {"event": kind, "event_data": {"host": host, "task": task, **data}}


STATS = {"event": "playbook_on_stats", "event_data": {"failures": {}, "dark": {}}}


def run(*events: runner.Event) -> runner.Run:
    made = runner.Run()
    for one in events:
        made.record(one)
    return made


def test_plan_role_and_verify_make_one_finding() -> None:
    made = run(
        event("runner_on_ok", res=result(finding("fail", action="would_change", observed="a"), accepted=("kernel",))),
        event("runner_on_ok", res=result(finding("pass", action="changed", before="a", observed="b"))),
        event("runner_on_ok", res=result(finding("pass", observed="b"), left_out=["C-D"])),
        STATS,
    )
    (host,) = made.entries()
    assert host["status"] == "ok"
    assert [(f["action"], f["before"], f["after"]) for f in host["findings"]] == [("changed", "a", "b")]
    assert made.hosts["n1"].left_out == ["C-D"]


def test_findings_that_come_as_text_are_the_same() -> None:
    found = [finding("pass", action="changed", observed=["a", None]), finding("fail", reason="\u202e \udce9")]
    as_text = run(event("runner_on_ok", res=result() | {"findings": json.dumps(found)}), STATS)
    assert as_text.entries() == run(event("runner_on_ok", res=result(*found)), STATS).entries()
    assert as_text.hosts["n1"].changed == {found[0]["control"]}


def test_what_is_shown_while_a_run_goes_on_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settling all findings of 500 hosts takes longer than the time between two looks."""
    seen = run(
        event("runner_on_ok", res=result(finding("fail", action="would_change"))),
        event("runner_on_ok", res=result(finding("pass", action="changed"), finding("pass", action="none"))),
    )
    monkeypatch.setattr(runner, "settle", lambda passes: pytest.fail("settled before the end"))
    console = Console(file=io.StringIO(), width=100)
    console.print(runner.table(seen))
    assert "1 changed" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_accepted_reasons_of_a_host_come_with_its_findings() -> None:
    assert run(event("runner_on_ok", res=result(finding("pass"), accepted=("kernel",)))).hosts["n1"].accepted == [
        "kernel"
    ]


def test_an_unreachable_host_is_unreachable_and_says_what_to_do() -> None:
    made = run(
        event("runner_on_unreachable", res={"msg": "Task failed: ssh: connect to host n1 port 22: Connection refused"}),
        {"event": "playbook_on_stats", "event_data": {"dark": {"n1": 1}}},
    )
    (host,) = made.entries()
    assert host["status"] == "unreachable"
    assert host["message"].startswith("ssh: connect")
    assert "ansible_host" in host["message"]


def test_a_failed_task_is_an_error_with_its_message() -> None:
    made = run(
        event("runner_on_failed", task="Preflight", res={"msg": "Nothing was changed.\n- x is wrong"}),
        {"event": "playbook_on_stats", "event_data": {"failures": {"n1": 1}}},
    )
    (host,) = made.entries()
    assert (host["status"], host["message"]) == ("error", "Preflight: Nothing was changed.\n- x is wrong")


def test_a_failure_that_stopped_a_host_is_told_as_it_was_said_there_beside_the_last_findings() -> None:
    made = run(
        event("runner_on_ok", res=result(finding("not_evaluated", reason="k3s: node agent1 is not Ready"))),
        event("runner_on_failed", task="Install", res={"msg": "No space left on device"}),
        event("runner_on_ok", res=result(finding("pass"))),
        event("runner_on_failed", task="Outcome", res={"msg": "Hosts: Install: No space", "repeated": True}),
        {"event": "playbook_on_stats", "event_data": {"failures": {"n1": 1}}},
    )
    (host,) = made.entries()
    assert (host["status"], [f["status"] for f in host["findings"]]) == ("error", ["pass"])
    assert host["message"].startswith("Install: No space left on device\n-> free some disk space")


def test_the_same_message_of_several_hosts_is_told_once() -> None:
    made = run(*(event("runner_on_failed", host=name, res={"msg": "no"}) for name in ("n1", "n2")))
    assert made.messages() == [("Engine | Judge: no", ["n1", "n2"])]


def test_an_ignored_or_rescued_failure_is_none() -> None:
    ignored = run(
        event("runner_on_failed", ignore_errors=True, res={}), event("runner_on_ok", res=result(finding("pass"))), STATS
    )
    assert ignored.entries()[0]["status"] == "ok"
    rescued = run(
        event("runner_on_ok", res=result(finding("pass"))), event("runner_on_failed", res={"msg": "x"}), STATS
    )
    assert rescued.entries()[0]["status"] == "ok"


def test_a_run_that_ended_early_says_nothing_good_of_any_host() -> None:
    made = run(event("runner_on_ok", res=result(finding("pass"))))  # and then Ansible was killed
    (host,) = made.entries()
    assert (host["status"], host["message"]) == ("error", runner.UNSETTLED)
    assert findings.exit_code(made.entries(), {}) == 1


def test_a_host_that_was_not_judged_is_not_ok() -> None:
    made = run(event("runner_on_ok", task="Preflight", res={}), STATS)
    assert (made.entries()[0]["status"], made.entries()[0]["message"]) == ("error", findings.STOPPED)


def test_a_failure_after_the_plan_keeps_the_findings() -> None:
    made = run(
        event("runner_on_ok", res=result(finding("fail", action="would_change"))),
        event("runner_on_failed", task="Install", res={"msg": "no space"}),
    )
    (host,) = made.entries()
    assert (host["status"], len(host["findings"])) == ("error", 1)


@pytest.mark.parametrize(
    ("said", "explanation"),
    [
        ({"censored": "hidden", "msg": "s3cret"}, "hidden"),
        ({"msg": "", "results": [{"failed": True, "msg": "second"}, {"msg": "fine"}]}, "second"),
        ({"msg": ["one", "two"]}, "one\ntwo"),
        ({"msg": "Missing sudo password"}, "NOPASSWD"),
        ({"msg": "[Errno 28] No space left on device"}, "free some disk"),
        ({"msg": "crash", "module_stderr": "Traceback\nValueError: x"}, "ValueError: x"),
        ({}, "without a message"),
    ],
)
def test_a_failure_is_explained(said: dict[str, Any], explanation: str) -> None:
    text = advice.explain(said)
    assert explanation in text
    assert "s3cret" not in text


def test_ansible_s_own_errors_are_kept() -> None:
    made = run({"event": "verbose", "stdout": "\x1b[0;31m[ERROR]: the playbook is broken\x1b[0m"})
    assert made.errors == ["the playbook is broken"]


def test_a_broken_inventory_is_told_with_its_place() -> None:
    said = ["YAML parsing failed: a colon", "Origin: /tmp/i.yml:5:11", "", "Origin: /tmp/other.yml:1:1"]
    said.append("[ERROR]: Completely failed to parse inventory source /tmp/i.yml")
    made = runner.Run()
    for line in said:
        made.record({"event": "verbose", "stdout": f"\x1b[1;35m{line}\x1b[0m"})
    (error,) = made.errors
    assert error.endswith("\n-> /tmp/i.yml:5:11: YAML parsing failed: a colon")


def test_without_a_terminal_each_stage_is_one_line() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    made = runner.Run()
    with runner.progress(console, quiet=False) as watch:
        for stage in ("Plan", "Plan", "Servers", "Servers"):
            made.record({"event": "playbook_on_play_start", "event_data": {"name": "Empty"}})
            made.record({"event": "runner_on_skipped", "event_data": {"play": "Empty", "host": "server1"}})
            made.record({"event": "runner_on_ok", "event_data": {"play": stage, "host": "server1"}})
            watch(made)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "Plan …\nServers …\n"


def test_a_terminal_shows_each_host(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=80)
    console.print(runner.table(run(event("runner_on_start", host="node-7", task="Install"))))
    assert "node-7" in capsys.readouterr().out


class Done:
    rc, status = 0, "successful"


def test_the_project_s_settings_hold_and_nothing_stays_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def fake(**options: Any) -> Done:
        given.update(options, mode=os.stat(options["private_data_dir"]).st_mode & 0o777)
        options["event_handler"](event("runner_on_ok", res=result(finding("pass"))))
        return Done()

    monkeypatch.setattr(ansible_runner, "run", fake)
    monkeypatch.delenv("ANSIBLE_HOST_KEY_CHECKING", raising=False)
    made = runner.play("check.yml", ("hosts,",), "n1", {"a": 1})
    assert made.hosts["n1"].passes
    assert given["mode"] == 0o700
    assert not Path(given["private_data_dir"]).exists()
    assert given["envvars"]["ANSIBLE_CONFIG"] == str(ROOT / "ansible.cfg")
    assert given["envvars"]["ANSIBLE_HOST_KEY_CHECKING"] == "True"  # ansible-runner would turn it off
    assert (given["inventory"], given["limit"]) == (["hosts,"], "n1")


def test_an_interruption_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled:
        rc, status = 254, "canceled"

    def fake(**options: Any) -> Cancelled:
        options["event_handler"](event("runner_on_start"))
        return Cancelled()

    monkeypatch.setattr(ansible_runner, "run", fake)
    made = runner.play("check.yml", ())
    assert made.cancelled and not made.errors
    assert made.entries()[0]["message"] == "interrupted"


@pytest.mark.parametrize(
    ("message", "advised"),
    [
        ("Failed to connect to the host via ssh: connect to host a port 22: Connection refused", True),
        ("ssh: connect to host a port 22: No route to host", True),
        ("Nothing was changed.\n- the artifact lock is refused: the signature is missing", False),
    ],
)
def test_advice_fits_the_failure(message: str, advised: bool) -> None:
    assert ("->" in advice.explain({"msg": message})) is advised


def test_warnings_of_tasks_are_kept_once() -> None:
    seen = run(
        event("runner_on_ok", res={"warnings": ["even"]}), event("runner_on_ok", "n2", res={"warnings": ["even"]})
    )
    assert seen.warnings == ["even"]


def test_the_cause_that_a_tool_prints_is_advised_on() -> None:
    explanation = advice.explain(
        {"msg": "dpkg returned an error code (1)", "stdout": "cannot copy: No space left on device"}
    )
    assert explanation.endswith("-> free some disk space on this host")


def test_a_long_wait_says_which_hosts_wait_for_what_since_when() -> None:
    seen = run(
        event("runner_on_start", "server1", task="Unit | Wait for K3s after a start"),
        event("runner_on_start", "server2", task="Unit | Wait for K3s after a start"),
        event("runner_on_start", "agent1", task="Packages | Install what is missing"),
        event("runner_on_start", "agent2", task="Token | Write it"),
        event("runner_on_ok", "agent2", task="Token | Write it"),
    )
    began = {"server1": 0.0, "server2": 30.0, "agent1": 58.0}
    for name, since in began.items():
        seen.hosts[name].since = since
    assert runner.waits(seen, 60.0) == ["server1, server2: Unit | Wait for K3s after a start, for 60 s"]
    assert "for 60 s" in rendered(runner.table(seen, 60.0))
    assert runner.waits(seen, 63.0)[1] == "agent1: Packages | Install what is missing, for 5 s"


def rendered(table: Any) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_waits_are_told_by_themselves_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "WAIT", 0.01)
    asked = threading.Event()

    class Noting(io.StringIO):
        def write(self, text: str) -> int:
            if "server1: Engine | Judge, for" in text:
                asked.set()
            return super().write(text)

    seen = run(event("runner_on_start", "server1"))
    seen.hosts["server1"].since = -100.0
    with runner.progress(Console(file=Noting(), force_terminal=False), quiet=True) as watch:
        watch(seen)
        assert asked.wait(10)


def test_ansible_may_not_wait_for_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_ASK_VAULT_PASS", "true")
    made = runner.environment(str(tmp_path))
    assert {made[name] for name in runner.ASKING} == {"False"}


def test_folders_of_the_environment_come_beside_those_of_the_project() -> None:
    settled = (ROOT / "ansible.cfg").read_text()
    for name, folder in runner.FOLDERS.items():
        assert f"\n{name.removeprefix('ANSIBLE_').lower()} = {folder}\n" in settled


def test_what_an_operator_is_used_to_from_ansible_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths count from where casemate is called, and plugins and output of others may be named in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANSIBLE_VAULT_IDENTITY_LIST", "dev@vault")
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "yaml")
    for name in runner.FOLDERS:
        monkeypatch.setenv(name, "/nowhere")
    (tmp_path / "vault").write_text("secret\n")
    place = "ansible_host: 127.0.0.1, ansible_port: 1, casemate_admin_sources: [192.0.2.0/24]"
    (tmp_path / "hosts.yml").write_text(f"all: {{children: {{k3s_server: {{hosts: {{n1: {{{place}}}}}}}}}}}\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "config").write_text("Host *\n  HostName 127.0.0.2\n")
    (tmp_path / "group_vars/all.yml").write_text("ansible_ssh_common_args: -F config\n")
    vault = ["ansible-vault", "encrypt", "--encrypt-vault-id", "dev", "group_vars/all.yml"]
    subprocess.run(vault, check=True, capture_output=True)
    run = runner.play("check.yml", ("hosts.yml",))
    assert run.errors == []
    assert run.hosts["n1"].status == "unreachable", run.hosts["n1"].message
    assert "connect to host 127.0.0.2 port 1" in run.hosts["n1"].message


@pytest.mark.parametrize("named", [{"LC_ALL": "C"}, {"LC_ALL": "xx_YY.UTF-8"}, {"LC_ALL": "", "LC_CTYPE": "UTF-8"}, {}])
def test_ansible_has_a_locale_of_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: dict[str, str]) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert "LC_ALL" not in runner.environment(str(tmp_path))
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    made = {**os.environ, **runner.environment(str(tmp_path))}
    done = subprocess.run(["ansible-inventory", "-i", "n1,", "--list"], env=made, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("home", ["writable", "missing", "a file", "named"])
def test_ansible_has_a_folder_even_where_the_home_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    """As in a container without a home, or under a timer with ProtectHome=; root writes everywhere but into a file."""
    (tmp_path / "file").touch()
    for name in runner.HOMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / ("file/no" if home in ("missing", "named") else "home")))
    if home == "a file":
        (tmp_path / "home").mkdir()
        (tmp_path / "home/.ansible").touch()
    if home == "named":
        monkeypatch.setenv("ANSIBLE_HOME", "/srv/ansible")
    made = runner.environment("/tmp/private")
    lacks = {"ANSIBLE_HOME": "/tmp/private/home", "ANSIBLE_SSH_CONTROL_PATH_DIR": "/tmp/private/cp"}
    expected = {"writable": {}, "named": {"ANSIBLE_SSH_CONTROL_PATH_DIR": "/tmp/private/cp"}}.get(home, lacks)
    assert {name: made[name] for name in runner.HOMES if name in made} == expected
    assert (tmp_path / "home/.ansible").is_dir() == (home == "writable")
