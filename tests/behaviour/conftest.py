"""What the attacks share: the machines of the inventory, reached as its automation account, and root on them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import json
import os
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

from casemate.prove import recorder

if TYPE_CHECKING:
    from .attempts import Attempts

Kubectl = Callable[..., Any]


def machines(request: pytest.FixtureRequest, group: str) -> list[Host]:
    """Hosts of an inventory group, as root through sudo."""
    inventory = request.config.getoption("ansible_inventory")
    if not inventory:
        pytest.skip("inventory: these attacks need a real inventory; run casemate prove -i INVENTORY")
    if folder := os.environ.get(recorder.CONNECTIONS):
        known = AnsibleRunner.get_runner(inventory).ansible_config
        known.read_dict({"persistent_connection": {"control_path_dir": folder.replace("%", "%%")}})
    found = testinfra.get_hosts([f"ansible://{group}"], ansible_inventory=inventory, sudo=True)
    lane = os.environ.get(recorder.LANE)  # casemate prove attacks hosts side by side, a process for each
    return [host for host in found if recorder.is_about(lane, host.backend.host)]


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> list[Host]:
    return machines(request, "k3s_server")


@pytest.fixture(scope="session")
def agents(request: pytest.FixtureRequest) -> list[Host]:
    return machines(request, "k3s_agent")


@pytest.fixture(scope="session")
def nodes(servers: list[Host], agents: list[Host]) -> list[Host]:
    return servers + agents


@pytest.fixture(scope="session")
def server(servers: list[Host]) -> Host:
    """The first server, with K3s running."""
    if not servers or unit(servers[0]) != "k3s":
        pytest.skip("k3s: K3s does not run on a server of this inventory")
    return servers[0]


@pytest.fixture(scope="session")
def agent(agents: list[Host]) -> Host:
    """The first agent, with K3s running."""
    if not agents or unit(agents[0]) != "k3s-agent":
        pytest.skip("k3s: no agent of this inventory runs K3s")
    return agents[0]


@pytest.fixture(scope="session")
def running(nodes: list[Host]) -> list[Host]:
    """The nodes on which K3s runs."""
    up = [host for host in nodes if unit(host)]
    if not up:
        pytest.skip("k3s: K3s does not run on a node of this inventory")
    return up


@pytest.fixture(scope="session")
def trying(
    request: pytest.FixtureRequest, running: list[Host], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[concurrent.futures.Future[Attempts]]:
    """The attempts to install spoiled bytes on the first node, with a real K3s if any has it."""
    from .attempts import attempts

    host = next((host for host in running if not is_double(host)), running[0])
    tries = attempts(host, request.config.getoption("ansible_inventory"), tmp_path_factory.mktemp("attempts"))
    with contextlib.ExitStack() as made, concurrent.futures.ThreadPoolExecutor(1) as beside:
        yield beside.submit(made.enter_context, tries)


@pytest.fixture(scope="session")
def tried(trying: concurrent.futures.Future[Attempts]) -> Attempts:
    """What came of them."""
    return trying.result()


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest) -> None:
    """Begin with the first attack what takes Ansible seconds, so that it passes beside the others."""
    if any("trying" in getattr(item, "fixturenames", ()) for item in request.session.items):
        with contextlib.suppress(pytest.skip.Exception):  # those that need it say so
            request.getfixturevalue("trying")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put last what is begun first."""
    items.sort(key=lambda item: "trying" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def api(server: Host) -> Host:
    """The first server of a cluster with a real API; under the double the attack is skipped, never passed."""
    if is_double(server):
        pytest.skip("api_semantics: the installed release is a double without a real API server")
    return server


@pytest.fixture(scope="session")
def kubectl(api: Host) -> Kubectl:
    """Call kubectl as the cluster's administrator; `stdin` may be an object, which is sent as JSON."""

    def call(*arguments: str, stdin: Any = None, expect: bool = True) -> Any:
        line = "k3s kubectl " + shlex.join(arguments)
        if stdin is not None:
            line = f"printf %s {shlex.quote(json.dumps(stdin))} | {line}"
        done = api.run(f"sh -c {shlex.quote(line)}")
        if expect:
            assert done.rc == 0, done.stderr
            return done.stdout
        return done

    return call


@functools.cache
def unit(host: Host) -> str:
    """The unit of K3s that runs on a machine, or nothing. Asked once, for no attack but the last stops one."""
    names = ("k3s", "k3s-agent")
    return next((name for name in names if host.run("systemctl is-active --quiet %s", name).rc == 0), "")


@functools.cache
def is_double(host: Host) -> bool:
    """Whether what is installed stands in for K3s: it has no real API server or kubelet, and unpacks nothing."""
    return "double" in host.check_output("k3s --version")


@functools.cache
def own_address(host: Host) -> str:
    return str(host.check_output("hostname -I")).split()[0]


def python_on(host: Host, program: str, *arguments: str) -> str:
    """Run a program of the standard library on a machine, as root, and return what it prints."""
    done = host.run("python3 -c %s " + " ".join(["%s"] * len(arguments)), program, *arguments)
    assert done.rc == 0, done.stderr
    return str(done.stdout)
