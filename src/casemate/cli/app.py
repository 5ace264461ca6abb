"""The command line: init, bootstrap, apply, check, baseline, lock, sbom, advisories, images, prove, report, explain,
docs, lab.

Exit codes: 0 every finding is settled, 2 something fails or was not evaluated, 3 a host was unreachable,
1 the tool failed or was misused. The worst wins: 1, then 3, then 2.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from casemate import ROOT, __version__, catalogue
from casemate.catalogue import pages
from casemate.cli import evict as eviction
from casemate.report import findings, render, words
from casemate.run import runner
from module_utils.casemate.core.legible import legible

CHECKOUT = (ROOT / "inventory").is_dir()
"""Whether the project is a checkout: with an inventory of its own, and with pages that are generated."""
Verb = TypeVar("Verb", bound=Callable[..., Any])
DEFAULT_FORMATS = (("json", Path("report/report.json")), ("html", Path("report/report.html")))
STYLE = {"pass": "green", "waived": "cyan", "not_evaluated": "yellow", "fail": "red", "error": "bold red"}
LATER = {
    verb: module
    for verb, module in (
        ("init", "casemate.cli.init"),
        ("bootstrap", "casemate.cli.bootstrap"),
        ("baseline", "casemate.cli.baseline"),
        ("lock", "casemate.cli.lock"),
        ("sbom", "casemate.cli.sbom"),
        ("advisories", "casemate.cli.advisories"),
        ("images", "casemate.cli.images"),
        ("lab", "casemate_lab.cli"),
    )
    if importlib.util.find_spec(module.partition(".")[0])
}
"""Verb -> the module that has it, imported only when it is asked for. Users get no lab: it belongs to the tests."""
SHOWN = 60
"""Failing findings that are printed; the reports have all."""
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


class Format(click.ParamType[tuple[str, Path]]):
    """`NAME:PATH`, such as `json:report.json`; `-` as the path is standard output."""

    name = "name:path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """Split and check one `--format`."""
        name, colon, path = str(value).partition(":")
        if name not in render.FORMATS or not colon or not path:
            self.fail(f"{value!r} is not NAME:PATH with a NAME of {', '.join(render.FORMATS)}", param, ctx)
        return name, Path(path)


class Cli(click.Group):
    """Misuse exits 1: 2 is a finding here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, those that are imported only when they are asked for among them."""
        return [*super().list_commands(ctx), *LATER]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name."""
        if cmd_name in LATER:
            command: click.Command = getattr(importlib.import_module(LATER[cmd_name]), cmd_name)
            return command
        return super().get_command(ctx, cmd_name)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and turn every way of failing into a message and exit code 1."""
        kwargs["standalone_mode"] = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # no text of a host may end the run of a narrow terminal
        try:
            return sys.exit(super().main(*args, **kwargs) or 0)
        except click.ClickException as misuse:
            misuse.show()
        except (click.Abort, KeyboardInterrupt):
            err.print("Interrupted.")
        except OSError as failure:
            err.print(f"Error: {failure.strerror or failure}: {failure.filename or ''}".rstrip(": "), markup=False)
        sys.exit(1)


def run_options(verb: Verb) -> Verb:
    """What every verb that looks at hosts takes."""
    for option in (
        click.option("-v", "--verbose", count=True, help="Show Ansible's own output; repeat for more."),
        click.option("--format", "formats", type=Format(), multiple=True, metavar="NAME:PATH",
                     help="Write a report as json, html or junit (repeatable); default: both in report/."),
        click.option("--limit", help="Only these hosts or groups (an Ansible pattern)."),
        inventory_option,
    ):  # fmt: skip
        verb = option(verb)
    return verb


def inventory_option(verb: Verb) -> Verb:
    """`-i`, as every verb takes it."""
    default = "that of ansible.cfg" if CHECKOUT else "ANSIBLE_INVENTORY"
    return click.option(
        "-i", "--inventory", "inventories", multiple=True, callback=check_inventories,
        help=f"Inventory file or folder, or `host,` (repeatable). Default: {default}.",
    )(verb)  # fmt: skip


def check_inventories(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a path that is not there: Ansible would go on with no hosts."""
    for path in given:
        if "," not in path and not os.path.exists(path):
            raise click.BadParameter(f"there is no inventory at {path!r} (casemate init writes one)")
    return given


def demand(inventories: tuple[str, ...]) -> None:
    """Refuse to go without an inventory: only a checkout has one of its own, which its ansible.cfg names."""
    if not inventories and not os.environ.get("ANSIBLE_INVENTORY") and not CHECKOUT:
        raise click.UsageError("there is no inventory: give -i INVENTORY (casemate init writes one)")


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="casemate")
def main() -> None:
    """One command gives a hardened K3s cluster, and proves it."""


@main.command()
@click.option("--plan", is_flag=True, help="Print the steps that would be taken, and change nothing.")
@click.option("--evict", multiple=True, metavar="ID[,ID]", callback=eviction.ids,
              help="Remove what these controls name and nobody vouches for, and keep a copy (repeatable).")  # fmt: skip
@run_options
def apply(plan: bool, evict: tuple[str, ...], **given: Any) -> int:
    """Plan, change what differs, and verify."""
    return foresee(evict, **given) if plan else look("apply", "site.yml", None, evict, **given)


@main.command()
@click.option("--plan", is_flag=True, help="Print what would go back, and change nothing.")
@click.option("-v", "--verbose", count=True, help="Show Ansible's own output; repeat for more.")
@click.option("--limit", help="Only these hosts or groups (an Ansible pattern).")
@inventory_option
def revert(plan: bool, verbose: int, limit: str | None, inventories: tuple[str, ...]) -> int:
    """Take back what the last run changed on hosts: not packages, nor K3s, nor the cluster.

    A host goes back to what is now by itself where no fresh login confirms it.
    """
    demand(inventories)
    with runner.progress(err, quiet=bool(verbose)) as watch:
        run = runner.play("revert.yml", inventories, limit, None, verbose, watch, check=plan)
    tell(run.errors, run.messages())
    for host in (one for one in run.hosts.values() if one.status == "ok"):  # what nobody confirmed is undone again
        back, stay = host.reverted.get("back", []), host.reverted.get("stay", {})
        becomes = "would go back" if plan else "as it was before"
        said = [f"{becomes}: {', '.join(back)}"] if back else ["nothing to take back"]
        for why in dict.fromkeys(stay.values()):
            said.append(f"stays, since {why}: {', '.join(name for name in stay if stay[name] == why)}")
        for line in said:
            out.print(legible(f"{host.name}: {line}"), markup=False)
    return exit_code(run)


@main.command()
@click.argument("name")
@click.option("--limit", help="Only these hosts or groups (an Ansible pattern).")
@inventory_option
def unlock(name: str, limit: str | None, inventories: tuple[str, ...]) -> int:
    """End the lock of a run that was killed, by its holder's NAME; whoever it kept out says it."""
    demand(inventories)
    run = runner.play("unlock.yml", inventories, limit, {"__casemate_unlocks": name})
    tell(run.errors, [(host.message, [host.name]) for host in run.hosts.values() if host.status != "ok"])
    ended = {host: result["broken"] for host, result in run.results.items() if result.get("broken")}
    for host, places in ended.items():
        out.print(f"{host}: the lock of {name} is ended ({', '.join(places)})", markup=False)
    if not ended:
        err.print(f"On no host that answers is there a lock of {name}.", markup=False)
    return 0 if ended else 1


@main.command()
@click.option("--scan", is_flag=True, help="Include the expensive controls (cost: scan).")
@run_options
def check(scan: bool, **given: Any) -> int:
    """Judge every control, and change nothing."""
    return look("check", "check.yml", {"__casemate_scan": True} if scan else None, **given)


@main.command()
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
@run_options
def prove(pytest_arguments: tuple[str, ...], **given: Any) -> int:
    """Attack the hosts; what withstands is proven. Arguments after `--` go to pytest."""
    from casemate.prove import proof

    demand(given["inventories"])
    started = findings.now()
    hosts, accepted, trouble = proof.attack(
        given["inventories"], given["limit"], pytest_arguments, bool(given["verbose"])
    )
    made = findings.report("prove", started, hosts, accepted, [trouble] if trouble else [])
    return finish(made, given["formats"], [(trouble, [])] if trouble else [])


@main.command()
@click.option(
    "--from",
    "sources",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    default=(Path("report/report.json"),),
    show_default=True,
    help="A JSON report (repeatable: merged).",
)
@click.option("--format", "formats", type=Format(), multiple=True, metavar="NAME:PATH",
              help="Write it as json, html or junit (repeatable); default: html:report/report.html.")  # fmt: skip
def report(sources: tuple[Path, ...], formats: tuple[tuple[str, Path], ...]) -> int:
    """Render reports again, or merge those of apply, check and prove into one."""
    read = []
    for source in sources:
        try:
            read.append(findings.upgraded(json.loads(source.read_text())))
            render.validate(read[-1])
        except ValueError as wrong:
            raise click.ClickException(f"{source} is not a Casemate report: {wrong}") from None
    made = read[0] if len(read) == 1 else findings.combine(read)
    return finish(made, formats or DEFAULT_FORMATS[1:], [])


@main.command()
@click.argument("control", required=False)
@click.option("--all", "every", is_flag=True, help="The resolved controls of the hosts of --limit.")
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--limit", help="Host or Ansible pattern for --all.")
@inventory_option
def explain(control: str | None, every: bool, shape: str, limit: str | None, inventories: tuple[str, ...]) -> int:
    """Say what a control demands, why, what it may break, and what it serves."""
    if bool(control) == every:
        raise click.UsageError("Name one control, or ask for --all.")
    if control:
        known = catalogue.load()
        found = known.get(control.upper())
        if not found:
            hint = catalogue.nearest(control, known)
            raise click.ClickException(f"there is no control {control!r}" + (f"; did you mean {hint}?" if hint else ""))
        click.echo(json.dumps(found, indent=2) if shape == "json" else pages.text(found))
        return 0
    demand(inventories)
    run = runner.play("explain.yml", inventories, limit)
    if run.errors or any(host.status != "ok" for host in run.hosts.values()) or not run.results:
        tell(run.errors, run.messages())
        return 1
    resolved = {
        name: [{**control, "role": role} for role, controls in result["controls"].items() for control in controls]
        for name, result in run.results.items()
    }
    if shape == "json":
        click.echo(json.dumps(resolved.get(limit or "", resolved), indent=2))
        return 0
    for name, controls in resolved.items():
        click.echo(f"# {name}: {len(controls)} controls\n")
        click.echo("\n".join(pages.text(one) for one in controls))
    return 0


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Exit 1 when the page is stale; write nothing.")
def docs(only_check: bool) -> int:
    """Generate docs/controls.md from the catalogue."""
    return pages.write_docs(only_check)


if CHECKOUT:  # else the pages would be written among the packages of Python
    main.add_command(docs)


def foresee(evict: tuple[str, ...], **given: Any) -> int:
    """Print what an apply would do step by step, and return the exit code."""
    demand(given["inventories"])
    variables = {"__casemate_foresees": True, **eviction.variables(evict)}
    with runner.progress(err, quiet=bool(given["verbose"])) as watch:
        asked = (given["inventories"], given["limit"], variables, given["verbose"], watch)
        run = runner.play("site.yml", *asked, check=True)
    tell(run.errors, run.messages())
    steps = [*runner.steps_of(run), *eviction.planned(run, evict)]
    code = exit_code(run)
    for number, step in enumerate(steps or (["nothing"] if code == 0 else []), 1):
        out.print(f"{number}. {legible(step)}", markup=False)
    return code


def exit_code(run: runner.Run) -> int:
    """Of a command that judges nothing."""
    states = {host.status for host in run.hosts.values()}
    return 1 if run.errors or "error" in states or not states else 3 if "unreachable" in states else 0


def look(
    verb: str,
    playbook: str,
    variables: dict[str, Any] | None = None,
    evict: tuple[str, ...] = (),
    /,
    **given: Any,
) -> int:
    """Run a playbook, report what it found, and return the exit code. `evict` are controls whose files are removed."""
    variables = {**(variables or {}), **eviction.variables(evict)} or None
    demand(given["inventories"])
    started = findings.now()
    if given["limit"] is not None and not given["limit"].strip():
        raise click.UsageError("--limit is empty: name a host or group, or leave it out for all.")
    threading.Thread(target=render.warm, daemon=True).start()
    with runner.progress(err, quiet=bool(given["verbose"])) as watch:
        run = runner.play(playbook, given["inventories"], given["limit"], variables, given["verbose"], watch)
    if run.cancelled:
        run.errors.append("interrupted: what was begun on a host is finished or rolled back there; run it again")
    for warning in run.warnings:
        err.print("[yellow]warning[/] ", end="")
        err.print(legible(warning), markup=False)
    for said in eviction.done(run, evict):
        out.print("[bold]evicted[/] ", end="")
        out.print(legible(said), markup=False)
    hosts = run.entries()
    if not hosts and not run.errors:
        run.errors.append("no host of k3s_server or k3s_agent is in this inventory and --limit")
    accepted = {host.name: host.accepted for host in run.hosts.values()}
    left_out = [control for host in run.hosts.values() for control in host.left_out]
    made = findings.report(verb, started, hosts, accepted, run.errors, left_out)
    if run.errors and not hosts:
        tell(run.errors, [])
        return 1
    return finish(made, given["formats"], [*((error, []) for error in run.errors), *run.messages()])


def finish(made: findings.Report, formats: tuple[tuple[str, Path], ...], messages: list[tuple[str, list[str]]]) -> int:
    """Print the summary, write the reports, and return the exit code.

    Raises ClickException when the report does not fit its schema: nothing is written then.
    """
    made = render.fit(made)
    try:
        render.validate(made)
    except ValueError as wrong:
        raise click.ClickException(f"this is a bug, the report does not fit its schema: {wrong}") from None
    tell([], messages)
    failing: dict[tuple[str, str, str], list[str]] = {}
    for host in made["hosts"]:
        for finding in host["findings"]:
            if finding["status"] in ("fail", "error"):
                key = (finding["status"], finding["control"], words.difference(finding))
                failing.setdefault(key, []).append(host["name"])
    for (status, control, difference), names in list(failing.items())[:SHOWN]:
        out.print(f"[{STYLE[status]}]{status:5}[/] ", end="")
        out.print(f"{control:32} {', '.join(names)}: {difference}", markup=False)
    if len(failing) > SHOWN:
        out.print(f"… and {len(failing) - SHOWN} more in the report")
    for why, names in words.not_evaluated(made):
        out.print("[yellow]not evaluated[/] ", end="")
        out.print(f"{', '.join(names)}: {why}", markup=False)
    for note in findings.notes(made["hosts"]):
        out.print("[bold yellow]note[/]  ", end="")
        out.print(note, markup=False)
    left_out = made["summary"].get("left_out", [])
    if left_out:
        out.print(f"[yellow]left out[/]  {len(left_out)} expensive: casemate check --scan judges them too")
    head = render.verdict(made)
    counts = ", ".join(f"{n} {render.LABELS[s]}" for s, n in made["summary"]["findings"].items() if n)
    changed = f"; {made['summary']['changed']} changed" if made["run"]["verb"] == "apply" else ""
    out.print(f"[bold {STYLE[head['tone']]}]{head['headline']}[/]" + (f"  ({counts}{changed})" if counts else ""))
    for name, path in formats or DEFAULT_FORMATS:
        if str(path) == "-":
            click.echo(render.FORMATS[name](made))
        else:
            render.write(path, render.FORMATS[name](made))
            err.print(f"[dim]{name} report: {path}[/]")
    return int(made["summary"]["exit_code"])


def tell(errors: list[str], messages: list[tuple[str, list[str]]]) -> None:
    """Print what stopped a run: each message once, with the hosts that it concerns."""
    for message, hosts in legible([*((error, []) for error in errors), *messages]):
        first, *rest = message.strip().split("\n")
        err.print("[bold red]error[/] ", end="")
        err.print((", ".join(hosts) + ": " if hosts else "") + first, markup=False)
        for line in rest:
            err.print(f"      {line}", markup=False)
