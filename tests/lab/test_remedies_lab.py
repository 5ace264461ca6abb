"""What a message says to do, done as it stands: the commands are taken out of the findings of a real cluster.

Runs on an applied lab with a real K3s, one server and one agent, as a part of the drift story; the double is skipped,
for it refuses nothing. Each fault is made by hand, has to be found, and is gone after what the finding says.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab.applied import Lab

pytestmark = pytest.mark.lab

DB = "/var/lib/rancher/k3s/server/db"
ETCD = """python3 - <<'END'
import http.client, ssl
tls = "/var/lib/rancher/k3s/server/tls/etcd/"
context = ssl.create_default_context(cafile=tls + "server-ca.crt")
context.load_cert_chain(tls + "client.crt", tls + "client.key")
caller = http.client.HTTPSConnection("127.0.0.1", 2382, context=context)
caller.request("POST", {path!r}, {body!r})
assert caller.getresponse().status == 200
END"""


def etcd(path: str, body: dict[str, Any]) -> str:
    """The script that asks etcd's gateway for what K3s itself would not do."""
    return ETCD.format(path=path, body=json.dumps(body))


def member_at(address: str) -> str:
    """The script that adds a member of etcd which no K3s knows of."""
    return etcd("/v3/cluster/member/add", {"peerURLs": [f"https://{address}:2380"]})


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "flipped", "namespace": "default"}}
PUT = etcd("/v3/kv/put", {"key": coded("/registry/secrets/default/flipped"), "value": coded(json.dumps(SECRET))})
CLEAR = r"printf '/registry/secrets/default/flipped\020\001k8s\000\n' >"
FOREIGN = (
    "cd /var/lib/rancher/k3s/server/tls && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
    "-days 9 -subj /O=system:masters/CN=admin -keyout client-admin.key -out client-admin.crt 2>/dev/null"
)
STRANGER = (
    'echo \'{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "stranger"}, "status": {"addresses": '
    '[{"type": "InternalIP", "address": "192.0.2.66"}]}}\' | k3s kubectl create -f -'
)
FAULTS = {
    "CLUSTER-NODES-DECLARED": STRANGER,
    "ETCD-COPIES-ENCRYPTED": f"{CLEAR} {DB}/state.db.migrated",
    "ETCD-SNAPSHOTS-ENCRYPTED": f"mkdir -p {DB}/snapshots && {CLEAR} {DB}/snapshots/flipped",
    "ETCD-ENCRYPTION-ACTIVE": "k3s secrets-encrypt disable && systemctl restart k3s",
    "API-ADMIN-ACCEPTED": FOREIGN,
    "ETCD-SECRETS-REWRITTEN": PUT,  # last but one: until etcd compacts it, a new snapshot would hold it in the clear
    "NODE-TOKENS-CURRENT": "k3s token rotate --token $(cat /var/lib/rancher/k3s/server/token)",
}
"""Control -> how its fault is made on the first server."""


@pytest.fixture
def inventory(lab: Lab) -> Lab:
    if not lab.has_api():
        pytest.skip("api_semantics: the installed release is a double, which refuses nothing")
    return lab


def commands(said: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([a-z][^`]* [^`]*)`", said)


def until(true: Callable[[], bool], seconds: int = 60) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(2)


@pytest.mark.parametrize("control", FAULTS)
def test_a_finding_names_commands_that_mend_it(inventory: Lab, control: str) -> None:
    inventory.root(inventory.server, FAULTS[control])
    said = inventory.reason(control, inventory.server)
    todo = commands(said)
    assert todo, f"{control}: nothing to do is said, but: {said}"
    for command in todo:
        inventory.root(inventory.server, command)
    until(lambda: inventory.reason(control, inventory.server) == "")
    inventory.ends(0, "apply")
    assert inventory.reason(control, inventory.server) == ""


def test_an_agent_that_was_wiped_joins_again_as_the_refusal_says(inventory: Lab) -> None:
    if not inventory.agent:
        pytest.skip("agents: a lab with an agent is needed")
    wipe = "systemctl stop k3s-agent; rm -rf /var/lib/rancher/k3s/agent /etc/rancher"
    inventory.root(inventory.agent, wipe)
    report = inventory.ends(1, "apply", "--limit", inventory.agent)
    (message,) = [host["message"] for host in report["hosts"] if host["name"] == inventory.agent]
    assert commands(message), message
    assert f"on {inventory.server}" in message
    for command in commands(message):
        inventory.root(inventory.server, command)
    inventory.ends(0, "apply")


@pytest.fixture
def second(inventory: Lab) -> str:
    """The second of three servers, two of which keep etcd's majority whatever befalls it."""
    if len(inventory.hosts) < 3 or inventory.agent:
        pytest.skip("servers: a lab of three servers is needed (casemate lab up --servers 3 --agents 0)")
    return str(list(inventory.hosts)[1])


def refusal(inventory: Lab, host: str) -> str:
    """Why apply refuses a host."""
    report = inventory.ends(1, "apply")
    message = next(str(judged["message"]) for judged in report["hosts"] if judged["name"] == host)
    assert commands(message), message
    return message


def test_a_server_with_a_cluster_of_its_own_joins_as_the_message_says(inventory: Lab, second: str) -> None:
    inventory.root(inventory.server, f"k3s kubectl delete node {second}")
    steps = [
        "systemctl stop k3s",
        "rm -r /var/lib/rancher/k3s/server",
        "mv /etc/rancher/k3s/config.yaml.d /root/aside",
        # The kubelet would need what the inventory says, and the data is there without one.
        "systemd-run --quiet --unit=lone --property=Restart=no k3s server --cluster-init --disable-agent",
        "timeout 120 sh -c 'until k3s kubectl get --raw /readyz; do sleep 2; done'",
        "systemctl stop lone",
        "mv /root/aside /etc/rancher/k3s/config.yaml.d",
    ]
    inventory.root(second, "; ".join(steps))
    for command in commands(refusal(inventory, second)):
        inventory.root(second, command)
    inventory.ends(0, "apply")


@pytest.mark.parametrize("left", ["node", "member"])
def test_a_server_that_was_wiped_joins_again_as_the_refusal_says(inventory: Lab, second: str, left: str) -> None:
    inventory.root(second, "systemctl stop k3s; rm -rf /var/lib/rancher/k3s /etc/rancher")
    if left == "member":
        inventory.root(inventory.server, f"k3s kubectl delete node {second}")
        inventory.root(inventory.server, member_at(inventory.hosts[second]))
    message = refusal(inventory, second)
    inventory.root(second, "test ! -e /var/lib/rancher/k3s -a ! -e /etc/rancher/k3s")
    assert f"on {inventory.server}" in message
    for command in commands(message):
        inventory.root(inventory.server, command)
    inventory.ends(0, "apply")


def test_a_member_of_etcd_without_a_node_goes_as_the_finding_says(inventory: Lab, second: str) -> None:
    nowhere = inventory.known["lab_stranger_address"]
    inventory.root(inventory.server, member_at(nowhere))
    said = inventory.reason("CLUSTER-NODES-DECLARED", inventory.server)
    assert nowhere in said
    (todo,) = commands(said)
    inventory.root(second, todo)  # any server will do
    assert inventory.reason("CLUSTER-NODES-DECLARED", inventory.server) == ""


def test_a_server_that_was_removed_while_it_ran_joins_again_by_apply(inventory: Lab, second: str) -> None:
    inventory.root(inventory.server, f"k3s kubectl delete node {second}")
    assert inventory.reason("CLUSTER-HOSTS-JOINED", inventory.server).endswith("apply to it")
    inventory.root(
        second, "timeout 60 sh -c 'until test -e /var/lib/rancher/k3s/server/db/etcd/tombstone; do sleep 1; done'"
    )
    inventory.ends(0, "apply")


def test_a_server_that_is_no_host_any_more_goes_as_the_finding_says(inventory: Lab, second: str) -> None:
    given = yaml.safe_load(Path(inventory.path).read_text())
    del given["all"]["children"]["k3s_server"]["hosts"][second]
    with tempfile.NamedTemporaryFile("w", suffix=".yml", dir=Path(inventory.path).parent) as without:
        yaml.safe_dump(given, without)
        without.flush()
        fewer = Lab(without.name)
        said = fewer.reason("CLUSTER-NODES-DECLARED", fewer.server)
        assert "stop K3s on it for good" in said
        inventory.root(second, "systemctl disable --now k3s")
        for command in commands(said):
            fewer.root(fewer.server, command)
        assert fewer.reason("CLUSTER-NODES-DECLARED", fewer.server) == ""
    inventory.root(second, "rm -rf /var/lib/rancher/k3s /etc/rancher")
    inventory.ends(0, "apply")  # a host again


def test_labels_and_taints_are_set_by_hand(inventory: Lab) -> None:
    label, taint = "node-role.kubernetes.io/flipped", "flipped=true:PreferNoSchedule"
    inventory.root(inventory.server, f"k3s kubectl label node --all {label}=true; k3s kubectl taint node --all {taint}")
    try:
        inventory.ends(0, "check")
    finally:
        inventory.root(
            inventory.server, f"k3s kubectl label node --all {label}-; k3s kubectl taint node --all {taint}-"
        )
