"""`casemate bootstrap`: make the account by which Casemate comes in, on machines as a provider hands them over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from casemate.cli import app
from module_utils.casemate.core.legible import legible


@click.command()
@click.option("--plan", is_flag=True, help="Print what would be done, and change nothing.")
@click.option("--first-user", metavar="ACCOUNT",
              help="Whom to log in as to make the account, such as debian.  [default: root]")  # fmt: skip
@click.option("--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="The private key of that login; left out: the one by which Casemate comes in later.")  # fmt: skip
@click.option("--public-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="The key that the account gets; left out: the one that ssh comes in with.")  # fmt: skip
@click.option("--keep-first-login", is_flag=True,
              help="Leave the first login open. Else root's key tells whom to come as, others end.")  # fmt: skip
@app.host_options
def bootstrap(
    plan: bool,
    first_user: str | None,
    key: Path | None,
    public_key: Path | None,
    keep_first_login: bool,
    verbose: int,
    limit: str | None,
    inventories: tuple[str, ...],
) -> int:
    """Make the account that the inventory names, over the first login of fresh machines.

    The account gets the key by which Casemate comes in, and sudo without a password; a fresh login proves both, or the
    host takes them back by itself. Then nobody needs the first login, which is closed. Where the account comes in
    already, nothing is done.
    """
    given = {
        "casemate_first_user": first_user,
        "casemate_first_key": str(key.resolve()) if key else None,
        "casemate_automation_key": str(public_key.resolve()) if public_key else None,
        "casemate_first_login": "keep" if keep_first_login else None,
    }
    variables = {name: value for name, value in given.items() if value}
    run = app.played("bootstrap.yml", inventories, limit, variables, verbose, plan)
    app.tell(run.errors, run.failures())
    for host in run.hosts.values():
        outcome = run.results.get(host.name, {}).get("bootstrap")
        if host.status == "ok" and outcome:
            app.out.print(legible(f"{host.name}: {said(outcome, plan)}"))
    return app.exit_code(run)


def said(outcome: Mapping[str, Any], plan: bool) -> str:
    """What became of a host, in words."""
    account, words = outcome["account"], ", ".join(outcome["words"])
    if not words:
        return f"{account} comes in and becomes root, so nothing is to be done"
    if plan:
        return f"would, as {outcome['first']}: {words} (key {outcome['fingerprint']})"
    return f"done as {outcome['first']}: {words} (key {outcome['fingerprint']}); a fresh login of {account} proves it"
