"""What Casemate wrote for a control that is waived now, and how it is taken back.

For each kind that writes: what of its own still stands for a setting (or why that has to stay), the entries of its
shared file that nothing asks for, and the taking back, by the kind's own validated and guarded writing. A mode, a
package, an account or a unit has no earlier state that is known: it stays as it is.
"""

from __future__ import annotations

import json
import os
import stat as statmod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

from ..core.verdict import Setting, Unavailable
from ..formats.sshd_files import OWNED
from ..host.machine import EnforceError, Host
from ..host.text import split_lines
from ..k3s import dropins as k3s_dropins
from ..k3s import files as k3s_files
from ..k3s import owned as k8s_owned
from ..k3s import resolvers
from ..k3s import values as k3s_values
from ..k3s.api import Api
from ..kinds import file, k3s_config, k8s_object, kernel_module, nft, sshd, sysctl


class Left(NamedTuple):
    """Where something of ours still stands ("" for nowhere), and why it has to stay ("" where it can go)."""

    where: str = ""
    stays: str = ""


@dataclass(frozen=True)
class Run:
    """What a pass over all kinds knows: the settings that no waiver excuses, and whether it only checks."""

    wanted: Sequence[Setting]
    check: bool


@dataclass(frozen=True)
class Kind:
    """How one kind takes back; `take` gets the settings of its kind that are waived, and those that are not."""

    left: Callable[[Setting, Run, Host], Left] = lambda setting, run, host: Left()
    take: Callable[[list[Setting], list[Setting], Host], None] = lambda waived, wanted, host: None
    unasked: Callable[[list[Setting], Host], str] = lambda settings, host: ""
    lasting: Callable[[Setting, Host], bool] = lambda setting, host: False
    written: Callable[[Setting], str] = lambda setting: ""


def _at(path: str, said: str, host: Host) -> Left:
    """Something of ours in a file, which stays where even root may not change that."""
    return Left(said, host.barred(path) if said else "")


def _lines(path: str, host: Host) -> list[str]:
    lines = (line.strip() for line in split_lines(host.text(path) or ""))
    return [line for line in lines if line and not line.startswith("#")]


def file_left(setting: Setting, run: Run, host: Host) -> Left:
    """A file that is ours, by its name or its first line, unless something still needs it."""
    path, seen = setting["path"], host.stat(setting["path"])
    if "content" not in setting or seen is None or not statmod.S_ISREG(seen.st_mode):
        return Left()
    if "casemate" not in os.path.basename(path) and not path.startswith(os.path.dirname(k3s_files.BASE) + "/"):
        return Left(path, "it belongs to the system, and what it held before is not known")
    if b"Managed by Casemate" not in (host.read(path) or b"")[:300]:
        return Left()  # somebody has put another one in its place
    if path in json.dumps(run.wanted, default=str):
        return Left(path, "a control that is not waived names it")
    for source in k3s_files.sources(host):
        rewritten = run.check and os.path.basename(source.path).startswith("casemate-")
        if path in (host.text(source.path) or "") and not rewritten:
            return Left(path, f"{source.path} still names it")
    return _at(path, path, host)


def take_files(waived: list[Setting], _: list[Setting], host: Host) -> None:
    """Remove them, and load what is left."""
    for setting in waived:
        host.remove(setting["path"])
        command = tuple(setting.get("reload") or ())
        if command:
            _reload(command, host)


def _reload(command: tuple[str, ...], host: Host) -> None:
    if command not in file.RELOADS:
        raise EnforceError(f"{' '.join(command)} is not an allowed reload")
    done = host.run(command)
    if done.rc != 0:
        raise EnforceError(f"{' '.join(command)} failed: {(done.err or done.out).strip()[:300]}")


def link_left(setting: Setting, run: Run, host: Host) -> Left:
    """A link to our program; one that leads elsewhere, or a file in its place, is somebody else's."""
    path, seen = setting["path"], host.stat(setting["path"])
    if seen is None or not statmod.S_ISLNK(seen.st_mode):
        return Left()
    leads = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(host.path(path))))
    return Left(path if leads == f"{os.path.dirname(path)}/{setting['target']}" else "")


def take_links(waived: list[Setting], _: list[Setting], host: Host) -> None:
    """Remove them. No guard keeps a link: it says where a program is and decides nothing."""
    for path in (setting["path"] for setting in waived):
        with host.folder(path) as folder:
            os.unlink(os.path.join(folder, os.path.basename(path)))
        host.changed(path, "link\n", "")


def _keywords(host: Host) -> list[str]:
    return [line.split(None, 1)[0].lower() for line in _lines(OWNED, host)]


def sshd_left(setting: Setting, run: Run, host: Host) -> Left:
    """A keyword in the owned drop-in."""
    return _at(OWNED, f"{OWNED} sets {setting['key']}" if setting["key"] in _keywords(host) else "", host)


def sshd_unasked(settings: list[Setting], host: Host) -> str:
    """Keywords in the owned drop-in that no control has."""
    return _beyond(OWNED, _keywords(host), [setting["key"] for setting in settings])


def _parameters(host: Host) -> list[str]:
    return [line.partition("=")[0].strip() for line in _lines(sysctl.OWNED, host)]


def sysctl_left(setting: Setting, run: Run, host: Host) -> Left:
    """A line of the owned file."""
    said = f"{sysctl.OWNED} sets {setting['key']}" if setting["key"] in _parameters(host) else ""
    return _at(sysctl.OWNED, said, host)


def take_sysctls(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Write the owned file without them. The live value becomes that of the next boot, where a file names one."""
    sysctl.enforce(wanted, set(), host)
    lines = sysctl.boot_lines(host)
    for setting in waived:
        for path in host.glob(sysctl.PROC + sysctl.below_proc(setting["key"])):
            value, _ = sysctl.boot_value(path[len(sysctl.PROC) :], lines)
            live = sysctl.normal(host.text(path))
            if value is not None and live != value and os.access(host.path(path), os.W_OK):
                sysctl.set_live(path, value, host)


def sysctl_unasked(settings: list[Setting], host: Host) -> str:
    """Parameters in the owned file that no control has."""
    return _beyond(sysctl.OWNED, _parameters(host), [setting["key"] for setting in settings])


def _modules(host: Host) -> list[tuple[str, str]]:
    """(file, module) of the two owned files."""
    blocked = [line.split() for line in _lines(kernel_module.BLOCKED, host)]
    found = [(kernel_module.BLOCKED, words[1]) for words in blocked if len(words) > 1]
    return list(dict.fromkeys([*found, *((kernel_module.LOADED, line) for line in _lines(kernel_module.LOADED, host))]))


def _module_file(setting: Setting) -> str:
    return kernel_module.BLOCKED if setting["state"] == "blocked" else kernel_module.LOADED


def module_left(setting: Setting, run: Run, host: Host) -> Left:
    """A line of the owned files. What is loaded or not stays as it is until the next boot."""
    path = _module_file(setting)
    return _at(path, f"{path} names {setting['name']}" if (path, setting["name"]) in _modules(host) else "", host)


def take_modules(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Write the owned files without them; one that would be empty goes."""
    kernel_module.enforce(wanted, set(), host)
    for path in {kernel_module.BLOCKED, kernel_module.LOADED} - {_module_file(setting) for setting in wanted}:
        host.remove(path)


def module_unasked(settings: list[Setting], host: Host) -> str:
    """Modules in the owned files that no control has."""
    asked = [(_module_file(setting), setting["name"]) for setting in settings]
    extra = [(path, name) for path, name in _modules(host) if (path, name) not in asked]
    return f"{extra[0][0]} holds {', '.join(name for _, name in extra)}, which no control asks for" if extra else ""


def _beyond(path: str, have: list[str], asked: list[str]) -> str:
    extra = [name for name in dict.fromkeys(have) if name not in asked]
    return f"{path} holds {', '.join(extra)}, which no control asks for" if extra else ""


def k3s_left(setting: Setting, run: Run, host: Host) -> Left:
    """Keys and flags in the owned drop-in, but those that a running cluster cannot be without."""
    if "file" not in setting:
        return Left()
    path = f"{k3s_files.FOLDER}/{setting['file']}"
    mine = dict(next((one.entries for one in k3s_files.sources(host) if one.path == path), []))
    others = [one for one in run.wanted if one["kind"] == "k3s_config" and one.get("file") == setting["file"]]
    declared = k3s_config.declared(others, str(host.context.get("version", "")))
    gone = set(k3s_values.left_over(mine, declared.get(setting["file"], {})))
    stand = []
    for key, value in k3s_values.wanted(setting).items():
        if key.endswith("-arg"):
            flags = {k3s_files.flag_of(item)[0] for item in k3s_values.listed(value)}
            there = [
                f"{key}: {flag}"
                for flag, _ in map(k3s_files.flag_of, k3s_files.items(mine.get(key, [])))
                if flag in flags
            ]
            stand += there if key in gone else [one for one in there if one in gone]
        elif key in gone:
            stand.append(key)
    lasting = [key for key in stand if key in k3s_files.LASTING or "options" in setting]
    free = [key for key in stand if key not in lasting]
    if free:
        return _at(path, f"{path} holds {', '.join(free)}", host)
    return Left(f"{path} holds {', '.join(lasting)}", "the node could not go on without it") if lasting else Left()


def k3s_lasting(setting: Setting, host: Host) -> bool:
    """Who the node is and what it joined, once that is written: it goes on being written."""
    return "options" in setting and host.stat(f"{k3s_files.FOLDER}/{setting['file']}") is not None


def take_k3s(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Write the owned drop-ins without them; one that would be empty goes. K3s is restarted by its role."""
    names = {setting["file"] for setting in waived}
    version = str(host.context.get("version", ""))
    declared = k3s_config.declared(resolvers.chosen(wanted, host), version)
    files = k3s_files.kept({**{name: {} for name in names}, **declared}, host)
    for name in sorted(names):
        secret = any(one.get("sensitive") for one in [*waived, *wanted] if one.get("file") == name)
        if files[name]:
            k3s_dropins.write(host, name, files[name], secret)
        else:
            host.remove(f"{k3s_files.FOLDER}/{name}")


def nft_left(setting: Setting, run: Run, host: Host) -> Left:
    """The table as a whole, and the file that the next boot loads; a part of it has nothing of its own."""
    if "ruleset" not in setting:
        return Left()
    loaded = host.run(["nft", *nft.LIST.split()]).rc == 0
    there = [nft.FILE] * (host.stat(nft.FILE) is not None) + ["the table inet casemate"] * loaded
    return _at(nft.FILE, " and ".join(there), host)


def take_nft(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Remove file and table under the guard; nobody else's table is touched."""
    host.arm([nft.FILE])
    host.remove(nft.FILE)
    if host.run(["nft", *nft.LIST.split()]).rc == 0:
        done = host.run(["nft", *nft.LIST.replace("list", "delete", 1).split()])
        if done.rc != 0:
            raise EnforceError(f"the table inet casemate could not be deleted: {(done.err or done.out).strip()[:300]}")
        host.changed("nft table inet casemate", "loaded\n", "")


def _managed(setting: Setting, api: Api) -> list[tuple[str, Any]]:
    """(path, object) of each object of which the field manager casemate holds fields."""
    return k8s_owned.managed(k8s_object.paths(setting, k8s_object.namespaces(api), {}), api)


def object_left(setting: Setting, run: Run, host: Host) -> Left:
    """Objects of which our field manager holds fields; nothing is known where the API server does not answer."""
    if "body" not in setting:
        return Left()
    try:
        paths = [path for path, _ in _managed(setting, Api(host))]
    except Unavailable:
        return Left()
    return Left(
        f"{', '.join(paths[:3])}{' and others' * (len(paths) > 3)}: fields of the manager casemate" if paths else ""
    )


def take_objects(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Give up our fields of each object."""
    api = Api(host)
    for setting in waived:
        for path, item in _managed(setting, api):
            k8s_owned.give_up(setting, path, item, api, host)


def written(setting: Setting) -> str:
    """The file of ours that a setting is written to, which may still be a template; "" for none."""
    return KINDS.get(setting["kind"], Kind()).written(setting)


KINDS: dict[str, Kind] = {
    "file": Kind(file_left, take_files, written=lambda setting: setting["path"] if "content" in setting else ""),
    "link": Kind(link_left, take_links),
    "kernel_module": Kind(module_left, take_modules, module_unasked, written=_module_file),
    "sysctl": Kind(sysctl_left, take_sysctls, sysctl_unasked, written=lambda setting: sysctl.OWNED),
    "k3s_config": Kind(
        k3s_left,
        take_k3s,
        lasting=k3s_lasting,
        written=lambda setting: f"{k3s_files.FOLDER}/{setting['file']}" if "file" in setting else "",
    ),
    "sshd": Kind(
        sshd_left,
        lambda waived, wanted, host: sshd.enforce(wanted, set(), host),
        sshd_unasked,
        written=lambda setting: OWNED,
    ),
    "nft": Kind(nft_left, take_nft, written=lambda setting: nft.FILE),
    "k8s_object": Kind(object_left, take_objects),
}
"""Kind -> how it takes back. One that is not here writes nothing that could be told from what was there before."""
