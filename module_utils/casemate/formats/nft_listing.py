"""Rules that make another packet of what comes in, in the words of `nft list ruleset` and of `iptables-save`.

In nftables no rule admits a packet for the chains that come after it, and one that is not tracked is nobody's answer:
ours judges both. What goes past ours is a packet that is another one when it arrives: sent elsewhere, rewritten, taken
by another socket, moved to another device, given to a program, or expected because of another connection. A mark goes
past the rules of network policies. Sources: nft(8), iptables-extensions(8); tried in tests/lab/test_rules_lab.py.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Dict, List, Set, Tuple

OWN = "table inet casemate"
INCOMING = re.compile(r"type \w+ hook (prerouting|input|forward|ingress)\b")
HOOK = re.compile(r"type \w+ hook \w+")
BASE = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
JUMP, ALSO_JUMP = re.compile(r"\b(?:jump|goto) ([^\s,}]+)"), re.compile(r"(?<= -[jg] )(\S+)")
COUNTED = re.compile(r"\bcounter packets \d+ bytes \d+")
SAVED = "-A "
"""With this begins a rule of `iptables-save`."""
MARK = re.compile(r"\b(?:meta|ct) mark set(.*)|-j (?:CONN)?MARK(.*)")
BITS = re.compile(r"(?:^|set-x?mark|or-mark|\bx?or\b|[|^]) (0x[0-9a-f]+|\d+)")
ELSEWHERE, REWRITES = "sends elsewhere what comes in", "rewrites what comes in"
SOCKET, MOVES = "gives what comes in to another socket", "moves or copies what comes in to another device or host"
PROGRAM, EXPECTS = "hands what comes in to a program, which may change it", "has further connections expected"
POLICIES = "gives what comes in a mark by which network policies let it pass"
NATIVE = (
    (r"\b(dnat|redirect)\b", ELSEWHERE), (r"(\b[sd](addr|port)|@\w+,\d+,\d+) set\b", REWRITES),
    (r"\btproxy\b", SOCKET), (r"\b(fwd|dup) to\b", MOVES), (r"(?<!@)\bqueue\b", PROGRAM),
    (r"\bct (helper|expectation) set\b", EXPECTS),
)  # fmt: skip
IPTABLES = (
    (r"-j (DNAT|REDIRECT|NETMAP)\b", ELSEWHERE), (r"-j TPROXY\b", SOCKET), (r"-j TEE\b", MOVES),
    (r"-j NFQUEUE\b", PROGRAM), (r"-j CT .*--helper\b", EXPECTS),
)  # fmt: skip
Chains = Dict[Tuple[str, str], List[str]]
"""(table, chain) -> its lines, the first of which says its hook where it has one."""


def chains(listing: str) -> Chains:
    """What nft lists."""
    found: Chains = {}
    table, lines = "", None
    for line in listing.split("\n"):
        words = line.split()
        if line.startswith("table "):
            table = " ".join(words[:3])
        elif line.startswith("\tchain "):
            lines = found.setdefault((table, words[1]), [])
        elif line.startswith("\t}"):
            lines = None
        elif lines is not None and words:
            lines.append(COUNTED.sub("counter", line.strip()))
    return found


def saved_chains(saved: str, family: str) -> Chains:
    """What iptables-save lists, as tables of such a family: nft does not show the targets of all of its rules."""
    found: Chains = {}
    table = ""
    for line in saved.split("\n"):
        name = line[len(SAVED) :].partition(" ")[0]
        if line.startswith("*"):
            table = f"table {family} {line[1:].strip()}"
        elif line.startswith(":"):
            name = line[1:].split()[0]
            found[table, name] = [f"type filter hook {name.lower()}"] if name in BASE else []
        elif line.startswith(SAVED):
            found[table, name].append(line)
    return found


def changing(every: Chains, known: Sequence[str], marks: int) -> Dict[Tuple[str, str], List[Tuple[str, str]]]:
    """(table, chain) -> (rule, what it does), for chains that packets pass and that are not `known`.

    `known` are patterns of tables or of chains; `marks` are the bits of a mark that let a packet pass elsewhere. Of
    rules for what goes out only that counts by which something else may come in.
    """
    found: Dict[Tuple[str, str], List[Tuple[str, str]]] = {}
    incoming = _passed(every, INCOMING, known)
    for chain in sorted(_passed(every, HOOK, known)):
        told = ((line, _does(QUOTED.sub('""', line), marks)) for line in every[chain])
        made = [(line, does) for line, does in told if does and (chain in incoming or does == EXPECTS)]
        if made:
            found[chain] = made
    return found


def _passed(every: Chains, hook: re.Pattern[str], known: Sequence[str]) -> Set[Tuple[str, str]]:
    """The chains that packets pass, from those with such a hook on."""
    ways = [chain for chain, lines in every.items() if lines and hook.match(lines[0])]
    passed: Set[Tuple[str, str]] = set()
    while ways:
        table, name = chain = ways.pop()
        if chain in passed or chain not in every or table == OWN or is_known(table, name, known):
            continue
        passed.add(chain)
        for line in every[chain]:
            plain = QUOTED.sub('""', line)
            ways += [(table, target) for target in (*JUMP.findall(plain), *ALSO_JUMP.findall(plain))]
    return passed


def is_known(table: str, name: str, known: Iterable[str]) -> bool:
    """Whether a table or chain is one that K3s makes."""
    return any(fnmatch.fnmatchcase(one, pattern) for pattern in known for one in (table, name))


def _does(rule: str, marks: int) -> str:
    is_saved = rule.startswith(SAVED)
    plain = rule if is_saved else JUMP.sub("", rule)
    does = (does for words, does in (IPTABLES if is_saved else NATIVE) if re.search(words, plain))
    mark = MARK.search(plain)
    return next(does, POLICIES if mark and _admits(mark[1] or mark[2], marks) else "")


def _admits(value: str, marks: int) -> bool:
    """Whether a mark gets one of the bits; one that is taken from somewhere may have any."""
    bits = BITS.findall(value)
    return (not bits and "and" not in value) or any(int(one, 0) & marks for one in bits)
