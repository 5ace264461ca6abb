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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from casemate import ROOT, __version__, catalogue
from casemate.catalogue import pages
from casemate.cli import evict as eviction
from casemate.preflight import inputs, inputs_page
from casemate.report import findings, render, words
from casemate.run import runner
from module_utils.casemate.core.legible import legible

VARIABLE = "ANSIBLE_INVENTORY"
CHECKOUT = (ROOT / "inventory").is_dir()
"""Whether the project is a checkout: with an inventory of its own, and with pages that are generated."""
INPUTS = ROOT / "docs" / "inputs.md"
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
INTERRUPTED = "interrupted: what was begun on a host is finished or taken back there; run it again"


def console(stderr: bool = False) -> Console:
    """A terminal that takes text as it is: a host, a path or an operator may have had a say in any of it."""
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


out, err = console(), console(stderr=True)


class Format(click.ParamType[tuple[str, Path]]):
    """`NAME:PATH`, such as `json:report.json`; `-` as the path is standard output."""

    name = "name:path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """Split and check one `--format`."""
        name, colon, path = str(value).partition(":")
        if name not in render.FORMATS or not colon or not path:
            self.fail(f"{value!r} is not NAME:PATH with a NAME of {', '.join(render.FORMATS)}", param, ctx)
        return name, Path(path).expanduser()  # a shell expands ~ at the beginning of a word alone


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
            err.print(f"Error: {failure.strerror or failure}: {failure.filename or ''}".rstrip(": "))
        sys.exit(1)


def run_options(verb: Verb) -> Verb:
    """What every verb takes that looks at hosts and reports what it found."""
    formats = click.option(
        "--format", "formats", type=Format(), multiple=True, metavar="NAME:PATH",
        help="Write a report as json, html or junit (repeatable); default: json and html in report/.",
    )  # fmt: skip
    return host_options(formats(verb))


def host_options(verb: Verb) -> Verb:
    """What every verb takes that looks at hosts."""
    verbose = click.option("-v", "--verbose", count=True, help="Show Ansible's own output; repeat for more.")
    return verbose(limit_option(inventory_option(verb)))


def inventory_option(verb: Verb) -> Verb:
    """`-i`, as every verb takes it."""
    default = "ANSIBLE_INVENTORY" + (", or that of ansible.cfg" if CHECKOUT else "")
    return click.option(
        "-i", "--inventory", "inventories", multiple=True, callback=check_inventories,
        help=f"Inventory file or folder, or `host,` (repeatable). Default: {default}.",
    )(verb)  # fmt: skip


def check_inventories(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a path that is not there, or that may not be read, of which Ansible says no reason."""
    for path in given:
        if "," not in path and not os.path.exists(path):
            raise click.BadParameter(f"there is no inventory at {path!r} (casemate init writes one)")
        if os.path.exists(path) and not os.access(path, os.R_OK):
            raise click.BadParameter(f"you may not read {path!r}: correct its owner or mode")
    return given


def limit_option(verb: Verb) -> Verb:
    """`--limit`, as every verb takes it that looks at hosts."""
    return click.option(
        "--limit", callback=check_limit, help="Only these hosts or groups (an Ansible pattern)."
    )(verb)  # fmt: skip


def check_limit(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    """Refuse an empty one, such as that of a variable that is not set: Ansible would go on with all hosts."""
    if given is not None and not given.strip():
        raise click.BadParameter("--limit is empty: name a host or group, or leave it out for all.")
    return given


class NoInventoryError(click.UsageError):
    """Nobody names an inventory."""


def demand(inventories: tuple[str, ...]) -> tuple[str, ...]:
    """The inventories that are given, or else those that ANSIBLE_INVENTORY names, with commas between them.

    Empty in a checkout, whose ansible.cfg names one; elsewhere it raises NoInventoryError then.
    """
    named = tuple(filter(None, os.environ.get(VARIABLE, "").split(",")))
    lacking = [path for path in named if not inventories and not os.path.exists(path)]
    if lacking:
        raise click.UsageError(f"{VARIABLE} names {lacking[0]!r}, where no inventory is (casemate init writes one)")
    if not inventories and not named and not CHECKOUT:
        raise NoInventoryError("there is no inventory: give -i INVENTORY (casemate init writes one)")
    return inventories or named


def demand_places(paths: Iterable[Path]) -> None:
    """Refuse paths that cannot be written to before the work whose outcome they are to have; `-` is standard output."""
    seen: set[Path] = set()
    for path in paths:
        if str(path) == "-":
            continue
        if why := render.unwritable(path):
            raise click.UsageError(f"{path} cannot be written: {why}. Name another place")
        if path.absolute() in seen:
            raise click.UsageError(f"{path} is named twice: give each report a place of its own")
        seen.add(path.absolute())


def warn_of_settings() -> None:
    """Say that an ansible.cfg is not read which Ansible would read here, but for the project's own."""
    path = os.environ.get("ANSIBLE_CONFIG") or "ansible.cfg"
    if os.path.isfile(path) and not os.path.samefile(path, ROOT / "ansible.cfg"):
        warn(f"{path} is not read, for Casemate has its own: set that in the inventory, or by ANSIBLE_ variables")


def warn(text: str) -> None:
    """Print what is no error, but has to be known."""
    err.print("warning ", style="yellow", end="")
    err.print(legible(text))


def played(
    playbook: str,
    inventories: tuple[str, ...],
    limit: str | None,
    variables: dict[str, Any] | None = None,
    verbose: int = 0,
    check: bool = False,
) -> runner.Run:
    """Run a playbook with its progress shown, and print its warnings.

    That it was interrupted, or came to no host, is among its errors.
    """
    asked = demand(inventories)
    warn_of_settings()
    with runner.progress(err, quiet=bool(verbose)) as watch:
        run = runner.play(playbook, asked, limit, variables, verbose, watch, check=check)
    if run.cancelled:
        run.errors.append(INTERRUPTED)
    elif not run.hosts and not run.errors:
        run.errors.append(runner.NO_HOST)
    for warning in run.warnings:
        warn(warning)
    return run


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
    if plan and given["formats"]:
        raise click.UsageError("--format is for what was found after an apply: a plan has no report.")
    return foresee(evict, **given) if plan else look("apply", "site.yml", None, evict, **given)


@main.command()
@click.option("--plan", is_flag=True, help="Print what would go back, and change nothing.")
@host_options
def revert(plan: bool, verbose: int, limit: str | None, inventories: tuple[str, ...]) -> int:
    """Take back what the last run changed on hosts: not packages, nor K3s, nor the cluster.

    A host goes back to what is now by itself where no fresh login confirms it.
    """
    run = played("revert.yml", inventories, limit, None, verbose, plan)
    tell(run.errors, run.messages())
    for host in (one for one in run.hosts.values() if one.status == "ok"):  # what nobody confirmed is undone again
        back, stay = host.reverted.get("back", []), host.reverted.get("stay", {})
        becomes = "would go back" if plan else "as it was before"
        said = [f"{becomes}: {', '.join(back)}"] if back else ["nothing to take back"]
        for why in dict.fromkeys(stay.values()):
            said.append(f"stays, since {why}: {', '.join(name for name in stay if stay[name] == why)}")
        for line in said:
            out.print(legible(f"{host.name}: {line}"))
    return exit_code(run)


@main.command()
@click.argument("name")
@limit_option
@inventory_option
def unlock(name: str, limit: str | None, inventories: tuple[str, ...]) -> int:
    """End the lock of a run that was killed, by its holder's NAME; whoever it kept out says it."""
    run = played("unlock.yml", inventories, limit, {"__casemate_unlocks": name})
    tell(run.errors, run.failures())
    ended = {host: result["broken"] for host, result in run.results.items() if result.get("broken")}
    for host, places in ended.items():
        out.print(f"{host}: the lock of {name} is ended ({', '.join(places)})")
    if not ended:
        err.print(f"On no host that answers is there a lock of {name}.")
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

    inventories = demand(given["inventories"])
    demand_places(path for _, path in given["formats"] or DEFAULT_FORMATS)
    started = findings.now()
    warn_of_settings()
    err.print("Prove …")
    hosts, accepted, trouble = proof.attack(inventories, given["limit"], pytest_arguments, bool(given["verbose"]))
    if not hosts:
        tell([trouble or runner.NO_HOST], [])
        return 1
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
        except (ValueError, RecursionError) as wrong:
            raise click.ClickException(f"{source} is not a Casemate report: {wrong}") from None
    made = read[0] if len(read) == 1 else findings.combine(read)
    return finish(made, formats or DEFAULT_FORMATS[1:], [])


@main.command()
@click.argument("name", metavar="[CONTROL|VARIABLE]", required=False)
@click.option("--all", "every", is_flag=True, help="The resolved controls of the hosts of --limit.")
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", show_default=True)
@limit_option
@inventory_option
def explain(name: str | None, every: bool, shape: str, limit: str | None, inventories: tuple[str, ...]) -> int:
    """Say what a control demands, why, what it may break, and what it serves; or what a variable may be."""
    if bool(name) == every:
        raise click.UsageError("Name one control or variable, or ask for --all.")
    if name and limit:
        raise click.UsageError("--limit says whose controls --all shows: leave one of both out.")
    if name:
        is_variable = name.lower().startswith(inputs.PREFIXES)
        known = inputs.known_inputs() if is_variable else catalogue.load()
        asked = name.lower() if is_variable else name.upper()
        if asked not in known:
            what, near = "variable" if is_variable else "control", catalogue.nearest(asked, known)
            raise click.ClickException(f"there is no {what} {name!r}" + (f"; did you mean {near}?" if near else ""))
        as_text = inputs_page.text(asked, known[asked]) if is_variable else pages.text(known[asked])
        click.echo(json.dumps(known[asked], indent=2) if shape == "json" else as_text)
        return 0
    run = played("explain.yml", inventories, limit)
    if run.errors or any(host.status != "ok" for host in run.hosts.values()) or not run.results:
        tell(run.errors, run.messages())
        return 1
    resolved = {
        host: [{**control, "role": role} for role, controls in result["controls"].items() for control in controls]
        for host, result in run.results.items()
    }
    if shape == "json":
        click.echo(json.dumps(resolved.get(limit or "", resolved), indent=2))
        return 0
    for host, controls in resolved.items():
        click.echo(f"# {host}: {len(controls)} controls\n")
        click.echo("\n".join(pages.text(one) for one in controls))
    return 0


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Exit 1 when the page is stale; write nothing.")
def docs(only_check: bool) -> int:
    """Generate the pages of controls, techniques, benchmarks and inputs."""
    return pages.write_docs(only_check, {INPUTS: inputs_page.markdown(inputs.known_inputs())})


if CHECKOUT:  # else the pages would be written among the packages of Python
    main.add_command(docs)


def foresee(evict: tuple[str, ...], **given: Any) -> int:
    """Print what an apply would do step by step, and return the exit code."""
    variables = {"__casemate_foresees": True, **eviction.variables(evict)}
    run = played("site.yml", given["inventories"], given["limit"], variables, given["verbose"], True)
    tell(run.errors, run.messages())
    steps = [*runner.steps_of(run), *eviction.planned(run, evict)]
    code = exit_code(run)
    for number, step in enumerate(steps or (["nothing"] if code == 0 else []), 1):
        out.print(f"{number}. {legible(step)}")
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
    demand_places(path for _, path in given["formats"] or DEFAULT_FORMATS)
    started = findings.now()
    threading.Thread(target=render.warm, daemon=True).start()
    run = played(playbook, given["inventories"], given["limit"], variables, given["verbose"])
    for said in eviction.done(run, evict):
        out.print("evicted ", style="bold", end="")
        out.print(legible(said))
    hosts = run.entries()
    accepted = {host.name: host.accepted for host in run.hosts.values()}
    left_out = [control for host in run.hosts.values() for control in host.left_out]
    made = findings.report(verb, started, hosts, accepted, run.errors, left_out)
    if run.errors and not hosts:
        tell(run.errors, [])
        return 1
    return finish(made, given["formats"], [*((error, []) for error in run.errors), *run.messages()])


def finish(made: findings.Report, formats: tuple[tuple[str, Path], ...], messages: list[tuple[str, list[str]]]) -> int:
    """Print the summary, write the reports, and return the exit code.

    Where a report goes to standard output, nothing else does.
    Raises ClickException when the report does not fit its schema: nothing is written then.
    """
    made = render.fit(made)
    try:
        render.validate(made)
    except ValueError as wrong:
        raise click.ClickException(f"this is a bug, the report does not fit its schema: {wrong}") from None
    tell([], messages)
    said = err if any(str(path) == "-" for _, path in formats) else out
    failing: dict[tuple[str, str, str], list[str]] = {}
    for host in made["hosts"]:
        for finding in host["findings"]:
            if finding["status"] in ("fail", "error"):
                key = (finding["status"], finding["control"], words.difference(finding))
                failing.setdefault(key, []).append(host["name"])
    for (status, control, difference), names in list(failing.items())[:SHOWN]:
        said.print(f"{status:5} ", style=STYLE[status], end="")
        said.print(f"{control:32} {', '.join(names)}: {difference}")
    if len(failing) > SHOWN:
        said.print(f"… and {len(failing) - SHOWN} more in the report")
    for why, names in words.not_evaluated(made):
        said.print("not evaluated ", style="yellow", end="")
        said.print(f"{', '.join(names)}: {why}")
    for note in findings.notes(made["hosts"]):
        said.print("note  ", style="bold yellow", end="")
        said.print(note)
    left_out = made["summary"].get("left_out", [])
    if left_out:
        said.print("left out  ", style="yellow", end="")
        said.print(f"{len(left_out)} expensive: casemate check --scan judges them too")
    head = render.verdict(made)
    counts = ", ".join(f"{n} {render.LABELS[s]}" for s, n in made["summary"]["findings"].items() if n)
    changed = f"; {made['summary']['changed']} changed" if made["run"]["verb"] == "apply" else ""
    said.print(head["headline"], style=f"bold {STYLE[head['tone']]}", end="")
    said.print(f"  ({counts}{changed})" if counts else "")
    for name, path in formats or DEFAULT_FORMATS:
        if str(path) == "-":
            click.echo(render.FORMATS[name](made))
        else:
            render.write(path, render.FORMATS[name](made))
            err.print(f"{name} report: {path}", style="dim")
    return int(made["summary"]["exit_code"])


def tell(errors: list[str], messages: list[tuple[str, list[str]]]) -> None:
    """Print what stopped a run: each message once, with the hosts that it concerns."""
    for message, hosts in legible([*((error, []) for error in errors), *messages]):
        first, *rest = message.strip().split("\n")
        err.print("error ", style="bold red", end="")
        err.print((", ".join(hosts) + ": " if hosts else "") + first)
        for line in rest:
            err.print(f"      {line}")
