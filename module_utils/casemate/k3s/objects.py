"""How objects of Kubernetes are compared: demanded fields, values at dotted paths, the subjects of a binding.

Pure. Empty fields count as absent, as the API server drops them. Of policies the whole `spec` is compared, because a
further rule, selector or end of a range of a NetworkPolicy admits more, and so does a condition, a selector or an
exclusion of one of admission.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.flow import flow, lists_apart, short

EMPTY: tuple[Any, ...] = (None, {}, [])
WHOLE = ("NetworkPolicy", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
FILLED_IN: dict[str, Any] = {
    "spec.matchConstraints.matchPolicy": "Equivalent",
    "spec.matchConstraints.namespaceSelector": {},
    "spec.matchConstraints.objectSelector": {},
    "spec.matchConstraints.resourceRules[].scope": "*",
}
"""What the API server fills in, and means all. Source: pkg/apis/admissionregistration/v1/defaults.go of Kubernetes."""


def leaves(body: Any, prefix: str = "") -> list[str]:
    """Dotted paths of the values that a body demands."""
    if isinstance(body, dict) and body:
        return [leaf for key, value in body.items() for leaf in leaves(value, f"{prefix}.{key}")]
    return [prefix]


def whole(body: dict[str, Any]) -> bool:
    """Whether what an object has beyond its demanded spec counts, so that it must be replaced and not patched."""
    return body.get("kind") in WHOLE


def faults(body: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Every demanded field of an object that differs, and what the spec of a policy has beyond its own."""
    wrong = missing(body, found)
    if whole(body):
        spec = dict(found.get("spec") or {})
        if "policyTypes" not in body["spec"]:
            spec.pop("policyTypes", None)  # the API server fills it in
        wrong += further(body["spec"], spec, "spec")
    return wrong


def missing(want: Any, have: Any, where: str = "") -> list[str]:
    """Every demanded field that differs, as "path: is X, not Y"; of long values the parts in which they differ."""
    if want in ([], {}):
        return [] if have in EMPTY else [f"{where or 'object'}: is {flow(have)}, not {flow(want)}"]
    if isinstance(want, dict):
        if (have is not None and not isinstance(have, dict)) or (have is None and short(want)):
            return [f"{where or 'object'}: is {flow(have)}, not {flow(want)}"]
        there, at = have or {}, f"{where}." if where else ""
        found = [fault for key in want for fault in missing(want[key], there.get(key), f"{at}{key}")]
        return found or ([] if have is not None else [f"{where or 'object'}: is absent, not {flow(want)}"])
    if isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
        return [f for n, (w, h) in enumerate(zip(want, have)) for f in missing(w, h, f"{where}[{n}]")]
    if isinstance(want, list) and (have is None or isinstance(have, list)) and not short(want, have):
        return [f"{where or 'object'}: {fault}" for fault in lists_apart(want, have or [], fits)]
    return [] if want == have else [f"{where}: is {flow(have)}, not {flow(want)}"]


def fits(want: Any, have: Any) -> bool:
    """Whether an item of a list has everything that one is demanded to have."""
    return not missing(want, have)


def further(want: Any, have: Any, where: str) -> list[str]:
    """Every field that nobody demands, beside those that `missing` tells. An empty selector is one: it takes all."""
    if isinstance(want, dict) and want and isinstance(have, dict):
        more = [key for key in have if key not in want and have[key] is not None]
        general = re.sub(r"\[[0-9]+\]", "[]", where)
        more = [key for key in more if FILLED_IN.get(f"{general}.{key}") != have[key]]
        return [f"{where}.{key}: is {flow(have[key])}, not absent" for key in sorted(more)] + [
            fault for key in want for fault in further(want[key], have.get(key), f"{where}.{key}")
        ]
    if isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
        return [f for n, (w, h) in enumerate(zip(want, have)) for f in further(w, h, f"{where}[{n}]")]
    return []


def beyond(
    items: Iterable[dict[str, Any]], only: Mapping[str, Any], select: Mapping[str, Any], left_out: Iterable[str]
) -> list[tuple[str, str]]:
    """(value, item) of every selected item whose field holds neither an allowed value nor one that this item may have.

    A subject counts as Kind/name. Items that are left out by name may hold anything.
    """
    also, left_out = only.get("also") or {}, set(left_out)
    found = {
        (str(value), name)
        for item in items
        for name in [named(item)]
        if name not in left_out and all(value in dig(item, dotted) for dotted, value in select.items())
        for value in dig(item, only["field"])
        if value not in only["allowed"] and value not in also.get(name, ())
    }
    return sorted(found)


def kind_of(listed: Mapping[str, Any]) -> str:
    """What goes before the names of a list's items, such as `Namespace/`; nothing where the list does not tell."""
    kind = str(listed.get("kind", ""))
    return f"{kind[: -len('List')]}/" if kind.endswith("List") else ""


def named(item: dict[str, Any]) -> str:
    """name, or namespace/name, of an item of a list."""
    meta = item.get("metadata") or {}
    return "/".join(filter(None, (meta.get("namespace"), meta.get("name"))))


def dig(item: Any, dotted: str) -> list[Any]:
    """All values at a dotted path; a list on the way fans out, and a subject of a binding is told as text.

    A dot that is part of a key is written as `\\.`, as kubectl does it.
    """
    values = [item]
    for key in (part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", dotted)):
        flat = [v for value in values for v in (value if isinstance(value, list) else [value])]
        values = [value[key] for value in flat if isinstance(value, dict) and value.get(key) is not None]
    return [subject(v) for value in values for v in (value if isinstance(value, list) else [value])]


def subject(value: Any) -> Any:
    """User/name, Group/name or ServiceAccount/namespace/name; what is no subject stays as it is."""
    if not isinstance(value, dict) or not {"kind", "name"} <= set(value):
        return value
    where = [value.get("namespace") or ""] if value["kind"] == "ServiceAccount" else []
    return "/".join([value["kind"], *where, value["name"]])
