"""`casemate baseline`: record what nobody vouches for yet, for people to review and to keep beside their inventory.

The file is an inventory of its own, given to every command by a second `-i`. It names paths in groups that no other
inventory has, so that what is vouched for there adds up with what stands elsewhere.
"""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from casemate.cli import app
from casemate.run import waivers
from module_utils.casemate.core import waiver

GROUP = "casemate_baseline"
KINDS = ("addon_objects", "vouched", "vouched_entries", "vouched_objects", "vouched_rights", "vouched_state")
HEADER = """\
# What is read or run with root's rights, what hosts do, and what has power in the cluster, that no package, K3s or
# Casemate brought: what `casemate baseline` found.
# Vouch for a line only if you know it. What changes, or expires, is a finding again.
"""
Contents = dict[str, str]
"""Path, or what a host does -> its digest, or where a link leads to; or an object of the cluster, whose kind begins
with a capital -> the digest of what matters of it."""


def unvouched(findings: Iterable[Mapping[str, Any]]) -> Contents:
    """What the findings of one host say that nobody vouches for."""
    found: Contents = {}
    for one in findings:
        if one["kind"] in KINDS and one["status"] == "fail" and isinstance(one["observed"], Mapping):
            found.update(one["observed"])
    return dict(sorted(found.items()))


def everywhere(hosts: Mapping[str, Contents]) -> Contents:
    """What is the same on all hosts, and what is the cluster's, of which one host tells."""
    first = next(iter(hosts.values()), {}) if len(hosts) > 1 else {}
    same = {path: made for path, made in first.items() if all(one.get(path) == made for one in hosts.values())}
    every = ((name, made) for one in hosts.values() for name, made in one.items())
    return {**same, **{name: made for name, made in every if name[:1].isupper()}}


def inventory(before: Mapping[str, Any], hosts: Mapping[str, Contents], why: Mapping[str, str]) -> dict[str, Any]:
    """The inventory `before`, empty for a new one, with what the hosts have beyond it."""
    groups: dict[str, Any] = {name: dict(group or {}) for name, group in before.items()}
    shared = everywhere(hosts)
    own = {host: {path: made for path, made in found.items() if path not in shared} for host, found in hosts.items()}
    for names, contents in ((list(hosts), shared), *(([host], found) for host, found in own.items())):
        if not contents:
            continue
        group = GROUP if contents is shared else group_of(names[0], groups)
        made = groups.setdefault(group, {"hosts": {}, "vars": {}})
        made["hosts"] = {**(made.get("hosts") or {}), **dict.fromkeys(names)}
        entries = {path: {"digest": digest, **why} for path, digest in contents.items()}
        vouched = {**((made.get("vars") or {}).get(waivers.VOUCHED) or {}), **entries}
        made["vars"] = {**(made.get("vars") or {}), waivers.VOUCHED: dict(sorted(vouched.items()))}
    return groups


def group_of(host: str, groups: Mapping[str, Any]) -> str:
    """The group of a host by itself: of letters that Ansible takes, and never that of a host with a similar name."""
    base = f"{GROUP}_{re.sub('[^A-Za-z0-9_]', '_', host)}"
    names = (base, *(f"{base}_{number}" for number in range(2, len(groups) + 3)))
    return next(name for name in names if set(groups.get(name, {}).get("hosts") or [host]) == {host})


def text(groups: Mapping[str, Any]) -> str:
    """The file, a line for each part of an entry, so that a diff shows what is new."""
    return HEADER + yaml.safe_dump(dict(groups), sort_keys=False, width=1000, allow_unicode=True)


def read(path: Path) -> dict[str, Any]:
    """What an earlier baseline recorded; raises ClickException for a file that is something else."""
    if not path.exists():
        return {}
    try:
        known = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as wrong:
        raise click.ClickException(f"{path} is no YAML: {wrong}") from None
    if known is not None and not (isinstance(known, dict) and all(_is_group(*one) for one in known.items())):
        raise click.ClickException(f"{path} is no baseline; name another file by --output")
    return known or {}


def _is_group(name: Any, group: Any) -> bool:
    """Whether it is a group as `inventory` makes it, or what is left of one that somebody has edited."""
    parts = [group, *(group.get(part) for part in ("hosts", "vars") if isinstance(group, dict))]
    parts += [part.get(waivers.VOUCHED) for part in parts[2:] if isinstance(part, dict)]
    return str(name).startswith(GROUP) and all(isinstance(part or {}, dict) for part in parts)


def date(_: click.Context, __: click.Parameter, given: str) -> str:
    """A day that is yet to come."""
    try:
        until = datetime.date.fromisoformat(given)
    except ValueError:
        raise click.BadParameter(f"{given!r} is no date such as 2027-01-31") from None
    if until < waiver.today_in_utc():
        raise click.BadParameter(f"{given} has passed")
    return given


def words(_: click.Context, __: click.Parameter, given: str) -> str:
    """Something that a reviewer can read."""
    if not given.strip():
        raise click.BadParameter("it is empty")
    return given.strip()


@click.command()
@click.option("--owner", required=True, callback=words, help="Who vouches for it.")
@click.option("--reason", required=True, callback=words, help="Why it is there.")
@click.option(
    "--expires", required=True, callback=date, metavar="YYYY-MM-DD", help="Until when, to the end of that day."
)
@click.option("--scan", is_flag=True, help="Look at the bytes of all programs and libraries, too.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("baseline.yml"),
              show_default=True, help="The inventory to write, or to add to.")  # fmt: skip
@app.host_options
def baseline(owner: str, reason: str, expires: str, scan: bool, output: Path, **given: Any) -> int:
    """Record what nobody vouches for on the hosts, and change nothing on them."""
    app.demand_places([output])
    known = read(output)
    variables = {"__casemate_scan": True} if scan else None
    run = app.played("check.yml", given["inventories"], given["limit"], variables, given["verbose"])
    app.tell(run.errors, run.messages())
    hosts = {entry["name"]: unvouched(entry["findings"]) for entry in run.entries() if entry["findings"]}
    if run.errors or not hosts:
        return app.exit_code(run)
    left = {host: [path for path, made in found.items() if made == "special"] for host, found in hosts.items()}
    for host, paths in left.items():
        for path in paths:
            app.err.print(f"{host}: {path} is no file, and nobody can vouch for it: remove it")
            del hosts[host][path]
    count = sum(len(found) for found in hosts.values())
    if not count:
        app.out.print("There is nothing that nobody vouches for.")
    else:
        output.write_text(text(inventory(known, hosts, {"owner": owner, "reason": reason, "expires": expires})))
        path = shlex.quote(str(output))
        app.out.print(f"{output}: {count} more. Review it, commit it, and give it to every command by -i {path}")
    return app.exit_code(run)
