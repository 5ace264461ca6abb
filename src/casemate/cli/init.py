"""`casemate init`: the first inventory, from a few options, asked for on a terminal where they lack.

What is refused is refused by preflight's own rules, so that `apply` takes what is written as it is.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click
import yaml

from casemate.preflight import address_families, combinations, host_facts, inputs, k3s_values
from casemate.run.account import here

Given = TypeVar("Given")
Nodes = dict[str, str]
"""Name -> address, or one address of IPv4 and one of IPv6 with a comma."""
RESERVED = ("all", "ungrouped")
"""Groups of every inventory, whose names no host can have."""
SUFFIXES = (".yml", ".yaml")
"""Names of files that Ansible reads as an inventory in YAML."""
TEMPLATE = """\
# The hosts of one cluster, for Casemate. Change and extend it as you like: what is not said here has a default.
all:
  vars:
    # Whom Casemate logs in as. The account needs a key and sudo without a password, and is never locked out.
    {user}
    # Who may reach SSH and the API server. The address that you come from has to be among them.
    casemate_admin_sources:
{sources}
    # The only way round a control, for one that does not suit you, with an end:
    # casemate_waivers:
    #   SSH-CIPHERS-MODERN: {{reason: The old backup client, owner: ops@example.org, expires: 2027-03-31}}
    # What else may be reached, such as an ingress. What is not listed is closed.
    # k3s_firewall_allow:
    #   - {{proto: tcp, port: "443", sources: [0.0.0.0/0]}}
  children:
    # They run the control plane and etcd. The first one starts the cluster. An odd number of them is best.
    k3s_server:
      hosts:{servers}
    # They run workloads only.
    k3s_agent:
      hosts:{agents}
"""


class Refused(click.ClickException):
    """What was given cannot become an inventory; each problem is a line."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Take at least one problem."""
        super().__init__("nothing was written.\n" + "\n".join(f"- {problem}" for problem in problems))


def nodes_of(kind: str, given: Sequence[str]) -> tuple[Nodes, list[str]]:
    """(nodes, problems) of the values of `--server` or `--agent`: NAME=ADDRESS, or an address, which gets a name."""
    spec = inputs.known_inputs()["k3s_node_ip"]
    nodes: Nodes = {}
    found = []
    for number, text in enumerate(given, 1):
        name, equals, address = text.partition("=")
        if not equals:
            name, address = f"{kind}{number}", text
        fix = f"Give --{kind} ADDRESS or --{kind} NAME=ADDRESS"
        found += inputs.value_problems(f"--{kind} {name}" if equals else f"--{kind}", address, spec, fix)
        if not re.fullmatch(k3s_values.NAME, name.lower()) or name in RESERVED:
            words = "letters, digits, dashes and dots, 253 at most (RFC 1123), but not " + " or ".join(RESERVED)
            found.append(f"--{kind} has the name {name!r}; allowed: {words}. {fix}")
        elif name in nodes:
            found.append(f"--{kind} has the name {name} twice. Give each node a name of its own: {fix}")
        nodes[name] = address
    return nodes, found


def user_problems(user: str) -> list[str]:
    """Whether hosts would still admit the account once they are hardened."""
    spec = inputs.known_inputs()["casemate_automation_user"]
    return inputs.value_problems("--user", user, spec, "Correct it") or host_facts.login_problems(user, user, [], False)


def source_problems(sources: Sequence[str]) -> list[str]:
    """Whether these are networks of somebody, and not of everybody."""
    each = {"type": "str", "format": inputs.known_inputs()["casemate_admin_sources"]["format"]}
    found = [p for one in sources for p in inputs.value_problems("--admin-source", one, each, "Correct it")]
    return found or combinations.rule_problems({"casemate_admin_sources": list(sources)})


def node_problems(servers: Nodes, agents: Nodes) -> tuple[list[str], list[str]]:
    """(problems, warnings) of right names and addresses, as preflight judges the groups and each host."""
    places = {name: (address, f"{connecting(address)}:22") for name, address in [*servers.items(), *agents.items()]}
    found, warnings = combinations.inventory_problems({"k3s_server": list(servers), "k3s_agent": list(agents)}, places)
    first = next(iter(servers.values()), "")
    for name, (address, _) in places.items():
        found += [f"{name}: {problem}" for problem in address_families.problems({}, address, first)]
        warnings += [f"{name}: {warning}" for warning in address_families.warnings({}, address, first)]
    return found, warnings


def file_problems(path: Path) -> list[str]:
    """Whether the inventory can be written there, and read by Ansible; what is there already is never overwritten."""
    if path.is_symlink() or path.exists():
        return [f"{path} is there already. Move it away, or name another file by --output"]
    if path.suffix not in SUFFIXES or "," in str(path):
        return [f"--output is {str(path)!r}; allowed: a name that ends in {' or '.join(SUFFIXES)}, without a comma"]
    if not path.parent.is_dir():
        return [f"--output is {str(path)!r}, but there is no folder {path.parent}. Make it first"]
    return []


def connecting(address: str) -> str:
    """The address that Ansible connects to: the only one, or the first of two."""
    return address.partition(",")[0]


def scalar(text: str) -> str:
    """A text as YAML reads it back: quoted where it would become a number, a date or true."""
    try:
        plain = yaml.safe_load(f"{text}: {text}") == {text: text}
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text)


def hosts(nodes: Nodes) -> str:
    """The hosts of a group, as the template goes on after `hosts:`."""
    lines = []
    for name, address in nodes.items():
        lines += [f"        {scalar(name)}:", f"          ansible_host: {scalar(connecting(address))}"]
        lines += [f"          k3s_node_ip: {scalar(address)}"] if "," in address else []
    return "".join(f"\n{line}" for line in lines) or " {}"


def inventory(servers: Nodes, agents: Nodes, user: str, sources: Sequence[str]) -> str:
    """The inventory of what was found right. Without a user it is whom ssh would log in as."""
    return TEMPLATE.format(
        user=f"ansible_user: {scalar(user)}"
        if user
        else "# Without it, it is whom ssh would log in as.\n    # ansible_user: ops",
        sources="\n".join(f"      - {scalar(source)}" for source in sources),
        servers=hosts(servers),
        agents=hosts(agents),
    )


def asked(question: str, read: Callable[[str], Given], default: str | None = None) -> Given:
    """An answer on the terminal; a wrong one is told and asked for again."""

    def right(text: str) -> Given:
        try:
            return read(text)
        except Refused as refused:
            raise click.UsageError(refused.message.partition("\n")[2]) from None

    answer: Given = click.prompt(question, default=default, value_proc=right, show_default=bool(default), err=True)
    return answer


def valid(value: Given, problems: Sequence[str]) -> Given:
    """The value; raises Refused where it has problems."""
    if problems:
        raise Refused(problems)
    return value


@click.command()
@click.option("--server", "servers", multiple=True, metavar="[NAME=]ADDRESS",
              help="A node of the control plane (repeatable); the first one starts the cluster.")  # fmt: skip
@click.option("--agent", "agents", multiple=True, metavar="[NAME=]ADDRESS",
              help="A node for workloads only (repeatable).")  # fmt: skip
@click.option("--user", metavar="ACCOUNT", help="Whom to log in as; left out: whom ssh would log in as.")
@click.option("--admin-source", "sources", multiple=True, metavar="NETWORK",
              help="Who may reach SSH and the API server, you among them (repeatable).")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: hosts.yml]")
def init(
    servers: tuple[str, ...], agents: tuple[str, ...], user: str | None, sources: tuple[str, ...], output: Path | None
) -> int:
    """Write an inventory for apply; what is not given is asked for on a terminal."""
    valid(None, problems(servers, agents, user, sources, output))
    if sys.stdin.isatty() and sys.stderr.isatty():
        servers = servers or asked("Servers ([NAME=]ADDRESS, several with spaces)", lambda text: _nodes("server", text))
        agents = agents or asked("Agents (likewise; Enter for none)", lambda text: _nodes("agent", text), "")
        user = user or asked("Account to log in as", _user, here() if os.getuid() else None)
        sources = sources or asked("Networks that may reach SSH and the API server, yours among them", _sources)
        output = output or asked("Write to", _file, "hosts.yml")
    output = output or Path("hosts.yml")
    found = problems(servers, agents, user, sources, output)
    found += [] if servers else ["--server is missing. Give the address of at least one node"]
    found += [] if sources else ["--admin-source is missing. Give at least one network, you among its addresses"]
    nodes = nodes_of("server", servers)[0], nodes_of("agent", agents)[0]
    more, warnings = node_problems(*nodes)
    valid(None, found or more)
    with output.open("x", encoding="utf-8") as file:
        file.write(inventory(*nodes, user or "", sources))
    given = shlex.quote(str(output))
    click.echo(f"{output} is written. Next: casemate apply -i {given}")
    if user:
        click.echo(f"Before it, where {user} is not there yet: casemate bootstrap -i {given}")
    for warning in warnings:
        click.echo(f"warning {warning}", err=True)
    return 0


def problems(
    servers: Sequence[str], agents: Sequence[str], user: str | None, sources: Sequence[str], output: Path | None
) -> list[str]:
    """What is wrong with each thing that was given, as far as it was."""
    return [
        *(file_problems(output) if output else ()),
        *nodes_of("server", servers)[1],
        *nodes_of("agent", agents)[1],
        *(user_problems(user) if user is not None else ()),
        *source_problems(sources),
    ]


def _nodes(kind: str, text: str) -> tuple[str, ...]:
    return valid(tuple(text.split()), nodes_of(kind, text.split())[1])


def _user(text: str) -> str:
    return valid(text, user_problems(text))


def _sources(text: str) -> tuple[str, ...]:
    return valid(tuple(text.split()), source_problems(text.split()))


def _file(text: str) -> Path:
    return valid(Path(text), file_problems(Path(text)))
