"""Text of strangers: whatever a host says reaches reports and terminals as something to read, and as nothing else."""

from __future__ import annotations

import io
import json
import os
import unicodedata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from unit.fake_host import FakeHost
from unit.test_engine import control

from casemate.cli import app as cli
from casemate.report import findings, render
from casemate.run import runner
from module_utils.casemate.core.legible import legible, shown
from module_utils.casemate.engine import run as engine

HOSTILE = st.text(
    st.one_of(
        st.characters(),  # all of Unicode, lone surrogates too
        st.sampled_from("\x00\x07\x08\x0b\x0c\x1b\x7f\x85\x9b\r\u200b\u200e\u2028\u202e\u2066\ufeff\ufffe\udcff\ud800"),
    )
)
EXAMPLES = {
    b"\xff": "\\xff",
    b"\x1b[2J": "\\x1b[2J",
    "\u202egpj.exe".encode(): "\\u202egpj.exe",
    b"a\rb": "a\\x0db",
    b"[red]": "[red]",
    "größe ✓".encode(): "größe ✓",
    "\U000e0041".encode(): "\\U000e0041",
}


@pytest.mark.parametrize(("name", "read"), EXAMPLES.items(), ids=EXAMPLES.values())
def test_a_name_is_still_told_apart(name: bytes, read: str) -> None:
    assert shown(name.decode("utf-8", "surrogateescape")) == read


@given(HOSTILE)
def test_every_text_is_fit_for_files_markup_and_terminals(text: str) -> None:
    made = shown(text)
    made.encode()  # UTF-8 knows no lone surrogate
    ElementTree.fromstring(ElementTree.tostring(ElementTree.Element("a", b=made)))
    assert not [c for c in made if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert shown(made) == made


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


@given(
    st.recursive(HOSTILE | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(HOSTILE, inner))
)
def test_structures_keep_their_shape(value: Any) -> None:
    json.dumps(legible(value), ensure_ascii=False).encode()


def test_what_stands_in_several_places_is_looked_at_once() -> None:
    same = {"\x1b": ["\x07"]}
    one, other, third = legible([same, {"inner": same}, {"\x1b": ["\x07"]}])
    assert one is other["inner"]
    assert one == third == {r"\x1b": [r"\x07"]}


def hostile_report(text: str, verb: str = "check") -> findings.Report:
    """A report in which a stranger's text stands wherever it can."""
    made: findings.Finding = dict.fromkeys(findings.KEYS, text)
    made.update(control="SSH-ROOT-REFUSED", status="fail", action="none", mitigations=["T1.4"], observed={text: [text]})
    made.update(severity="high", level="baseline", code="differs", where=[text], refs={text: [text]})
    made["waiver"] = {"reason": text or "x", "owner": text or "x", "expires": "2020-01-01"}
    hosts = [findings.host_entry("n1", "error", [made], text or "x")]
    return findings.report(verb, findings.now(), hosts, {}, [text])


@given(HOSTILE)
def test_every_report_is_written_whatever_a_host_says(text: str) -> None:
    made = hostile_report(text)
    for form in render.FORMATS.values():
        form(made).encode()
    assert json.loads(render.as_json(made))["hosts"][0]["findings"][0]["reason"] == shown(text)
    ElementTree.fromstring(render.as_junit(made))


@pytest.mark.parametrize("text", ["\x1b[2J\x9b2J", "\udcff\x00", "\u202e", "[bold]no[/]", "[/]", "a\r\x1b]0;title\x07"])
def test_the_terminal_gets_no_text_raw(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "made-elsewhere.json"
    source.write_text(json.dumps(hostile_report(text)))
    invoked = CliRunner().invoke(cli.main, ["report", "--from", str(source), "--format", "html:r.html"])
    assert invoked.exit_code == 1
    assert shown(text) in invoked.output
    assert not {c for c in invoked.output if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - {"\n"}


def test_a_run_s_messages_and_live_lines_are_fit_for_a_terminal() -> None:
    run, console = runner.Run(), Console(file=io.StringIO(), force_terminal=False, width=200)
    run.record({"event": "runner_on_start", "event_data": {"host": "n\x1b[2J", "task": "T\u202e"}})
    console.print(runner.table(run))
    run.hosts["n\x1b[2J"].since = 0.0
    assert isinstance(console.file, io.StringIO)
    for printed in (console.file.getvalue(), *runner.waits(run, 60.0)):
        assert "n\\x1b[2J" in printed and "T\\u202e" in printed


def test_ansible_s_own_output_keeps_its_colours_only() -> None:
    assert runner.coloured("\x1b[0;31mfatal\x1b[0m \x1b[2J\udcff") == "\x1b[0;31mfatal\x1b[0m \\x1b[2J\\xff"


@pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")
@pytest.mark.parametrize("name", [b"\xff", b"\x1b[2J", "\u202e".encode(), b"two\nlines"])
def test_a_finding_names_the_file_whatever_it_is_called(tmp_path: Path, name: bytes) -> None:
    host = FakeHost(tmp_path, {"/etc/d/seed": ""})
    (tmp_path / "etc/d/seed").unlink()
    real = os.fsencode(tmp_path) + b"/etc/d/" + name
    with open(real, "wb"):
        os.chmod(real, 0o666)
    absent = control("FILE-D-EMPTY", {"kind": "file", "path": "/etc/d/*", "state": "absent", "enforced": False})
    modes = control("FILE-D-PRIVATE", {"kind": "file", "path": "/etc/d/?*", "mode_max": "0600"})
    for made in engine.run({"k3s_host": [absent, modes]}, host, True).findings:
        assert made["status"] == "fail"
        written = json.dumps(made, ensure_ascii=False)
        written.encode()
        assert json.dumps(shown("/etc/d/" + os.fsdecode(name)))[1:-1] in written
