"""What must be right before the first change: input, inventory, host and lock. Pure but for reading files.

argument_specs check types and ignore unknown names and ranges; here every `k3s_*` and `casemate_*` variable
must be known, of its type and within its range. Each problem names the variable, what it is (a secret's value
never), what is allowed, and what to do.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import ipaddress
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from casemate import ROOT
from casemate.lock import ARCHITECTURES, LockError, load, verify

Spec = Mapping[str, Any]
PREFIXES = ("k3s_", "casemate_")
SECRET = re.compile(r"token|passw|secret|credential|private", re.IGNORECASE)
SUPPORTED = {
    ("debian", "12"): True,
    ("debian", "13"): True,
    ("ubuntu", "22.04"): False,
    ("ubuntu", "24.04"): False,
}
WAIVER = ("reason", "owner", "expires")
SPACE_NEW, SPACE_INSTALLED, SPACE_ETC = 1024, 200, 16
"""Free MiB needed where K3s keeps its data (before and after its installation) and for /etc."""
PROBE = r"""
say() { printf 'casemate:%s=%s\n' "$1" "$2"; }
near() {
  d=$1
  while [ ! -d "$d" ]; do d=${d%/*}; d=${d:-/}; done
  df -Pk "$d" | awk 'END { print int($4 / 1024) }'
}
say uid "$(id -u)"
say machine "$(uname -m)"
say os "$(. /etc/os-release; printf '%s %s' "$ID" "$VERSION_ID")"
for p in PYTHONS; do
  v=$("$p" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) && say python "$v" && break
done
say data "$(near /var/lib/rancher)"
say etc "$(near /etc)"
[ -w /etc ] && say writable yes
[ -e /usr/local/bin/k3s ] && say installed yes
p=$$
while [ "${p:-1}" -gt 1 ]; do
  s=$(tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | sed -n 's/^SSH_CONNECTION=\([^ ]*\) .*/\1/p')
  [ -n "$s" ] && say source "$s" && break
  p=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$p/status" 2>/dev/null)
done
true
"""
"""Run by root's sh on the host; reads only. sudo drops SSH_CONNECTION, so its parents are asked for it."""
PYTHONS = "python3.13 python3.12 python3.11 python3.10 python3.9 python3"


def probe(interpreter: str = "") -> str:
    """The probe for a host whose `ansible_python_interpreter` is given: a path is taken at its word."""
    return PROBE.replace("PYTHONS", shlex.quote(interpreter) if interpreter.startswith("/") else PYTHONS, 1)


def read_yaml(path: Path) -> Any:
    """The content of one of the project's YAML files."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


def known_inputs(root: Path = ROOT) -> dict[str, Spec]:
    """Every variable that an operator may set, with its specification: the roles' and the shared ones."""
    known: dict[str, Spec] = dict(read_yaml(Path(__file__).parent / "schema/inputs.yml"))
    for path in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        role = path.parents[1]
        limits_file = role / "vars/main/limits.yml"
        limits = read_yaml(limits_file)[f"__{role.name}_limits"] if limits_file.is_file() else {}
        for entry in read_yaml(path)["argument_specs"].values():
            for name, spec in (entry.get("options") or {}).items():
                if name.startswith(PREFIXES):
                    limit = dict((limits or {}).get(name) or {})
                    choices = {"choices": limit.pop("one_of")} if "one_of" in limit else {}
                    known.setdefault(name, {**spec, **limit, **choices})
    return known


def known_controls(root: Path = ROOT) -> set[str]:
    """The ids of all declared controls."""
    found: set[str] = set()
    for path in sorted(root.glob("roles/*/vars/main/controls.yml")):
        found |= set(re.findall(r"^\s*-\s+\{?id:\s*\"?([A-Z0-9-]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    return found


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint with the most similar name, or nothing."""
    close = difflib.get_close_matches(name, list(names), 1, 0.6)
    return f"; did you mean {close[0]}" if close else ""


def shown(name: str, value: Any, spec: Spec) -> str:
    """A value as a message may show it: never one that could be or hold a secret."""
    if spec.get("no_log") or SECRET.search(name) or isinstance(value, (dict, list)):
        return f"a {type(value).__name__} (not shown)"
    return repr(value) if len(repr(value)) <= 120 else f"{value!r:.117}..."


def network(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A CIDR network or single address, or None when it is neither."""
    try:
        return ipaddress.ip_network(str(text)) if isinstance(text, str) else None
    except ValueError:
        return None


def _is_int(value: Any) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or bool(re.fullmatch(r"-?\d+", str(value))))


TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("a string", lambda v: isinstance(v, str) or _is_int(v) or isinstance(v, float)),
    "path": ("a path", lambda v: isinstance(v, str)),
    "int": ("a whole number", _is_int),
    "float": ("a number", lambda v: _is_int(v) or isinstance(v, float)),
    "bool": (
        "true or false",
        lambda v: isinstance(v, bool) or str(v).lower() in ("true", "false", "yes", "no"),
    ),
    "list": ("a list", lambda v: isinstance(v, list)),
    "dict": ("a mapping", lambda v: isinstance(v, dict)),
    "raw": ("anything", lambda v: True),
}


def value_problems(name: str, value: Any, spec: Spec) -> list[str]:
    """Everything that is wrong with one variable, its items and its sub-options."""
    kind = spec.get("type", "str")
    what, fits = TYPES[kind]
    if not fits(value):
        return [f"{name} is {shown(name, value, spec)}; it must be {what}"]
    if kind == "list":
        each = {k: v for k, v in spec.items() if k not in ("type", "elements", "min", "max")}
        each["type"] = spec.get("elements", "raw")
        count = len(value)
        if (spec.get("required") and not count) or not spec.get("min", 0) <= count <= spec.get("max", count):
            return [f"{name} has {count} items; {allowed({**spec, 'min': spec.get('min', 1)}, 'items')}"]
        return [p for index, item in enumerate(value) for p in value_problems(f"{name}[{index}]", item, each)]
    if kind == "dict":
        options = spec.get("options") or {}
        found = [
            f"{name}.{key} is not known{nearest(str(key), options)}" for key in value if options and key not in options
        ]
        found += [
            f"{name}.{key} is missing" for key, sub in options.items() if sub.get("required") and key not in value
        ]
        return found + [
            p for key, sub in options.items() if key in value for p in value_problems(f"{name}.{key}", value[key], sub)
        ]
    number = float(value) if kind in ("int", "float") else None
    outside = number is not None and not spec.get("min", number) <= number <= spec.get("max", number)
    choices = [str(choice) for choice in spec.get("choices") or ()]
    unlike = bool(spec.get("pattern")) and not re.fullmatch(str(spec["pattern"]), str(value))
    if outside or unlike or (choices and str(value) not in choices):
        return [f"{name} is {shown(name, value, spec)}; {allowed(spec)}"]
    return format_problems(name, value, spec)


def allowed(spec: Spec, unit: str = "") -> str:
    """What a variable may be, in words."""
    if spec.get("choices"):
        return f"allowed: {', '.join(map(str, spec['choices']))}"
    if spec.get("pattern"):
        return f"it must match {spec['pattern']}" + (f", such as {spec['default']}" if spec.get("default") else "")
    return f"allowed: {spec.get('min', 'any')} to {spec.get('max', 'any')} {unit}".rstrip()


def format_problems(name: str, value: Any, spec: Spec) -> list[str]:
    """What is wrong with a value that has to be a network or to exist on the controller."""
    form, text = spec.get("format"), shown(name, value, spec)
    if form == "cidr" and network(value) is None:
        return [f"{name} is {text}; it must be an address or a network without host bits, such as 192.0.2.0/24"]
    if form in ("file", "folder"):
        path = Path(str(value)).expanduser()
        if not path.is_absolute():
            return [f"{name} is {text}; write an absolute path, for example with {{{{ inventory_dir }}}}"]
        if not (path.is_file() if form == "file" else path.is_dir()):
            return [f"{name} is {text}; there is no such {form} on this controller: create it or correct the path"]
    return []


def input_problems(values: Mapping[str, Any], known: Mapping[str, Spec]) -> list[str]:
    """What is wrong with a host's `k3s_*` and `casemate_*` variables (resolved); others are left alone."""
    found = []
    for name, value in sorted(values.items()):
        if name in known:
            if value is not None or known[name].get("required"):
                found += value_problems(name, value, known[name])
        elif name.startswith(PREFIXES):
            found.append(f"{name} is not a variable of Casemate{nearest(name, known)}: correct or remove it")
    for name, spec in known.items():
        if spec.get("required") and name not in values:
            example = f", for example {name}: {spec['example']}" if spec.get("example") else ""
            found.append(f"{name} is missing: {spec['description']} Set it in the inventory{example}")
    return found


def rule_problems(values: Mapping[str, Any], controls: Iterable[str]) -> list[str]:
    """What single types cannot say: waivers, networks that admit everybody or overlap."""
    found: list[str] = []
    ids = set(controls)
    waivers = values.get("casemate_waivers")
    for control, waiver in (waivers if isinstance(waivers, dict) else {}).items():
        where = f"casemate_waivers.{control}"
        if control not in ids:
            found.append(f"{where}: no such control{nearest(str(control), ids)}; `casemate explain --all` lists them")
        if not isinstance(waiver, dict) or set(waiver) != set(WAIVER):
            found.append(f"{where} must have exactly {', '.join(WAIVER)}")
            continue
        found += [
            f"{where}.{key} is empty; say it in words" for key in WAIVER[:2] if not str(waiver[key] or "").strip()
        ]
        try:
            datetime.date.fromisoformat(str(waiver["expires"]))
        except ValueError:
            found.append(f"{where}.expires is {str(waiver['expires'])!r}; write a date as YYYY-MM-DD")
    sources = values.get("casemate_admin_sources")
    for source in sources if isinstance(sources, list) else []:
        net = network(source)
        if net is not None and net.prefixlen == 0:
            found.append(f"casemate_admin_sources has {source}, which is everybody; list the networks of your people")
    pods, services = (network(values.get(f"casemate_{what}_cidr")) for what in ("cluster", "service"))
    if pods and services and pods.version == services.version and pods.overlaps(services):
        found.append(f"casemate_cluster_cidr {pods} and casemate_service_cidr {services} overlap; separate them")
    return found


def inventory_problems(name: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """What is wrong with the groups of the inventory, seen from one host."""
    servers, agents = groups.get("k3s_server") or [], groups.get("k3s_agent") or []
    found = []
    if not servers:
        found.append("the inventory has no server: put at least one host into the group k3s_server")
    if name in servers and name in agents:
        found.append(f"{name} is in both k3s_server and k3s_agent: leave it in one (a server runs workloads too)")
    return found


def parse_probe(output: str) -> dict[str, str]:
    """The key=value lines of PROBE; whatever else a host prints (banners) is ignored."""
    return dict(re.findall(r"^casemate:(\w+)=(.*?)\s*$", output, re.MULTILINE))


def host_problems(seen: Mapping[str, str], sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """(problems, warnings) of a host, from what PROBE said and the admin sources."""
    problems, warnings = [], []
    if seen.get("uid") != "0":
        problems.append(f"the tasks run with uid {seen.get('uid')}, not as root: give the account NOPASSWD sudo")
    name, _, version = seen.get("os", "").partition(" ")
    tested = SUPPORTED.get((name, version))
    if tested is None:
        problems.append(
            f"{name} {version} is not supported; supported: Debian 12 and 13 (Ubuntu 22.04, 24.04 untested)"
        )
    elif not tested:
        warnings.append(f"{name} {version} is accepted but untested; Debian 12 and 13 are tested")
    if seen.get("machine") not in ARCHITECTURES:
        problems.append(f"machine type {seen.get('machine')} is not supported; supported: {', '.join(ARCHITECTURES)}")
    python = seen.get("python", "")
    if not python or tuple(map(int, python.split("."))) < (3, 9):
        problems.append(f"Python is {python or 'missing'}; 3.9 or newer is needed: apt-get install python3")
    need = SPACE_INSTALLED if seen.get("installed") else SPACE_NEW
    for key, path, least in (("data", "/var/lib/rancher", need), ("etc", "/etc", SPACE_ETC)):
        free = seen.get(key, "")
        if not free.isdigit() or int(free) < least:
            problems.append(f"{path} has {free or '?'} MiB free; {least} MiB are needed: free or add disk space")
    if not seen.get("writable"):
        problems.append("/etc cannot be written: remount its filesystem read-write")
    source = seen.get("source", "")
    if source and not any(inside(source, net) for net in sources):
        problems.append(
            f"casemate_admin_sources does not contain {source}, where this controller comes from: "
            "add it, or the firewall would lock the controller out"
        )
    return problems, warnings


def inside(address: str, net: str) -> bool:
    """Whether an address (also an IPv4 one mapped into IPv6, or with a zone) is in a network."""
    there, home = network(address.partition("%")[0].removeprefix("::ffff:")), network(net)
    return bool(there and home and there.version == home.version and there.network_address in home)


def lock_problems(values: Mapping[str, Any], machine: str = "") -> list[str]:
    """What is wrong with the lock, its signature, and, for a machine type, with the local release folder."""
    path = Path(str(values.get("casemate_artifact_lock") or ROOT / "roles/k3s_node/files/artifacts.lock.json"))
    signers, folder = values.get("casemate_allowed_signers"), values.get("casemate_artifact_dir")
    try:
        release = load(path.expanduser()).release(values.get("casemate_k3s_version"))
        if signers:
            verify(path.expanduser(), Path(str(signers)).expanduser())
        if not (machine and folder):
            return []
        name, digest = release.binary(machine)
        file = Path(str(folder)).expanduser() / name
        if not file.is_file():
            return [f"casemate_artifact_dir {folder} has no {name}: copy it from the release {release.version}"]
        with file.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
    except LockError as refusal:
        return [f"{refusal}. Review and sign the lock, or correct casemate_artifact_lock or casemate_k3s_version"]
    if found == digest:
        return []
    return [f"{file} has sha256 {found}; the lock demands {digest}: fetch it again, it is not the reviewed file"]
