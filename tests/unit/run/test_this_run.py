"""Who a run is to others, and when another one of this machine is over."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import time
from multiprocessing.connection import Connection
from typing import Any

import pytest

from casemate.run import this_run


def test_a_run_is_the_same_whoever_of_its_tasks_asks() -> None:
    one, two = this_run.holder(os.getpid(), "apply"), this_run.holder(os.getpid(), "apply")
    assert one == two
    assert re.fullmatch(r"[\w.@:-]+:\d+", one["name"], re.ASCII)
    assert this_run.holder(os.getppid(), "apply")["run"] != one["run"]


def test_a_name_is_one_word_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "a b;$(x)'\n\u00e9")
    assert re.fullmatch(r"[\w.@:-]+", this_run.holder(1, "apply")["name"], re.ASCII)


def test_a_run_of_this_machine_is_over_when_its_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        record = this_run.holder(process.pid, "apply")
        assert not this_run.is_over(record)
        assert this_run.is_over({**record, "started": "1"})  # the number is somebody else's now
        process.kill()
    assert this_run.is_over(record)
    assert not this_run.is_over({**record, "machine": "another"})
    assert not this_run.is_over({})
    hidden = {os.getpid(): "1"}  # hidepid: of another user's process nothing is there, and no signal reaches it
    monkeypatch.setattr(this_run, "started", lambda process: hidden.get(process, ""))
    monkeypatch.setattr(this_run, "_lives", lambda process: True)
    assert not this_run.is_over(record)
    monkeypatch.undo()
    monkeypatch.setattr(this_run, "started", lambda process: "")  # no /proc, as on a Mac
    assert this_run.is_over(record)
    assert not this_run.is_over({**record, "process": os.getpid()})


def test_runs_that_are_over_are_passed_by_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_run, "is_over", lambda record: bool(record) and record["run"] != "live")
    there = ["file's", "lease's"]

    def ask(gone: list[str]) -> dict[str, Any]:
        left = [run for run in there if run not in gone]
        return {"refused": "somebody has it", "record": {"run": left[0]}} if left else {"refused": ""}

    assert this_run.past_those_that_are_over(ask) == {"refused": ""}
    there.append("live")
    assert this_run.past_those_that_are_over(ask)["record"]["run"] == "live"


def say_whose_i_am(out: Connection) -> None:
    """What a worker of Ansible does: at once, and when the run was killed."""
    before = os.getppid()  # before it is killed, which what is sent asks for
    out.send((os.getpid(), this_run.process()))
    while os.getppid() == before:
        time.sleep(0.01)
    try:
        out.send(this_run.process())
    except RuntimeError as refused:
        out.send(str(refused))


def hand_on(out: Connection) -> None:
    """What ansible-playbook does."""
    multiprocessing.get_context("fork").Process(target=say_whose_i_am, args=(out,)).start()
    time.sleep(60)


def test_a_task_outlives_its_run_and_is_then_nobodys() -> None:
    received, out = multiprocessing.Pipe(duplex=False)
    run = multiprocessing.get_context("fork").Process(target=hand_on, args=(out,))
    run.start()
    worker, process = received.recv()
    assert process == run.pid != worker
    os.kill(process, signal.SIGKILL)
    assert received.poll(30)
    assert received.recv() == "The run that this task belongs to was killed, so the task does nothing."
    run.join()


def test_what_ansible_does_without_a_worker_is_its_own() -> None:
    assert this_run.process() == os.getpid()


def test_a_run_is_over_although_nobody_asked_for_its_end() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        record = this_run.holder(process.pid, "apply")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert this_run.is_over(record)
