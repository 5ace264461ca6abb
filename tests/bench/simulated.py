"""Hosts that are not there: Ansible does all of its work, and what it takes for ssh answers as hardened hosts would.

Only the controller works here, so any number of hosts costs what it would cost the controller: variables, templates,
workers, the module as it is sent, and the answer as it is read. The answers are those of a settled host, as large as
real ones: one finding for each control that holds there.
"""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

from module_utils.casemate.core.finding import finding

SERVERS = 3
SSH = r"""#!/bin/sh
# Takes ssh's arguments: the last one is the command, the one before it the host.
answers=ANSWERS
for last in "$@"; do before=$host; host=$last; done
command=$host host=$before
case " $* " in *" -G "*) exec ssh "$@" ;; esac
case $command in *BECOME-SUCCESS-*)
  key=${command#*BECOME-SUCCESS-}
  echo "BECOME-SUCCESS-${key%%[!a-z]*}" ;;
esac
case $command in
  *ENDFOUND*) printf '%s\n' FOUND /usr/bin/python3 ENDFOUND; exit ;;
  *casemate:*) sed "s/@HOST@/$host/g" "$answers/probe"; exit ;;
esac
module=$(grep -aoE "ansible_module='[a-z0-9_]+'" | head -n1)
case $module in
  *k3s_controls*)
    case $host in 127.18.0.*) kind=first ;; 127.18.1.*) kind=server ;; *) kind=agent ;; esac
    sed "s/@HOST@/$host/g" "$answers/$kind.json" ;;
  *ping*) echo '{"ping": "pong", "changed": false}' ;;
  *) echo '{"changed": false}' ;;
esac
"""
"""The connection plugin and all of its options are Ansible's own; `ssh -G`, which asks nobody, is the real ssh."""

ANSWER = {
    "uid": "0",
    "login": "ops",
    "machine": "x86_64",
    "os": "debian 12",
    "python": "3.11",
    **dict.fromkeys(("data", "binary", "state", "home", "etc"), "5000"),
    "writable": "yes",
    "installed": "yes",
    "source": "198.18.0.254",
    "host": '{"hostname": "@HOST@"}',
    "conflicts": '{"machine": "@HOST@", "key": "@HOST@"}',
}
"""What preflight is told by each host, by the name that it asks for."""


def hosts(count: int, folder: Path) -> Path:
    """Make `count` hosts that only answer, three of them servers, in an empty folder; return their inventory."""
    (folder / "ssh").write_text(SSH.replace("ANSWERS", str(folder)))
    (folder / "ssh").chmod(0o755)
    (folder / "probe").write_text("".join(f"casemate:{name}={answer}\n" for name, answer in ANSWER.items()))
    servers = {"first": "127.18.0.1", **{f"server-{at}": f"127.18.1.{at}" for at in range(2, SERVERS + 1)}}
    agents = {f"agent-{at}": f"127.18.{2 + at // 200}.{1 + at % 200}" for at in range(1, count - SERVERS + 1)}
    groups = {"k3s_server": servers, "k3s_agent": agents}
    given = {
        "ansible_user": "ops",
        "ansible_ssh_executable": str(folder / "ssh"),
        "casemate_admin_sources": ["198.18.0.0/24"],
    }
    inventory = folder / "hosts.yml"
    children = {
        group: {"hosts": {name: {"ansible_host": place, "k3s_node_ip": place} for name, place in there.items()}}
        for group, there in groups.items()
    }
    inventory.write_text(json.dumps({"all": {"vars": given, "children": children}}))  # JSON is YAML
    limit = f"first,server-{SERVERS},agent-1"
    command = ["casemate", "explain", "--all", "--format", "json", "-i", str(inventory), "--limit", limit]
    resolved = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    for name, controls in resolved.items():
        (folder / f"{name.partition('-')[0]}.json").write_text(json.dumps(settled(controls)))
    return inventory


def settled(controls: list[dict[str, Any]]) -> dict[str, Any]:
    """What the engine returns where each of these controls holds; one in five is told in the host's own words."""
    passing = []
    for at, control in enumerate(control for control in controls if control.get("vantage") != "controller"):
        expected = textwrap.shorten(json.dumps(control["setting"]), 200)
        where = [control["setting"]["path"]] if "path" in control["setting"] else []
        observed = expected if at % 5 else f"@HOST@: {expected}"
        passing.append(finding(control, "pass", expected=expected, observed=observed, where=where))
    nothing: dict[str, list[str]] = {
        name: [] for name in ("roles_to_apply", "stale", "unsettled", "barred", "left_out", "host_keys", "diff")
    }
    made = {"changed": False, "todo": {}, "runs_k3s": True, "change": False, "guard": False, **nothing}
    return {**made, "findings": json.dumps(passing)}
