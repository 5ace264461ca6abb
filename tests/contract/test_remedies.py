"""A remedy that a message names has to work: every command in a message of ours is listed here with what tries it.

A command stands in backticks. `tests/lab/test_remedies_lab.py` takes the commands out of the messages of a real cluster
and runs them as they stand; what is only to be looked at, or undoes nothing, is tried by a test of its own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from casemate import ROOT

LAB = "tests/lab/test_remedies_lab.py::"
RESTARTED = LAB + "test_a_finding_names_commands_that_mend_it"
REMEDIES = {
    "k3s kubectl delete node {}": LAB + "test_an_agent_that_was_wiped_joins_again_as_the_refusal_says",
    "k3s secrets-encrypt rotate-keys": RESTARTED,
    "k3s secrets-encrypt enable": RESTARTED,
    "systemctl restart k3s": RESTARTED,
    "systemctl stop k3s": RESTARTED,
    "systemctl start k3s": RESTARTED,
    "k3s certificate rotate --service admin": RESTARTED,
    "shred -u {}": RESTARTED,
    "k3s etcd-snapshot save": RESTARTED,
    "rm -r /var/lib/rancher/k3s/server": LAB + "test_a_server_with_a_cluster_of_its_own_joins_as_the_message_says",
    'echo \'{"ID": "{}"}\' | k3s kubectl create --raw /v3/cluster/member/remove {} -f -': LAB
    + "test_a_member_of_etcd_without_a_node_goes_as_the_finding_says",
    "casemate baseline": "tests/lab/test_baseline_lab.py::"
    "test_what_somebody_vouches_for_is_no_finding_until_it_changes",
    "casemate apply --evict {}": "tests/lab/test_evict_lab.py::"
    "test_what_is_named_goes_and_is_kept_and_a_killed_run_leaves_it",
    "casemate apply --limit": LAB + "test_an_agent_that_was_wiped_joins_again_as_the_refusal_says",
    "casemate unlock {}": "tests/lab/test_operations_lab.py::"
    "test_a_run_of_another_machine_keeps_this_one_out_until_its_lock_is_ended_by_name",
    "casemate lock renew": "tests/unit/test_lock_cli.py::test_a_lock_is_renewed",
    "casemate lock remove": "tests/unit/test_lock_cli.py::test_a_lock_of_before_gets_a_serial_and_keeps_what_it_has",
    "casemate explain {}": "tests/unit/test_cli.py::test_explain_one_control",
    "casemate explain ID": "tests/unit/test_cli.py::test_explain_one_control",
    "casemate explain --all --limit HOST": "tests/unit/test_cli.py::test_explain_all_prints_what_holds_for_the_host",
    "casemate lab up": LAB + "inventory",
    "casemate docs": "tests/contract/test_catalogue.py::test_the_generated_pages_are_fresh",
    "visudo -f {}": "tests/unit/kinds/test_account.py::test_sudo_that_cannot_be_asked_is_never_nobody",
    "kubectl label node": LAB + "test_labels_and_taints_are_set_by_hand",
    "kubectl taint node": LAB + "test_labels_and_taints_are_set_by_hand",
}
"""Command -> what tries it; {} stands for what a message fills in."""
NO_COMMANDS = {"key: value"}
MESSAGES = ("fail_msg", "msg", "advice")
"""Keys of tasks and controls that hold what is told."""


def texts_of_python(path: Path) -> Iterator[str]:
    """Every text of a module but its documentation, with {} for what is filled in."""
    tree = ast.parse(path.read_text())
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            silent |= {id(part) for part in ast.walk(node) if part is not node}
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield node.value


def texts_of_yaml(value: Any, is_message: bool = False) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from texts_of_yaml(one, is_message or key in MESSAGES)
    elif isinstance(value, list):
        for one in value:
            yield from texts_of_yaml(one, is_message)
    elif is_message and isinstance(value, str):
        yield value


def commands() -> dict[str, str]:
    """Command -> a file whose messages name it."""
    found: dict[str, str] = {}
    python = [
        path
        for folder in ("module_utils", "library", "src/casemate", "tests/machines")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for path in python:
        for text in texts_of_python(path):
            if text.count("\n") < 3:  # longer ones are programs and documentation of modules
                found.update(dict.fromkeys(in_backticks(text), str(path.relative_to(ROOT))))
    for path in [*(ROOT / "roles").rglob("*.yml"), *(ROOT / "playbooks").rglob("*.yml")]:
        for text in texts_of_yaml(yaml.safe_load(path.read_text())):
            found.update(dict.fromkeys(in_backticks(text), str(path.relative_to(ROOT))))
    return found


def in_backticks(text: str) -> list[str]:
    """Commands: what stands in backticks and has more than one word, with {} for what is filled in."""
    plain = re.sub(r"\{\{.*?\}\}|\{[^{}]*\}", "{}", text)
    return [one for one in re.findall(r"`([a-z][^`]*)`", plain) if " " in one and one not in NO_COMMANDS]


def test_every_command_in_a_message_is_tried() -> None:
    untried = {command: path for command, path in commands().items() if command not in REMEDIES}
    assert untried == {}, "try it on a machine, and list it in REMEDIES with the test that does"


def test_what_is_listed_is_still_told() -> None:
    assert set(REMEDIES) - set(commands()) == set()


@pytest.mark.parametrize("where", sorted(set(REMEDIES.values())))
def test_what_tries_a_command_is_there(where: str) -> None:
    path, _, name = where.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_commands_are_found_in_texts_that_are_told_only() -> None:
    assert in_backticks("run `k3s kubectl delete node {node}` and `{{ x }}`, then `state`") == [
        "k3s kubectl delete node {}"
    ]
    assert list(texts_of_yaml({"name": "`a b`", "x": {"fail_msg": "run `c d`"}})) == ["run `c d`"]
