"""Roles and bindings of the cluster that give power, and who vouches for them: Kubernetes, K3s, or the operator.

A role of Kubernetes' own is known by its name and its rules, since whatever says that it is one can be forged. What is
aggregated into one by somebody else is a right that it does not ship with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Dict, List, Literal, Set, TypedDict

from ..core import vouched_for, waiver
from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..core.vouched_for import Stranger
from ..host.machine import Host
from ..k3s import rights as k8s_rights
from ..k3s.listed import Lists, digest_of, key_of
from ..k3s.objects import subject
from ..k3s.rights import Right
from . import evicting_objects
from .kind import Enforceable, Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    judged: Annotated[Literal["roles", "bindings"], Key("which of them")]
    used: Annotated[str, Key("what they do")]
    powers: Annotated[Dict[str, Any], Key("what is power, in words, to rights such as get,list secrets")]
    shipped: Annotated[
        Dict[str, Any], Key("minor version of Kubernetes to its own: roles and their rights, or bindings")
    ]
    declared: Annotated[Dict[str, Any], Key("Kind/name, or Kind/namespace/name, to what the operator vouches for")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind demands."""

    crowds: Annotated[List[str], Key("subjects that stand for many, to which any role is power")]
    elsewhere: Annotated[List[str], Key("subjects, and roles of ClusterRoleBindings, that other controls judge")]


RBAC = "/apis/rbac.authorization.k8s.io/v1"
PATHS = {kind: f"{RBAC}/{kind.lower()}s" for kind in ("ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding")}
SHOWN = 3
"""Of how many powers or subjects a sentence tells."""
AGGREGATES = "rbac.authorization.k8s.io/aggregate-to-"
"""Label by which the rules of a ClusterRole become part of another one's."""


class Role:
    """A role: what it allows, and the roles that its rules become part of."""

    def __init__(self, item: Mapping[str, Any]) -> None:
        """Take it as the API server shows it."""
        labels = item["metadata"].get("labels") or {}
        self.rights = k8s_rights.of_rules(item.get("rules"))
        self.aggregated = "aggregationRule" in item
        self.part_of = sorted(
            name[len(AGGREGATES) :] for name, value in labels.items() if name.startswith(AGGREGATES) and value == "true"
        )
        self.digest = digest_of([sorted(map(str, self.rights)), self.part_of])


def identity(setting: Setting) -> str:
    """One control for roles, one for bindings."""
    return str(setting["judged"])


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """For each setting: for which roles or bindings nobody vouches, why, and what they are."""
    lists = Lists(host)
    seen: List[Any] = []
    roles = {key_of(kind, item): Role(item) for kind in ("ClusterRole", "Role") for item in lists.items(PATHS[kind])}
    for setting in settings:
        try:
            shipped = lists.shipped(setting["shipped"])
        except Unavailable as unknown:
            seen.append(unknown)
            continue
        if setting["judged"] == "roles":
            found = list(_roles(setting, roles, shipped, host))
        else:
            found = list(_bindings(setting, roles, shipped, lists))
        evidence = f"{setting['judged']} with power: {len(found)}"
        unvouched = vouched_for.unvouched(found, setting["declared"], waiver.day(host.context))
        outlook = evicting_objects.outlook(unvouched["faults"], _items(lists), shipped)
        seen.append({**unvouched, **outlook, "evidence": evidence})
    return seen


def _items(lists: Lists) -> Dict[str, tuple[str, Any]]:
    """By name: the list that a role or binding is of, and the whole."""
    return {key_of(kind, item): (path, item) for kind, path in PATHS.items() for item in lists.items(path)}


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that somebody vouches for everything."""
    return vouched_for.verdict(setting, seen, seen["evidence"])


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Remove what nobody vouches for, as far as it can go."""
    evicting_objects.enforce(observe([settings[i] for i in sorted(failing)], host), host)


def _roles(
    setting: Setting, roles: Mapping[str, Role], shipped: Mapping[str, List[str]], host: Host
) -> Iterator[Stranger]:
    day, declared = waiver.day(host.context), setting["declared"]
    lent: Set[Right] = set()  # what the operator lets others aggregate into roles of Kubernetes
    for key, role in roles.items():
        if role.part_of and key in declared and not vouched_for.fault(key, declared[key], role.digest, day):
            lent |= role.rights
    for key, role in sorted(roles.items()):
        if key in shipped:
            known = {right for text in shipped[key] for right in k8s_rights.written(text)}
            more = role.rights - known - (lent if role.aggregated else set())
            if more:
                beyond = f"it does not ship with the right to {k8s_rights.in_words(more)}"
                yield Stranger(key, beyond, role.digest)
            continue
        why = k8s_rights.powers(role.rights, setting["powers"])
        why += [f"becomes part of {', '.join(role.part_of)}"] if role.part_of else []
        if why:
            yield Stranger(key, _some_of(why), role.digest)


def _bindings(
    setting: Setting, roles: Mapping[str, Role], shipped: Mapping[str, List[str]], lists: Lists
) -> Iterator[Stranger]:
    elsewhere = set(setting.get("elsewhere", ()))
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        for item in lists.items(PATHS[kind]):
            key, role = key_of(kind, item), role_of(item)
            subjects = sorted({subject(one) for one in item.get("subjects") or ()} - elsewhere)
            if not subjects or (kind == "ClusterRoleBinding" and role in elsewhere):
                continue
            content = digest_of([role, subjects])
            if key in shipped:
                beyond = [one for one in [role, *subjects] if one not in shipped[key]]
                if beyond:
                    yield Stranger(key, f"it does not ship with {_some_of(beyond)}", content)
                continue
            powers = k8s_rights.powers(roles[role].rights, setting["powers"]) if role in roles else []
            crowds = [one for one in subjects if _is_crowd(one, setting.get("crowds", ()))]
            if powers or crowds:
                why = [f"it gives {role} to {_some_of(subjects)}"]
                why += [f"which {_some_of(powers)}"] if powers else []
                yield Stranger(key, ", ".join(why), content)


def role_of(item: Mapping[str, Any]) -> str:
    """The role that is bound, as it is called."""
    ref, namespace = item["roleRef"], item["metadata"].get("namespace")
    return f"{ref['kind']}/{namespace}/{ref['name']}" if ref["kind"] == "Role" else f"{ref['kind']}/{ref['name']}"


def _is_crowd(one: str, crowds: Iterable[str]) -> bool:
    return any(one == crowd or (crowd.endswith(":") and one.startswith(crowd)) for crowd in crowds)


def _some_of(words: List[str]) -> str:
    return several(words, SHOWN, ", ")


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    evicts=True,
    places=lambda setting: [PATHS["ClusterRole"]],
)
