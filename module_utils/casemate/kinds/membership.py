"""Whether this host belongs to the cluster, asked with its kubelet's credentials, its tokens, and its administrator's.

Source: K3s, pkg/clientaccess/token.go: a token is `K10<digest of the authority>::<user>:<password>`. What is asked
changes nothing, and no token leaves this module but to the server that it is for.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import ssl
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..host.machine import Host
from ..k3s.api import Api, Kubelet, takes, unanswered
from ..k3s.rejoin import SPLIT, removed
from .kind import Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    aspect: Annotated[Literal["kubelet", "tokens", "administrator"], Key("whose credentials")]


class Setting(Needed, total=False):
    """What a control of this kind may demand."""

    unit: Annotated[str, Key("K3s' unit here, which a restart helps to join again", pattern=r"k3s(-agent)?\.service")]
    server: Annotated[str, Key("the supervisor of the inventory's first server", pattern=r"https://\S+:\d+")]
    node: Annotated[str, Key("name of the node; empty: the host's own, as K3s takes it")]
    address: Annotated[str, Key("the node's address in the cluster, or two with a comma")]
    files: Annotated[dict[str, str], Key("file with a token -> the user that it is for where the token names none")]
    fetched: Annotated[bool, Key("whether apply fetches the tokens from the first server")]


REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
EVERYTHING = {"spec": {"resourceAttributes": {"verb": "*", "group": "*", "resource": "*"}}}
CERTIFICATE = Api.CLIENT + ".crt"
REJOIN = "apply fetches the token and restarts K3s here, which joins again"
REISSUE = "run `systemctl stop k3s`, `k3s certificate rotate --service admin` and `systemctl start k3s` here, and apply"
RELOAD = "K3s has not read its own token since it changed: run `systemctl restart k3s` here"


def places_of(setting: Setting) -> list[str]:
    """Files with tokens, the unit that joins, or what the administrator is asked by."""
    if setting["aspect"] == "tokens":
        return list(setting["files"])
    return [setting["unit"]] if setting["aspect"] == "kubelet" else [REVIEW]


def identity(setting: Setting) -> str:
    """One control for each sort of credentials."""
    return str(setting["aspect"])


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """What is answered to each sort of credentials; `code` and `why` where nobody can say."""
    looks = {"kubelet": _as_kubelet, "tokens": _with_tokens, "administrator": _as_administrator}
    seen: list[Observation] = []
    for setting in settings:
        try:
            seen.append(looks[setting["aspect"]](setting, host))
        except Unavailable as lacking:
            seen.append({"code": lacking.code, "why": lacking.why})
    return seen


def _as_kubelet(setting: Setting, host: Host) -> Observation:
    name = setting.get("node") or os.uname().nodename.lower()
    path = f"/api/v1/nodes/{name}"
    seen: Observation = {"name": name, "machine": (host.text("/etc/machine-id") or "").strip()}
    if setting["unit"] == "k3s.service" and removed(host):
        return {**seen, "refused": "it was removed from etcd"}  # its own API server is silent then
    try:
        status, found = Kubelet(host).call("GET", path)
        if status not in (200, 404):
            raise unanswered(path, status, found)
    except Unavailable as lacking:
        return {**seen, "refused": _refusal(lacking)}
    if status == 404:
        return {**seen, "refused": "there is no such node"}
    try:
        takes(host, setting["server"])
    except Unavailable as lacking:
        return {**seen, "elsewhere": _refusal(lacking)}
    return {**seen, "node": found}


def _refusal(lacking: Unavailable) -> str:
    """Why something is refused, which is an answer; anything else that lacks is raised."""
    if lacking.code != "refused":
        raise lacking
    return lacking.why


def _with_tokens(setting: Setting, host: Host) -> Observation:
    takes(host, setting["server"])  # of which cluster this host is comes first
    return {"tokens": {path: _state(host, setting["server"], path, user) for path, user in setting["files"].items()}}


def _state(host: Host, server: str, path: str, user: str) -> str:
    token = (host.text(path) or "").strip()
    if not token:
        return "missing"
    parts = re.fullmatch(r"K10([0-9a-f]{64})?::([^:]+:.+)", token)
    if parts and parts[1] and parts[1] not in _digests(host.read(Kubelet.CA) or b""):
        return "another cluster's"
    return "accepted" if takes(host, server, parts[2] if parts else f"{user}:{token}") else "refused"


def _digests(bundle: bytes) -> set[str]:
    """What K3s may write into a token for these authorities: the digest of the file, or that of a bundle's root."""
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", bundle, re.DOTALL)
    roots = [ssl.PEM_cert_to_DER_cert(block.decode("ascii", "replace")) for block in blocks[1:]]
    return {hashlib.sha256(data).hexdigest() for data in (bundle, *roots)}


def _as_administrator(_setting: Setting, host: Host) -> Observation:
    try:
        status, answer = Api(host).call("POST", REVIEW, EVERYTHING)
        if status != 201:
            raise unanswered(REVIEW, status, answer)
    except Unavailable as lacking:
        return {"refused": _refusal(lacking)}
    return {"refused": "" if answer["status"].get("allowed") else "it may not do everything"}


def assess(setting: Setting, seen: Observation) -> Verdict:
    """The credentials are accepted, and the node that they are for is this host, Ready."""
    if "code" in seen:
        raise Unavailable(seen["code"], seen["why"])
    if setting["aspect"] == "tokens":
        return _judge_tokens(setting, seen["tokens"])
    if setting["aspect"] == "kubelet":
        return _judge_node(setting, seen)
    if seen["refused"]:
        reason = f"the API server refuses {CERTIFICATE}: {seen['refused']}; {REISSUE}"
        return Verdict(
            ok=False, expected="accepted", observed="refused", reason=reason, evidence=REVIEW, blocked_by=CERTIFICATE
        )
    return Verdict(ok=True, expected="accepted", observed="accepted", evidence=REVIEW)


def _judge_tokens(setting: Setting, states: dict[str, str]) -> Verdict:
    expected, wrong = dict.fromkeys(states, "accepted"), [path for path in states if states[path] != "accepted"]
    if not wrong:
        return Verdict(ok=True, expected=expected, observed=states, evidence=setting["server"])
    advice, blocked_by = ("apply fetches it anew", "") if setting["fetched"] else (RELOAD, wrong[0])
    reason = "; ".join([*(f"the token in {path} is {states[path]}" for path in wrong), advice])
    return Verdict(
        ok=False, expected=expected, observed=states, reason=reason, evidence=setting["server"], blocked_by=blocked_by
    )


def _judge_node(setting: Setting, seen: Observation) -> Verdict:
    """What a restart of K3s brings back is not foreign: apply does it."""
    name, unit, evidence = seen["name"], setting["unit"], f"GET /api/v1/nodes/{seen['name']}"
    expected: dict[str, Any] = {"Ready": "True", "addresses": _addresses(setting["address"].split(","))}
    if "refused" in seen:
        reason = f"the cluster does not take this host for the node {name}: {seen['refused']}; {REJOIN}"
        return Verdict(ok=False, expected=expected, observed="refused", reason=reason, evidence=evidence, stale=(unit,))
    if "elsewhere" in seen and unit == "k3s-agent.service":
        return Verdict(
            ok=False,
            expected=expected,
            observed="another cluster",
            reason=f"{seen['elsewhere']}; {REJOIN}",
            evidence=evidence,
            stale=(unit,),
        )
    if "elsewhere" in seen:
        reason = f"{seen['elsewhere']}; {SPLIT}"
        return Verdict(
            ok=False,
            expected=expected,
            observed="another cluster",
            reason=reason,
            evidence=evidence,
            blocked_by=Kubelet.CA,
        )
    status, wrong = seen["node"].get("status") or {}, []
    ready: dict[str, Any] = next((one for one in status.get("conditions") or () if one["type"] == "Ready"), {})
    has = _addresses(one["address"] for one in status.get("addresses") or () if one["type"] == "InternalIP")
    machine = (status.get("nodeInfo") or {}).get("machineID")
    if ready.get("status") != "True":
        wrong.append(f"is not Ready: {ready.get('message') or 'its kubelet has not reported yet'}")
    if seen["node"]["metadata"].get("deletionTimestamp"):
        wrong.append("is being deleted")
    if not set(expected["addresses"]) <= set(has):
        wrong.append(f"has the address {', '.join(has) or 'of nobody'}, not {setting['address']}")
    if machine and machine != seen["machine"]:
        wrong.append(f"is another machine: {machine} in the cluster, {seen['machine']} in /etc/machine-id here")
    observed = {"Ready": ready.get("status", "Unknown"), "addresses": has}
    reason = f"node {name} {'; '.join(wrong)}" if wrong else ""
    return Verdict(
        ok=not wrong,
        expected=expected,
        observed=observed,
        reason=reason,
        evidence=evidence,
        blocked_by=name if wrong else "",
    )


def _addresses(texts: Any) -> list[str]:
    """Addresses in one spelling, sorted."""
    return sorted(str(ipaddress.ip_address(text.strip())) for text in texts)


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, enforced_by="task", places=places_of)
