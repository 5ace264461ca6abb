"""Whether a scan of an image lets it run: what the operator demands, held against what is known. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

from casemate.supply.scan_report import SEVERITIES, UNRATED, Advisory
from module_utils.casemate.core import waiver
from module_utils.casemate.core.flow import several

PASSED, VULNERABLE, OUTDATED, UNSCANNED = "passed", "vulnerable", "outdated", "unscanned"
"""How an image stands: a scan that counts found nothing, or something; no scan counts any more; there is none."""
AHEAD = datetime.timedelta(hours=1)
"""How far a time may lie in the future: the clocks of two machines differ."""


class Policy(NamedTuple):
    """From which severity an advisory counts, and whether only those do that something fixes; for how many days a
    result counts, and how old its database may have been, in days; waivers: id -> {reason, owner, expires}.
    """

    fails_from: str = "high"
    only_fixed: bool = True
    result_days: int = 7
    database_days: int = 3
    waivers: Mapping[str, Mapping[str, Any]] = {}

    def told(self) -> dict[str, Any]:
        """What of it is kept with a result."""
        return {**self._asdict(), "waivers": sorted(self.waivers)}


class Scan(NamedTuple):
    """What is kept of a scan of an image: what was scanned, by whom (name, version and sha256 of the scanner), with a
    database of when, when that was (both in UTC), and the advisories. `config` is the digest of the configuration of
    what was scanned, "" where the scanner does not say it. `whole`: the digest by which it is kept names that image
    itself, and no index that may lead to others, too.
    """

    image: str
    scanner: str
    version: str
    sha256: str
    database: datetime.datetime
    scanned: datetime.datetime
    advisories: tuple[Advisory, ...]
    config: str = ""
    whole: bool = False


class Standing(NamedTuple):
    """How an image stands: one of the words above, and why, in a sentence; "" where it passed."""

    state: str
    why: str


def standing(scan: Scan | None, policy: Policy, now: datetime.datetime) -> Standing:
    """How an image stands that was scanned so, or not at all."""
    if scan is None:
        return Standing(UNSCANNED, "it was not scanned")
    if max(scan.scanned, scan.database) > now + AHEAD:
        return Standing(
            OUTDATED, f"its scan says that it is of {_day(max(scan.scanned, scan.database))}, in the future"
        )
    age, behind = now - scan.scanned, scan.scanned - scan.database
    if age > datetime.timedelta(days=policy.result_days):
        limit = f"and counts for {policy.result_days} days"
        return Standing(OUTDATED, f"its scan is of {_day(scan.scanned)}, {limit}")
    if behind > datetime.timedelta(days=policy.database_days):
        limit = f"more than {policy.database_days} days before"
        return Standing(OUTDATED, f"the scanner's database was of {_day(scan.database)}, {limit} the scan")
    counting = [one for one in scan.advisories if counts(one, policy, now.date())]
    return Standing(VULNERABLE, several([_words(one) for one in counting])) if counting else Standing(PASSED, "")


def counts(advisory: Advisory, policy: Policy, today: datetime.date) -> bool:
    """Whether an advisory keeps an image from running. One that nobody has rated counts as high: it may be anything."""
    severity = "high" if advisory.severity == UNRATED else advisory.severity
    if SEVERITIES.index(severity) < SEVERITIES.index(policy.fails_from) or (policy.only_fixed and not advisory.fixed):
        return False
    return not waiver.holding(policy.waivers, today).keys() & {advisory.id, *advisory.aliases}


def _words(one: Advisory) -> str:
    fixed = f"fixed in {one.fixed}" if one.fixed else "not fixed yet"
    return f"{one.id} in {one.package} {one.installed} ({one.severity}, {fixed})"


def _day(moment: datetime.datetime) -> str:
    return moment.date().isoformat()
