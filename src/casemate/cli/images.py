"""`casemate images`: what nodes may run of images."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from casemate.cli import app, image_scan
from casemate.run.account import here
from casemate.supply import image_list, scan_gate
from module_utils.casemate.core import waiver
from module_utils.casemate.k3s.image_verifier import Entry, Images

DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def images() -> None:
    """Say which images nodes may pull."""


images.add_command(image_scan.scan)


@images.command()
@click.argument("references", nargs=-1, required=True, metavar="IMAGE@sha256:DIGEST...")
@click.option("--list", "path", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="The list of images, as casemate_image_list names it; made where there is none.")  # fmt: skip
@click.option("--until", required=True, type=DAY, metavar="DATE", help="The last day, in UTC, as YYYY-MM-DD.")
@click.option("--reason", required=True, metavar="TEXT", help="Why it may run.")
@click.option("--owner", metavar="NAME", help="Who answers for it. Default: who you are logged in as.")
@click.option("--expires", type=DAY, metavar="DATE",
              help="The last day of the whole list. Default: as it is; that of --until for a new one.")  # fmt: skip
@app.inventory_option
def allow(
    references: tuple[str, ...],
    path: Path,
    until: datetime.datetime,
    reason: str,
    owner: str | None,
    expires: datetime.datetime | None,
    inventories: tuple[str, ...],
) -> int:
    """Add images to the list of those that nodes may pull, and say how it is signed.

    With an inventory that has images scanned, only what was scanned lately, and passed, goes on it.
    """
    last, today = until.date(), waiver.today_in_utc()
    over = [f"{name} {day.date()}" for name, day in (("--until", until), ("--expires", expires)) if day]
    over = [said for said in over if datetime.date.fromisoformat(said[-10:]) < today]
    if over:
        raise click.UsageError(f"{over[0]} is over: today is {today} in UTC")
    said = {"owner": (here() if owner is None else owner).strip(), "reason": reason.strip()}
    if empty := next((name for name, value in said.items() if not value), ""):
        raise click.UsageError(f"--{empty} is empty: say who answers for the image, and why it may run")
    try:
        known = image_list.load(path) if path.exists() else Images((expires or until).date(), ())
        entries = [Entry(*image_list.named(one), said["owner"], said["reason"], last) for one in references]
    except image_list.ListError as refusal:
        raise click.ClickException(str(refusal)) from refusal
    if known.issued and today < known.issued:
        ahead = f"{path} was issued on {known.issued}, and the clock of this machine says {today}"
        raise click.ClickException(f"{ahead}: set that clock, since no node takes a list of a later day")
    _demand_scans(entries, inventories)
    made = image_list.added(known._replace(expires=expires.date() if expires else known.expires), entries, today)
    path.write_text(image_list.text(made), encoding="utf-8")
    for entry in entries:
        app.out.print(f"{path}: {entry.image}@{entry.digest} until {last}")
    if made.expires < today:
        app.err.print(f"{path} itself ended on {made.expires}: give it a new day by --expires")
    app.out.print(f"Review it, and sign it, which every change needs anew: {image_list.command(path)}")
    return 0


def _demand_scans(entries: list[Entry], inventories: tuple[str, ...]) -> None:
    """Raise ClickException for what the inventory would have scanned first; say so where there is no inventory."""
    try:
        app.demand(inventories)
    except app.NoInventoryError:
        app.err.print("Without -i INVENTORY it is not known whether these have to be scanned first")
        return
    asked, now = image_scan.of_inventory(inventories), datetime.datetime.now(datetime.UTC)
    refused = [scan_gate.refusal(one.digest, f"{one.image}@{one.digest}", asked, now) for one in entries]
    if any(refused):
        raise click.ClickException("Nothing goes on the list.\n" + "\n".join(filter(None, refused)))
