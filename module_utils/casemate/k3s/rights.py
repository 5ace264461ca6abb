"""What the rules of a role of Kubernetes allow, and what of that is power over others.

A right is written as kubectl writes it: `get,list secrets`, `update deployments.apps/scale`, `get configmaps name`, or
`get /metrics` for what is no resource. Pure. Source: Kubernetes, pkg/apis/rbac/v1/evaluation_helpers.go.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..core.flow import several

ANY, EVERY_PATH = "*", "/*"
WILDCARD = "holds a wildcard, and with it whatever there will be"


class Right(NamedTuple):
    """A verb on a resource of an API group, of one name where there is a name; or on a path, which begins with /."""

    verb: str
    group: str
    resource: str
    name: str = ""

    def __str__(self) -> str:
        """As it is written."""
        resource, slash, part = self.resource.partition("/")
        if self.resource.startswith("/"):
            resource, slash, part = self.resource, "", ""
        place = f"{resource}.{self.group}" if self.group else resource
        return f"{self.verb} {place}{slash}{part}" + (f" {self.name}" if self.name else "")


def of_rules(rules: Iterable[Mapping[str, Any]] | None) -> set[Right]:
    """Every single right that a role's rules allow."""
    found: set[Right] = set()
    for rule in rules or ():
        verbs, names = rule.get("verbs") or (), rule.get("resourceNames") or ("",)
        groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
        found |= {Right(*one) for one in itertools.product(verbs, groups, resources, names)}
        paths = (path if path != ANY else EVERY_PATH for path in rule.get("nonResourceURLs") or ())
        found |= {Right(verb, "", path) for verb, path in itertools.product(verbs, paths)}
    return found


@functools.cache
def written(text: str) -> frozenset[Right]:
    """The rights that a text names: each verb with each resource and name."""
    verbs, resources, names = (part.split(",") for part in [*text.split(" "), ""][:3])
    every = itertools.product(verbs, resources, names)
    return frozenset(Right(verb, *_group_of(resource), name) for verb, resource, name in every)


def _group_of(written_resource: str) -> tuple[str, str]:
    """(group, resource with its part) of resource.group/part."""
    if written_resource.startswith("/"):
        return "", written_resource
    whole, slash, part = written_resource.partition("/")
    resource, _, group = whole.partition(".")
    return group, f"{resource}{slash}{part}"


def powers(rights: Iterable[Right], listed: Mapping[str, Iterable[str]]) -> list[str]:
    """Of the listed powers (words -> rights) those that somebody has with these rights, in words.

    That a right is for one name only makes it no smaller: the name may be the one.
    """
    held = {right[:3] for right in rights}
    wild = [WILDCARD] if any(ANY in right or right[2] == EVERY_PATH for right in held) else []
    return wild + [
        words
        for words, texts in listed.items()
        if any(not held.isdisjoint(_covering(power)) for text in texts for power in written(text))
    ]


def _covering(power: Right) -> Iterable[tuple[str, str, str]]:
    """The rights that cover a power, each as verb, group and resource."""
    part = power.resource.partition("/")[2]
    resources = (power.resource, ANY, *((f"{ANY}/{part}",) if part else ()))
    return itertools.product((power.verb, ANY), (power.group, ANY), resources)


def in_words(rights: Iterable[Right], most: int = 3) -> str:
    """Some rights as text."""
    return several(sorted(map(str, rights)), most, ", ")
