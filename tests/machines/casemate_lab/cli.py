"""`casemate lab`: machines to try Casemate on."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from casemate_lab import lab as machines
from casemate_lab.image import RELEASES, LabError, base, missing_tools, packages

NAME = click.option("--name", default="demo", show_default=True, help="The lab's name.")


def _plain(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a LabError into a message and exit code 1."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except LabError as error:
            raise click.ClickException(str(error)) from error

    return wrapped


@click.group()
def lab() -> None:
    """Start, enter and stop throw-away Debian machines on this host."""


@lab.command()
@NAME
@click.option("--servers", default=1, show_default=True, type=click.IntRange(0, 9), help="Machines in k3s_server.")
@click.option("--agents", default=1, show_default=True, type=click.IntRange(0, 9), help="Machines in k3s_agent.")
@click.option("--debian", default="12", show_default=True, type=click.Choice(list(RELEASES)), help="Their release.")
@click.option("--workdir", type=click.Path(path_type=Path, file_okay=False), help="Where inventory and keys go.")
@click.option("--vm", is_flag=True, help="Machines with a kernel of their own: slow, and for what only a kernel shows.")
@click.option("--here", is_flag=True, help="Use the network namespace of the caller (Molecule under unshare --net).")
@_plain
def up(**options: Any) -> None:
    """Start a lab and print the path of its inventory."""
    click.echo(machines.up(**options))


@lab.command()
@click.option("--debian", multiple=True, default=list(RELEASES), type=click.Choice(list(RELEASES)), help="Of which.")
@click.option("--vm", is_flag=True, help="Those of machines with a kernel of their own.")
@_plain
def prepare(debian: tuple[str, ...], vm: bool) -> None:
    """Make the cached images and packages now: a story that runs without a network cannot."""
    if fault := missing_tools(vm=vm):
        raise LabError(fault)
    for release in debian:
        packages(base(release, vm))


@lab.command()
@NAME
@_plain
def down(name: str) -> None:
    """Stop a lab and remove all of it but the cached image."""
    click.echo(f"lab {name} is down" if machines.down(name) else f"there is no lab {name}")


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_plain
def execute(name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND inside the network of lab NAME (casemate lab exec demo -- ansible -m ping all)."""
    argv = [*machines.enter(name), *(command[1:] if command[0] == "--" else command)]
    os.execvp(argv[0], argv)


@lab.command()
@click.argument("name")
@click.argument("machine")
@click.option("--hard", is_flag=True, help="Cut the power instead of shutting down.")
@_plain
def reboot(name: str, machine: str, hard: bool) -> None:
    """Reboot MACHINE of lab NAME and wait until it answers."""
    machines.reboot(name, machine, hard)


@lab.command()
def status() -> None:
    """List the labs and their machines."""
    for state in machines.labs():
        click.echo(f"{state['name']}: inventory {state['workdir']}/inventory.yml")
        for name, facts in state["machines"].items():
            click.echo(f"  {name} {facts['address']} {'runs' if machines.alive(facts) else 'is dead'}")
