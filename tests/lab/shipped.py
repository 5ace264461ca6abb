"""Print the roles and bindings of a fresh cluster as roles/k3s_cluster/vars/main/shipped.yml has them.

    k3s kubectl get clusterroles,roles,clusterrolebindings,rolebindings -A -o json | python -m lab.shipped

For a new minor version of Kubernetes: on a cluster with all components of K3s, that nobody has used yet.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from module_utils.casemate.k3s.listed import key_of
from module_utils.casemate.k3s.objects import subject
from module_utils.casemate.k3s.rights import Right, of_rules
from module_utils.casemate.kinds.vouched_rights import role_of

WIDTH = 100


def compact(rights: Iterable[Right]) -> list[str]:
    """Rights as few texts: each set of verbs with the resources that it is for."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for right in sorted(rights):
        place, _, name = str(right).partition(" ")[2].partition(" ")
        verbs.setdefault((place, name), []).append(right.verb)
    places: dict[tuple[str, str], list[str]] = {}
    for (place, name), found in verbs.items():
        places.setdefault((",".join(found), name), []).append(place)
    return sorted(
        f"{found} {where}" + (f" {name}" if name else "")
        for (found, name), every in places.items()
        for where in lines(every)
    )


def lines(places: Iterable[str]) -> list[str]:
    """Names joined by commas, none of them much longer than a line."""
    made = [""]
    for place in places:
        if len(made[-1]) + len(place) > WIDTH:
            made.append("")
        made[-1] += f",{place}" if made[-1] else place
    return made


def shipped(items: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Object -> its rights, or the role and subjects that it binds."""
    made = {}
    for item in items:
        key = key_of(item["kind"], item)
        if "roleRef" in item:
            made[key] = [role_of(item), *(subject(one) for one in item.get("subjects") or ())]
        else:
            made[key] = compact(of_rules(item.get("rules")))
    return dict(sorted(made.items()))


def main() -> None:
    for key, texts in shipped(json.load(sys.stdin)["items"]).items():
        print(f"    {key}:" + ("" if texts else " []"))
        for line in texts:
            print(f'      - "{line}"' if line.startswith(("*", "&")) else f"      - {line}")


if __name__ == "__main__":
    main()
