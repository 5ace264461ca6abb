"""What no single run shows and no story with one server can: order, what stops a run, and what is never printed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from casemate import ROOT
from casemate.catalogue import declarations
from casemate.preflight import inputs
from module_utils.casemate.core.legible import public


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def flat(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks with those of their blocks."""
    inner = [one for task in tasks for part in ("block", "rescue", "always") for one in task.get(part, ())]
    return [*tasks, *(flat(inner) if inner else [])]


def tasks(path: str) -> list[dict[str, Any]]:
    return flat(load(path))


def test_no_failure_of_a_role_ends_the_run() -> None:
    """Whom a failure stops is tested by tests/unit/test_site.py, who is next by tests/unit/operations."""
    plays = {play["name"]: play for play in load("playbooks/site.yml")}
    assert list(plays) == ["Plan", "Hosts", "K3s", "Cluster", "Verify", "Outcome"]
    assert not any("serial" in play for play in plays.values()), "losing all hosts of a batch would end the run"
    blocks = [*plays["Hosts"]["tasks"], *plays["Cluster"]["tasks"], *load("playbooks/tasks/step.yml")[1:]]
    for block in blocks:
        assert [list(task.values())[-1].split("/")[-1] for task in block["rescue"]] == ["stop.yml"], block["name"]


@pytest.mark.parametrize("playbook", ["site.yml", "check.yml"])
def test_input_is_judged_before_any_host_is_touched(playbook: str) -> None:
    play = load(f"playbooks/{playbook}")[0]
    first = play["tasks"][0]
    assert "casemate_preflight" in first
    assert first.get("any_errors_fatal") is True or play.get("max_fail_percentage") == 0


def test_no_task_has_a_file_of_its_content_lie_in_a_home_for_a_moment() -> None:
    """Modules copy and template make ~/.ansible in the home of who comes in, with the content in it."""
    files = sorted((ROOT / "roles").glob("*/tasks/**/*.yml"))
    assert len(files) > 10
    for path in files:
        assert not re.search(r"(?m)^[ -]*(ansible\.builtin\.)?(copy|template):", path.read_text()), path


@pytest.mark.parametrize(
    ("before", "mode", "said"),
    [
        (None, 0, "written"),
        ("old", 0o600, "written"),
        ("K10::server:x", 0o644, "written"),
        ("K10::server:x", 0o600, ""),
    ],
)
def test_a_token_is_written_whole_for_its_owner_alone(tmp_path: Path, before: str | None, mode: int, said: str) -> None:
    for name, title in (("token", "Token | Write it"), ("registries", "Registries | Write logins")):
        (task,) = [one for one in tasks(f"roles/k3s_node/tasks/{name}.yml") if one["name"] == f"{title} for root only"]
        assert task["ansible.builtin.command"]["argv"][2] == "{{ __k3s_node_write_private }}" and task["no_log"] is True
    file = tmp_path / "token"
    if before is not None:
        file.write_text(before)
        file.chmod(mode)
    written = load("roles/k3s_node/vars/main/internal.yml")["__k3s_node_write_private"]
    script = written.replace("600:0:0", f"600:{os.getuid()}:{os.getgid()}")
    argv = ["sh", "-c", script, "sh", str(file)]
    done = subprocess.run(argv, input="K10::server:x", text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, said, "")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("K10::server:x", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_no_task_that_carries_a_token_prints_it() -> None:
    carries = {"ansible.builtin.slurp", "ansible.builtin.command"}
    carrying = [t for t in tasks("roles/k3s_node/tasks/token.yml") if carries & {*t}]
    assert len(carrying) == 2
    for task in carrying:
        assert task["no_log"] is True, task["name"]


@pytest.mark.parametrize(
    ("holders", "name", "asked"),
    [
        ([], "server1", ""),
        (["server1"], "server1", ""),
        (["server1", "server2"], "server1", "server2"),  # etcd has removed it, and its files are there still
        (["server2"], "server1", "server2"),
        (["server2", "server3"], "server1", "server2"),
        (["server1"], "agent1", "server1"),
        ([], "agent1", ""),
    ],
)
def test_a_host_without_data_asks_who_has_some_before_k3s_is_touched(holders: list[str], name: str, asked: str) -> None:
    """As the first server it would start a second cluster; the module refuses that, and what K3s would refuse."""
    assert tasks("roles/k3s_node/tasks/main.yml")[0]["ansible.builtin.include_tasks"] == "rejoin.yml"
    steps = tasks("roles/k3s_node/tasks/rejoin.yml")
    (question,) = [task for task in steps if "host" in task.get("k3s_rejoin", {})]
    last = [task["ansible.builtin.assert"] for task in steps[-4:] if "ansible.builtin.assert" in task]
    silence, answered, refusal = last
    assert answered["that"] == "__k3s_node_known.refusals is defined"
    assert silence["that"] == "__k3s_node_silent | length == 0"
    assert (question["register"], refusal["that"]) == ("__k3s_node_known", "__k3s_node_known.refusals | length == 0")
    given = load("roles/k3s_node/vars/main/internal.yml")["__k3s_node_holder"].removeprefix("{{").removesuffix("}}")
    holder = jinja2.Environment().compile_expression(given)(__k3s_node_holders=holders, inventory_hostname=name)
    assert holder == (asked or name)
    assert bool(
        jinja2.Environment().compile_expression(question["when"])(__k3s_node_holder=holder, inventory_hostname=name)
    ) is bool(asked)


@pytest.mark.parametrize(
    ("kind", "servers", "awaited"),
    [("server", 3, ["Ready", "EtcdIsVoter"]), ("server", 1, ["Ready"]), ("agent", 3, ["Ready"])],
)
def test_a_server_among_others_counts_as_up_only_when_it_votes(kind: str, servers: int, awaited: list[str]) -> None:
    waits = [t for name in ("unit", "back") for t in tasks(f"roles/k3s_node/tasks/{name}.yml") if "k3s_ready" in t]
    asked = [wait["k3s_ready"]["conditions"] for wait in waits if "conditions" in wait["k3s_ready"]]
    assert asked == ["{{ __k3s_node_conditions }}"] * 2
    conditions = load("roles/k3s_node/vars/main/internal.yml")["__k3s_node_conditions"]
    judge = jinja2.Environment().compile_expression(conditions.strip().removeprefix("{{").removesuffix("}}").strip())
    assert judge(__k3s_node_type=kind, groups={"k3s_server": ["s"] * servers}) == awaited


@pytest.mark.parametrize(
    ("runs", "stale", "foreseen", "goes_on"),
    [
        (True, True, True, True),
        (True, True, False, False),
        (True, False, False, True),
        (False, True, False, True),
    ],
)
def test_a_running_k3s_restarts_only_in_a_step_that_has_room_for_it(
    runs: bool, stale: bool, foreseen: bool, goes_on: bool
) -> None:
    steps = tasks("roles/k3s_node/tasks/unit.yml")
    gate = next(i for i, t in enumerate(steps) if "restarts" in str(t.get("ansible.builtin.assert")))
    (start,) = [i for i, t in enumerate(steps) if "ansible.builtin.systemd_service" in t]
    assert gate < start
    known: dict[str, Any] = {
        "ansible_check_mode": False, "__k3s_node_unit": "k3s.service", "__k3s_node_before": {"runs": runs},
        "__k3s_node_settled": {"stale": ["k3s.service"] if stale else []}, "__casemate_step": {"restarts": foreseen},
    }  # fmt: skip
    asked = jinja2.Environment().compile_expression(steps[gate]["when"])(**known)
    allowed = jinja2.Environment().compile_expression(steps[gate]["ansible.builtin.assert"]["that"])(**known)
    assert (not asked or allowed) is goes_on


WRITES = {"k3s_artifact", "k3s_controls", "ansible.builtin.copy", "ansible.builtin.file"}


def test_nothing_is_written_on_a_node_before_what_it_ran_with_was_kept() -> None:
    steps = load("roles/k3s_node/tasks/main.yml")
    order = [task for step in steps for task in step.get("block", [step])]
    begun = next(i for i, task in enumerate(order) if task.get("k3s_change", {}).get("state") == "begun")
    settled = next(i for i, task in enumerate(order) if task.get("k3s_change", {}).get("state") == "settled")
    writing = next(i for i, task in enumerate(order) if "files.yml" in str(task))
    starting = next(i for i, task in enumerate(order) if "unit.yml" in str(task))
    assert begun < writing < starting < settled
    assert not WRITES & {name for task in order[:writing] for name in task}
    (whole,) = [step for step in steps if "block" in step]
    assert "back.yml" in str(whole["rescue"])


def test_k3s_is_started_only_where_nothing_it_needs_was_refused() -> None:
    """By what the pass says, not by words that another error does not have."""
    files, unit = tasks("roles/k3s_node/tasks/files.yml"), tasks("roles/k3s_node/tasks/unit.yml")
    (refusal,) = [t["ansible.builtin.assert"] for t in files if "unsettled" in str(t.get("ansible.builtin.assert"))]
    judge = jinja2.Environment().compile_expression(refusal["that"])
    assert judge(__k3s_node_settled={"unsettled": []})
    assert not judge(__k3s_node_settled={"unsettled": ["No space left on device: /etc/x"]})
    names = [name for task in unit for name in task]
    joins = [i for i, task in enumerate(unit) if task.get("k3s_change", {}).get("joins")]
    barred = [i for i, task in enumerate(unit) if "barred" in str(task.get("ansible.builtin.assert"))]
    (start,) = [i for i, task in enumerate(unit) if "ansible.builtin.systemd_service" in task]
    assert joins and barred and max(*joins, *barred) < start and "k3s_change" in names
    text = (ROOT / "roles/k3s_node/templates/etc/systemd/system/k3s.service.j2").read_text()
    assert "AssertFileNotEmpty=/etc/rancher/k3s/config.yaml.d/casemate-k3s_node.yaml" in text


@pytest.mark.parametrize(
    ("back", "old", "says"),
    [
        ({"left": False}, {"skipped": True}, ""),
        ({"msg": "could not be put back: x"}, {"skipped": True}, "could not be put back: x"),
        (
            {"paths": ["/a", "/b"], "binary": "", "started": True},
            {"seconds": 1},
            "What was changed is back as it was (/a, /b), and k3s.service runs with it again.",
        ),
        (
            {"paths": ["/a"], "binary": "k3s stays", "started": True},
            {"msg": "K3s is not up: x"},
            "is back as it was (/a); k3s stays, but k3s.service does not come up with it either: K3s is not up: x",
        ),
        (
            {"paths": [], "binary": "", "started": False},
            {"skipped": True},
            "is back as it was (nothing), and k3s.service runs with it again.",
        ),
    ],
)
def test_what_is_said_of_going_back(back: dict[str, Any], old: dict[str, Any], says: str) -> None:
    expression = load("roles/k3s_node/vars/main/internal.yml")["__k3s_node_is_back"].strip()
    environment = jinja2.Environment()
    environment.tests["skipped"] = lambda result: bool(result.get("skipped"))
    judge = environment.compile_expression(expression.removeprefix("{{").removesuffix("}}").strip())
    said = judge(__k3s_node_unit="k3s.service", __k3s_node_back=back, __k3s_node_old=old)
    assert (said or "").endswith(says) and bool(said) is bool(says)


def test_the_unit_that_flushes_every_table_is_masked() -> None:
    (masking,) = [
        unit
        for task in tasks("roles/k3s_firewall/tasks/main.yml")
        if (unit := task.get("ansible.builtin.systemd_service", {})).get("name") == "nftables.service"
    ]
    assert masking["masked"] is True


def test_a_change_is_confirmed_by_a_connection_of_its_own() -> None:
    (login,) = [task for task in tasks("roles/k3s_access/tasks/confirm.yml") if "k3s_guard" in task]
    assert login["vars"]["ansible_ssh_args"].startswith("-o ControlMaster=no -o ControlPath=none ")


def reach(text: str, variables: dict[str, Any]) -> set[str]:
    """Every variable that an expression builds on, directly or through others."""
    found: set[str] = set()
    left = set(re.findall(r"\b_*k3s_\w+|\b_*casemate_\w+", text))
    while left:
        name = left.pop()
        found.add(name)
        left |= set(re.findall(r"\b_*k3s_\w+|\b_*casemate_\w+", str(variables.get(name, "")))) - found
    return found


def test_an_input_that_is_never_shown_stands_in_no_control_openly() -> None:
    secret = {name for name, spec in inputs.known_inputs().items() if inputs.is_secret(name, spec)}
    assert secret == {"k3s_node_config", "k3s_node_containerd_dropins"}
    variables = {name: value for part in declarations.variables() for name, value in part.items()}
    seen = set()
    for control in (control for controls in declarations.controls().values() for control in controls):
        setting = {k: v for k, v in control["setting"].items() if k not in ("sensitive", "node")}
        # Which node is meant is asked of K3s; a node's name is no secret.
        if reach(str(setting), variables) & secret:
            assert control["setting"].get("sensitive"), control["id"]
            seen.add(control["id"])
    assert len(seen) >= 2


@pytest.mark.parametrize("sensitive", [True, ["node-label"]])
def test_explain_shows_no_such_input(sensitive: Any) -> None:
    setting = (
        {"content": "CANARY"} if sensitive is True else {"options": {"node-label": ["CANARY"], "node-ip": "192.0.2.1"}}
    )
    shown = str(public({**setting, "path": "/etc/a", "sensitive": sensitive}))
    assert "CANARY" not in shown and "/etc/a" in shown
    assert sensitive is True or "192.0.2.1" in shown


def test_the_host_s_journal_and_ansible_s_output_never_get_the_controls() -> None:
    module = ast.parse((ROOT / "library/k3s_controls.py").read_text())
    (options,) = [node for node in ast.walk(module) if isinstance(node, ast.keyword) and node.arg == "argument_spec"]
    assert ast.literal_eval(options.value)["controls"]["no_log"] is True
    assert "given.pop('controls')" in ast.unparse(module)
