"""The machines of a lab that was applied, and what a report says of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from .patient import admitted


class Lab:
    """The machines of an inventory, and Casemate as an operator calls it on them."""

    def __init__(self, path: str, *more: str, seconds: int = 900) -> None:
        """Read who is who; `more` are inventories that say more than the lab's, `seconds` what a run may take."""
        given = yaml.safe_load(Path(path).read_text())["all"]
        self.path, self.known, self.seconds = path, given["vars"], seconds
        self.inventories = [word for inventory in (path, *more) for word in ("-i", inventory)]
        groups = {group: content["hosts"] for group, content in given["children"].items()}
        self.hosts = {name: facts["ansible_host"] for hosts in groups.values() for name, facts in hosts.items()}
        self.server, self.agent = (next(iter(groups[group]), "") for group in ("k3s_server", "k3s_agent"))

    def root(self, host: str, script: str) -> str:
        """Run a script as root on a host; it has to succeed."""
        argv = ["ssh", *self.known["ansible_ssh_common_args"].split(), "-o", "BatchMode=yes", "-o", "ControlPath=none"]
        argv += ["-i", self.known["ansible_ssh_private_key_file"], f"ops@{self.hosts[host]}", "sudo sh -e"]
        done = admitted(argv, input=script, text=True, timeout=300)
        assert done.returncode == 0, f"{host}: {script}: {done.stderr}"
        return str(done.stdout)

    def has_api(self) -> bool:
        """Whether a real K3s is installed: the double has no API server."""
        return "double" not in self.root(self.server, "k3s --version")

    def casemate(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """(exit code, report) of a run over all hosts."""
        with tempfile.TemporaryDirectory() as folder:
            report = f"{folder}/report.json"
            argv = [str(Path(sys.executable).with_name("casemate")), *arguments, *self.inventories]
            argv += [f"--format=json:{report}"]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=self.seconds, check=False)
            assert Path(report).exists(), done.stdout + done.stderr
            return done.returncode, json.loads(Path(report).read_text())

    def ends(self, code: int, *arguments: str) -> dict[str, Any]:
        """The report of a run over all hosts, which has to end with this code; else what is wrong there is said."""
        ended, report = self.casemate(*arguments)
        assert ended == code, failing(report)
        return report

    def reason(self, control: str, host: str) -> str:
        """Why a control fails on a host; nothing where it passes."""
        _, report = self.casemate("check", "--scan")
        (found,) = [
            finding
            for judged in report["hosts"]
            if judged["name"] == host
            for finding in judged["findings"]
            if finding["control"] == control
        ]
        assert found["status"] in ("pass", "fail"), found["reason"]
        return "" if found["status"] == "pass" else str(found["reason"])


def failing(report: dict[str, Any]) -> list[str]:
    """What a report says that is wrong, for the message of a test."""
    messages = [f"{host['name']}: {host['message']}" for host in report["hosts"] if host.get("message")]
    return messages + [
        f"{host['name']}: {one['control']}: {one['status']}: {one['reason']}"
        for host in report["hosts"]
        for one in host["findings"]
        if one["status"] in ("fail", "error")
    ]


def messages(report: dict[str, Any]) -> str:
    """What a report says of hosts beside their findings."""
    return " ".join(str(host.get("message") or "") for host in report["hosts"])
