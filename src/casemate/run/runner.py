"""Run the project's playbooks through ansible-runner and record, for each host, what they found.

Ansible's own output stays with Ansible unless `-v` asks for it: people see one line for each host, or, without
a terminal, one line for each stage.
"""

from __future__ import annotations

import contextlib
import locale
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from casemate import ROOT
from casemate.report.findings import STOPPED, Finding, host_entry, settle
from casemate.run import handed, scratch
from casemate.run.advice import ANSI, advised, explain, located
from module_utils.casemate.core.legible import legible, shown

Event = dict[str, Any]
SAYING = ("verbose", "error", "warning", "system_warning", "deprecated")
"""Events of what Ansible prints beside the results of tasks."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WAIT, MOMENT = 30, 5
"""Seconds between two looks at what is waited for, and from which a task is told as a wait."""
UNSEEN = {"ANSIBLE_DISPLAY_OK_HOSTS": "False", "ANSIBLE_NOCOLOR": "True"}
"""Spares Ansible output that nobody is shown: events are told all the same."""
LOCALES = ("C.UTF-8", "en_US.UTF-8")
"""Of these a system has one, which Ansible takes."""
IDENT = "run"
"""What ansible-runner calls the folder of the only run that it does for us."""
NO_PLUGIN = "no root 'plugin' key found"
"""What Ansible says first of any inventory in YAML that it cannot read, and of none is the cause."""
ASKING = ("ANSIBLE_ASK_PASS", "ANSIBLE_ASK_VAULT_PASS", "ANSIBLE_BECOME_ASK_PASS")
FOLDERS = {
    "ANSIBLE_ROLES_PATH": "roles",
    "ANSIBLE_LIBRARY": "library",
    "ANSIBLE_MODULE_UTILS": "module_utils",
    "ANSIBLE_ACTION_PLUGINS": "src/casemate/ansible/action",
    "ANSIBLE_LOOKUP_PLUGINS": "src/casemate/ansible/lookup",
}
"""What names folders in place of those of ansible.cfg -> the one of these that has to stay among them."""
HOMES = {"ANSIBLE_HOME": "home", "ANSIBLE_SSH_CONTROL_PATH_DIR": "cp"}
"""What names a folder of Ansible in the home -> the one in the run's folder. Source: ansible-doc -t connection ssh."""
NO_HOST = (
    "no host of k3s_server or k3s_agent is in this inventory and --limit. Put the hosts into these groups, or groups "
    "of other names into them as children"
)
UNSETTLED = "Ansible ended before the run was complete; what was begun is finished or rolled back there: run it again"


@dataclass
class Host:
    """What a run knows of one host so far; `since` is when it began its task, None while it does nothing.

    `changed` are the controls that a pass has changed: they are counted as they come, and settled once, in the end.
    `reverted` is what a revert takes back (`back`), and what it leaves, with the reason (`stay`).
    `gathered` is what the host is made of, as the module k3s_components says it.
    """

    name: str
    status: str = "ok"
    message: str = ""
    task: str = ""
    since: float | None = None
    passes: dict[str, list[Finding]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    accepted: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    roles_to_apply: list[str] = field(default_factory=list)
    reverted: dict[str, Any] = field(default_factory=dict)
    gathered: dict[str, Any] = field(default_factory=dict)
    lost: str = ""

    @property
    def findings(self) -> list[Finding]:
        """One finding for each control that any pass judged."""
        return [settle(passes) for passes in list(self.passes.values())]


@dataclass
class Run:
    """The outcome of a playbook: hosts by name, and why it ended early, if it did.

    `folder` is where workers leave findings that do not come as a part of their results; `known` are those read there.
    """

    hosts: dict[str, Host] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    stage: str = ""
    clue: str = ""
    _line: str = ""
    _open: bool = False
    folder: Path = Path()
    known: dict[str, Finding] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    cancelled: bool = False
    settled: bool = False
    steps: list[str] = field(default_factory=list)

    def record(self, event: Event) -> None:
        """Take in one ansible-runner event."""
        kind, data = event.get("event", ""), event.get("event_data") or {}
        if kind in SAYING:
            self._said(str(event.get("stdout") or ""))
        elif kind == "playbook_on_stats":
            self._stats(data)
        elif kind.startswith("runner_on_") and data.get("host"):
            self._host(kind, data)

    def entries(self) -> list[dict[str, Any]]:
        """The hosts as a report has them."""
        made = []
        for host in self.hosts.values():
            status, message = self._ended(host)
            made.append(host_entry(host.name, status, host.findings, message))
        return made

    def messages(self) -> list[tuple[str, list[str]]]:
        """Each distinct message once, with the hosts that it concerns."""
        told = ((self._ended(host)[1], host.name) for host in self.hosts.values())
        return _grouped((message, name) for message, name in told if message)

    def failures(self) -> list[tuple[str, list[str]]]:
        """The same of a command that judges nothing, in which a host that was settled without a finding is well."""
        return _grouped((host.message, host.name) for host in self.hosts.values() if host.status != "ok")

    def _ended(self, host: Host) -> tuple[str, str]:
        """How a host stands, and what is to be said of it."""
        if host.status == "ok" and not self.settled:  # what it found so far says nothing of how it ends
            return "error", "interrupted" if self.cancelled else UNSETTLED
        if host.status == "ok" and not host.passes:
            return "error", STOPPED
        return host.status, host.message

    def _host(self, kind: str, data: dict[str, Any]) -> None:
        host = self.hosts.setdefault(data["host"], Host(data["host"]))
        result = data.get("res") or {}
        self.warnings += [said for said in map(str, result.get("warnings") or ()) if said not in self.warnings]
        host.task = str(data.get("task") or host.task)
        host.since = time.monotonic() if kind == "runner_on_start" else None
        if kind not in ("runner_on_start", "runner_on_skipped"):  # it does something
            self.stage = str(data.get("play") or self.stage)
        if kind == "runner_on_unreachable" and "results" in result:
            host.lost = explain(result)  # one of many that were asked: Ansible's count says whether it was this host
            self._steps(result)
        elif kind == "runner_on_unreachable":
            host.status, host.message = "unreachable", explain(result)
        elif kind == "runner_on_failed" and result.get("repeated") and host.message:
            host.status = "error"  # what it says has been heard where it happened, with its advice
        elif kind == "runner_on_failed" and not data.get("ignore_errors"):
            host.status, host.message = "error", f"{host.task}: {explain(result)}"
        elif kind == "runner_on_ok":
            self.results[host.name] = result
            self._steps(result)
            if "back" in result and "stay" in result:
                host.reverted = {name: result[name] for name in ("back", "stay")}
            if "gathered" in result:
                host.gathered = next(iter(handed.lines(result["gathered"], self.folder)), {})
            if "findings" in result:
                host.accepted = list(result.get("accepted") or host.accepted)
                host.left_out = list(result.get("left_out") or ())
                host.roles_to_apply = list(result.get("roles_to_apply") or ())
                for made in handed.taken(result["findings"], self.folder, self.known):
                    host.passes.setdefault(made["control"], []).append(made)
                    if made["action"] == "changed":
                        host.changed.add(made["control"])

    def _steps(self, result: dict[str, Any]) -> None:
        """Take in what is decided, or foreseen, on the server that was asked last."""
        for one in result.get("results") or ():
            if isinstance(one, dict) and isinstance(one.get("step"), dict):
                self.stage, self.steps = f"K3s: {one['step'].get('sentence')}", list(one.get("steps") or ())

    def _stats(self, data: dict[str, Any]) -> None:
        """Ansible's own count has the last word: a failure that a rescue handled is none."""
        self.settled = True
        failed, dark = data.get("failures") or {}, data.get("dark") or {}
        for host in self.hosts.values():
            if host.name not in failed and host.name not in dark:
                host.status, host.message = "ok", ""
            elif host.status == "ok":
                host.status, host.message = "unreachable" if host.name in dark else "error", host.lost or UNSETTLED

    def _said(self, text: str) -> None:
        """Take in what Ansible says beside its events: an error, with the place and the cause that come with it."""
        for line in (ANSI.sub("", raw).strip() for raw in text.splitlines()):
            error = re.match(r"\[?ERROR[]!:]*\s*(.*)", line)
            origin = re.match(r"Origin: (?:<.* with source '(.*)'>|(.*))$", line)
            if error:
                message = error[1]
                if self.clue and "parse inventory source" in message:
                    message += f"\n-> {self.clue}"
                self.errors.append(message)
                self._open = True
            elif line.startswith("[WARNING]"):
                self._open = False
            elif origin and self._open:  # of the error: the innermost cause and its place come last
                head = self.errors[-1].partition("\n")[0]
                cause = "" if self._line in head else f": {self._line}"
                self.errors[-1] = f"{head}\n-> {origin[1] or origin[2]}{cause}"
            elif origin and NO_PLUGIN not in self._line:
                self.clue = self.clue or f"{origin[1] or origin[2]}: {self._line}"
            self._line = line or self._line


def _grouped(told: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Each message once, with all that it was told of; `told` has a message and a host."""
    grouped: dict[str, list[str]] = {}
    for message, host in told:
        grouped.setdefault(message, []).append(host)
    return list(grouped.items())


def play(
    playbook: str,
    inventories: tuple[str, ...],
    limit: str | None = None,
    variables: dict[str, Any] | None = None,
    verbosity: int = 0,
    watch: Callable[[Run], None] = lambda run: None,
    check: bool = False,
) -> Run:
    """Run `playbook` (a name in playbooks/) and return what it found; Ctrl-C ends it and is recorded.

    What ansible-runner and Ansible keep on disk while they run (arguments, events, files on their way) stands in a
    private folder that is removed afterwards. The environment, which may hold the operator's credentials, never does.
    """
    import ansible_runner  # here because it takes 0.3 s, which `casemate explain` need not pay

    run = Run()

    def handle(event: Event) -> bool:
        run.record(event)
        if verbosity and event.get("stdout"):
            print(coloured(event["stdout"]), flush=True)
        watch(run)
        return False  # nothing of the event is kept on disk

    with scratch.folder() as private, _swallowed(Path(private) / "artifacts" / IDENT / "command"):
        run.folder = Path(private, "findings")
        run.folder.mkdir(mode=0o700)
        done = ansible_runner.run(
            private_data_dir=private,
            ident=IDENT,
            project_dir=os.getcwd(),  # from where relative paths count in inventories, as for ansible-playbook
            playbook=str(ROOT / "playbooks" / playbook),
            inventory=[os.path.abspath(path) if os.path.exists(path) else path for path in inventories] or None,
            limit=limit,
            extravars=variables or None,
            cmdline="--check" if check else None,
            verbosity=verbosity or None,
            envvars={
                **environment(private),
                **({} if verbosity else UNSEEN),
                "ANSIBLE_HOST_KEY_CHECKING": os.environ.get(
                    "ANSIBLE_HOST_KEY_CHECKING", "True"
                ),  # else it turns it off
                "ANSIBLE_STDOUT_CALLBACK": "default",  # ansible-runner builds on it, and on few others
                handed.FOLDER: str(run.folder),
                "ANSIBLE_LOCAL_TEMP": os.path.join(private, "ansible"),  # what is copied to hosts passes through here
            },
            settings={"pexpect_timeout": 1, "suppress_ansible_output": True, "suppress_output_file": True},
            event_handler=handle,
        )
    run.cancelled = done.status == "canceled"
    if done.rc != 0 and not (run.errors or run.cancelled) and all(host.status == "ok" for host in run.hosts.values()):
        where = "before its end" if run.hosts else "before it came to any host"
        run.errors.append(f"ansible-playbook ended with {done.rc} {where}; -v shows its output")
    run.errors = [advised(located(error, inventories)) for error in run.errors]
    return run


def environment(private: str) -> dict[str, str]:
    """What Ansible gets besides the operator's environment, from `apply` as from `prove`.

    Plugins and roles of the operator's environment come beside ours. Ansible has no terminal of its own, so it must not
    wait for a password that nobody can type. Where it can't write into its own folder in the home, as
    in many a container and under a timer, it takes the run's folder `private` instead. Where the locale is none of
    UTF-8, or not there, as ssh hands on that of another machine, it takes one that is: it would end at once.
    """
    made = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        **dict.fromkeys(ASKING, "False"),
    }
    if not is_of_utf_8(""):
        made["LC_ALL"] = next(filter(is_of_utf_8, LOCALES), LOCALES[0])
    for name, folder in FOLDERS.items():
        if theirs := os.environ.get(name):
            made[name] = f"{ROOT / folder}{os.pathsep}{theirs}"
    if not has_home():
        made.update((name, os.path.join(private, folder)) for name, folder in HOMES.items() if not os.environ.get(name))
    return made


def is_of_utf_8(name: str) -> bool:
    """Whether there is a locale of that name, "" for that of the environment, and it is one of UTF-8."""
    kept = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, name)
        return str(locale.getlocale()[1]).replace("-", "").upper() == "UTF8"
    except (locale.Error, ValueError):
        return False
    finally:
        locale.setlocale(locale.LC_ALL, kept)


def has_home() -> bool:
    """Whether Ansible can write into its folder in the account's home, which is made where it lacks."""
    home = os.path.expanduser("~/.ansible")
    with contextlib.suppress(OSError):
        os.makedirs(home, mode=0o700, exist_ok=True)
    return os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK)


@contextlib.contextmanager
def _swallowed(path: Path) -> Iterator[None]:
    """Let nothing of what is written to `path` reach the disk: ansible-runner puts the whole environment there."""
    path.parent.mkdir(parents=True, mode=0o700)
    os.mkfifo(path, 0o600)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # now, so that no writer waits

    def swallow() -> None:
        while select.select([reading], [], []) and os.read(reading, 65536):
            pass

    thread = threading.Thread(target=swallow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(os.open(path, os.O_WRONLY))  # wakes it where nobody has written
        thread.join()
        os.close(reading)


def coloured(text: str) -> str:
    """Ansible's own output with its colours, and nothing else that a terminal would obey."""
    parts = COLOUR.split(text)
    colours = COLOUR.findall(text)
    return "".join(shown(part) + colour for part, colour in zip(parts, [*colours, ""], strict=True))


@contextlib.contextmanager
def progress(console: Console, quiet: bool) -> Iterator[Callable[[Run], None]]:
    """Show how a run goes: a live line for each host; without a terminal one for each stage and each long wait.

    `quiet` leaves all but the waits to Ansible's own output.
    """
    seen: list[Run] = []
    said: list[str] = []
    ended = threading.Event()

    def live() -> Table | str:
        return table(seen[0], time.monotonic()) if seen else ""  # asked for by itself: seconds pass without an event

    def see(run: Run) -> None:
        seen[:] = [run]

    if console.is_terminal and not quiet:
        with Live(console=console, refresh_per_second=4, transient=True, get_renderable=live):
            yield see
        return

    def line(run: Run) -> None:
        see(run)
        if run.stage and run.stage not in said and not quiet:
            said.append(run.stage)
            console.print(f"{run.stage} …")

    def tell_waits() -> None:
        while not ended.wait(WAIT):
            for wait in waits(seen[0], time.monotonic()) if seen else ():
                console.print(wait)

    thread = threading.Thread(target=tell_waits, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        ended.set()
        thread.join()


def steps_of(run: Run) -> list[str]:
    """What an apply would do, step by step, by what its plan found. Pure."""

    def with_any(*roles: str) -> list[str]:
        return [host.name for host in run.hosts.values() if set(roles) & set(host.roles_to_apply)]

    hosts, objects = with_any("k3s_host", "k3s_access", "k3s_firewall"), with_any("k3s_cluster")
    return [
        *([f"settle system, access and firewall of {', '.join(hosts)}"] if hosts else []),
        *(f"K3s: {step}" for step in run.steps),
        *([f"settle Kubernetes' objects on {', '.join(objects)}"] if objects else []),
    ]


def waits(run: Run, now: float) -> list[str]:
    """Which hosts are at which task for how many seconds: one line for each task, those of a moment left out. Pure."""
    grouped: dict[str, list[tuple[str, int]]] = {}
    for host in list(run.hosts.values()):
        if host.since is not None and now - host.since >= MOMENT:
            grouped.setdefault(host.task, []).append((host.name, int(now - host.since)))
    return [
        legible(f"{', '.join(name for name, _ in hosts)}: {task}, for {max(seconds for _, seconds in hosts)} s")
        for task, hosts in grouped.items()
    ]


def table(run: Run, now: float = 0.0) -> Table:
    """One line for each host: how it stands, what it does now, and, where that takes long, since when."""
    made = Table.grid(padding=(0, 2))
    made.title, made.title_justify = run.stage, "left"
    for host in list(run.hosts.values()):
        mark = {
            "ok": Text("●", "green"),
            "error": Text("✗ failed", "red"),
            "unreachable": Text("✗ unreachable", "red"),
        }
        changed = len(host.changed)
        seconds = 0 if host.since is None else int(now - host.since)
        doing = legible(host.task) + (f", for {seconds} s" if seconds >= MOMENT else "")
        made.add_row(mark[host.status], legible(host.name), f"{changed} changed" if changed else "", Text(doing, "dim"))
    return made
