"""Statements in the form of OpenVEX: what somebody who knows a product says of a vulnerability in it.

Source: https://github.com/openvex/spec (v0.2.0, and the form of names and products that v0.0.1 had).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packageurl import PackageURL

STATUSES = ("not_affected", "affected", "fixed", "under_investigation")
JUSTIFICATIONS = (
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
)
ANSWERS = ("not_affected", "fixed")
"""Statuses by which an advisory needs no other answer."""


class VexError(ValueError):
    """A file holds no statements of OpenVEX; the message names it and what to do."""


@dataclass(frozen=True)
class Product:
    """What a statement is about: package URLs that each name it, and those of the parts that it means, none for all."""

    names: tuple[PackageURL, ...]
    parts: tuple[PackageURL, ...]


@dataclass(frozen=True)
class Statement:
    """One statement. `names` are all names of the vulnerability; `why` is its reason."""

    names: frozenset[str]
    products: tuple[Product, ...]
    status: str
    why: str
    when: datetime.datetime


def load(path: Path) -> list[Statement]:
    """The statements of a file. Raises VexError."""
    try:
        raw = json.loads(path.read_bytes())
        if not isinstance(raw, Mapping) or "openvex" not in str(raw.get("@context", "")):
            raise ValueError("it has no @context of OpenVEX")
        return [_statement(one, raw) for one in raw["statements"]]
    except OSError as unread:
        raise VexError(f"{path} cannot be read: {unread.strerror}. Correct the path") from unread
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as odd:
        raise VexError(f"{path} holds no statements of OpenVEX: {odd}. Remove it, or fetch it again") from odd


def answer(
    statements: Iterable[Statement],
    vulnerability: Collection[str],
    component: Collection[PackageURL],
    product: Collection[PackageURL],
) -> Statement | None:
    """The statement by which an advisory about a component of a product needs no other answer, if there is one.

    A component is named itself, or as a part of its product, or with all of the product. Of several statements the
    newest counts.
    """
    about = [
        one
        for one in statements
        if not one.names.isdisjoint(vulnerability)
        and any(_is(named.names, component) or _holds(named, component, product) for named in one.products)
    ]
    newest = sorted(about, key=lambda one: one.when)[-1:]  # of the same time the last one
    return newest[0] if newest and newest[0].status in ANSWERS else None


def _holds(named: Product, component: Collection[PackageURL], product: Collection[PackageURL]) -> bool:
    return _is(named.names, product) and (not named.parts or _is(named.parts, component))


def _is(names: Iterable[PackageURL], known: Collection[PackageURL]) -> bool:
    """Whether one of the names, which may leave out version and qualifiers, means one of the known things."""
    return any(
        (name.type, name.namespace, name.name, name.subpath) == (one.type, one.namespace, one.name, one.subpath)
        and name.version in (None, one.version)
        and (name.qualifiers or {}).items() <= (one.qualifiers or {}).items()
        for name in names
        for one in known
    )


def _statement(raw: Mapping[str, Any], document: Mapping[str, Any]) -> Statement:
    said = raw["vulnerability"]
    named = said if isinstance(said, Mapping) else {"name": said}
    names = frozenset(map(str, [named["name"], *(named.get("aliases") or ())]))
    status, why = (
        raw["status"],
        raw.get("justification") or raw.get("impact_statement") or raw.get("status_notes") or "",
    )
    if status not in STATUSES:
        raise ValueError(f"{status!r} is no status; there are {', '.join(STATUSES)}")
    if status == "not_affected" and not (raw.get("justification") or raw.get("impact_statement")):
        raise ValueError(f"its statement on {named['name']} gives no reason why nothing is affected")
    if raw.get("justification") and raw["justification"] not in JUSTIFICATIONS:
        raise ValueError(f"{raw['justification']!r} is no justification; there are {', '.join(JUSTIFICATIONS)}")
    when = raw.get("last_updated") or raw.get("timestamp") or document.get("last_updated") or document["timestamp"]
    made = datetime.datetime.fromisoformat(str(when))
    made = made if made.tzinfo else made.replace(tzinfo=datetime.UTC)
    products = tuple(_product(one, raw.get("subcomponents") or ()) for one in raw.get("products") or ())
    return Statement(names, products, str(status), str(why), made)


def _product(raw: Any, of_all: Iterable[Any]) -> Product:
    """A product with its parts; `of_all` are those that v0.0.1 names beside all products."""
    named = [*of_all, *((raw.get("subcomponents") or ()) if isinstance(raw, Mapping) else ())]
    parts = tuple(url for one in named for url in _urls(one))
    # Parts that are called otherwise are not known here, and must not become all of the product.
    return Product(() if named and not parts else tuple(_urls(raw)), parts)


def _urls(raw: Any) -> list[PackageURL]:
    """The package URLs of a product or a part of it; what it is called otherwise is not known here."""
    said = [raw] if isinstance(raw, str) else [raw.get("@id"), (raw.get("identifiers") or {}).get("purl")]
    return [PackageURL.from_string(one) for one in said if isinstance(one, str) and one.startswith("pkg:")]
