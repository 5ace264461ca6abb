"""Mount options: what the kernel applies now, and what the next boot would apply.

/etc/fstab and mount units are the operator's: a wrong line there can stop a machine from booting, so Casemate
names the line to write and leaves it to them. It writes the line itself where systemd mounts the folder whatever the
line says, and only gives it its options then. Sources: proc(5) (mountinfo), systemd.mount(5),
systemd-remount-fs.service(8) (fstab options of API file systems), systemd's mount-setup.c (their defaults).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, NamedTuple, TypedDict

from ..core.schema import Key
from ..core.verdict import Left, Observation, Verdict
from ..host.machine import EnforceError, Host
from ..host.text import SPACE, split_lines, split_words
from .kind import Enforceable, Kind, Owned, Pass


class Needed(TypedDict):
    """What every setting of this kind says."""

    path: Annotated[str, Key("a folder", pattern=r"/\S*")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind may demand."""

    options: Annotated[list[str], Key("options that must apply, such as nodev; the folder must be a mount itself")]
    without: Annotated[list[str], Key("options that must not apply to the mount that holds the folder")]


SYSTEMD_DEFAULTS = {"/dev/shm": ["nosuid", "nodev"], "/run": ["nosuid", "nodev"], "/dev": ["nosuid"]}  # noqa: S108


RESTRICTIONS = {"nodev", "nosuid", "noexec"}
TABLE = "/etc/fstab"
MARK = "# Casemate; before: "
"""Begins a comment above a line of ours, with the line that stood there."""


def identity(setting: Setting) -> str:
    """A folder and the options that are demanded of it, or forbidden."""
    options = [*(setting.get("options") or ()), *(f"no {name}" for name in setting.get("without") or ())]
    return f"{setting['path']}:{','.join(sorted(options))}"


def unescape(text: str) -> str:
    r"""Octal escapes of mountinfo and fstab: `\040` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


class Mount(NamedTuple):
    """What is mounted somewhere: the options that apply, the type of the file system, and what it lies on."""

    options: list[str]
    sort: str
    source: str


def mounts(text: str) -> dict[str, Mount]:
    """Mount point -> what is mounted there; of mounts on top of each other the last is the visible one."""
    found: dict[str, Mount] = {}
    for line in split_lines(text):
        fields = line.split(" ")
        if len(fields) >= 10 and "-" in fields:
            sort, source = [*fields[fields.index("-") + 1 :], "", ""][:2]
            options = sorted({*fields[5].split(","), *fields[-1].split(",")})
            found[unescape(fields[4])] = Mount(options, sort, source)
    return found


def entries(table: str) -> dict[str, list[str]]:
    """Mount point -> the fields of its line of /etc/fstab; of several lines the last."""
    lines = (split_words(line) for line in split_lines(table) if not line.lstrip(SPACE).startswith("#"))
    return {unescape(fields[1]): fields for fields in lines if len(fields) >= 4}


def fstab(table: str) -> dict[str, list[str]]:
    """Mount point -> options of /etc/fstab."""
    return {path: fields[3].split(",") for path, fields in entries(table).items()}


def line(path: str, wanted: set[str], banned: set[str], now: Mount | None, there: list[str] | None) -> str:
    """The line of /etc/fstab that gives a mount the options: the one that is there, changed, or a new one.

    Of what is mounted now the restrictions stay.
    """
    source, sort = ("tmpfs", "tmpfs") if path == "/tmp" else ("PARTITION", "ext4")  # noqa: S108 - where it has none
    if now:
        source, sort = now.source, now.sort
        wanted = wanted | (set(now.options) & RESTRICTIONS - banned)
    made = there or [source, path, sort, "defaults", "0", "0" if sort == "tmpfs" else "2"]
    dropped = wanted | banned | {option[2:] for option in wanted}
    options = [option for option in made[3].split(",") if option not in dropped]
    return " ".join([*made[:3], ",".join([*options, *sorted(wanted)]), *made[4:]])


def unit_options(path: str, host: Host) -> list[str] | None:
    """Options of the mount unit on disk (drop-ins included), or None where there is none."""
    name = path.strip("/").replace("-", r"\x2d").replace("/", "-") + ".mount"
    shown = host.systemctl(name, "FragmentPath", "DropInPaths")
    if not shown["FragmentPath"].startswith(("/etc/", "/usr/", "/lib/")):
        return None
    options: list[str] = []
    for file in [shown["FragmentPath"], *shown["DropInPaths"].split()]:
        for value in re.findall(r"(?m)^Options=(.*)$", host.text(file) or ""):
            options = value.strip().split(",")
    return options


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """The mount that holds each folder, its options now, and those of the next boot with their source."""
    now, table = mounts(host.text("/proc/self/mountinfo") or ""), entries(host.text(TABLE) or "")
    seen: list[Observation] = []
    for setting in settings:
        path = setting["path"].rstrip("/") or "/"
        holders = [m for m in now if path == m or path.startswith(m.rstrip("/") + "/")]
        holder = max(holders, key=len, default="")
        one: dict[str, Any] = {"mount": holder, "now": now[holder].options if holder in now else []}
        if holder in table:
            one.update(boot=table[holder][3].split(","), source=TABLE)
        elif (unit := unit_options(holder, host)) is not None:
            one.update(boot=unit, source="its mount unit")
        elif holder in SYSTEMD_DEFAULTS:
            one.update(boot=SYSTEMD_DEFAULTS[holder], source="systemd's default")
        else:
            one.update(boot=None, source="nothing on this machine")
        wanted, banned = set(setting.get("options") or ()), set(setting.get("without") or ())
        place = holder if banned else path
        one["line"] = line(place, wanted, banned, now.get(place), table.get(place))
        seen.append(one)
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Now and at the next boot: every wanted option, none of the forbidden ones.

    Where nothing on the machine decides the next boot (a container manager mounts it), now counts.
    """
    wanted, banned = set(setting.get("options") or ()), set(setting.get("without") or ())
    path = setting["path"].rstrip("/") or "/"
    boot = seen["now"] if seen["boot"] is None else seen["boot"]
    expected = {"options": sorted(wanted)} if wanted else {"without": sorted(banned)}
    shown = {when: sorted((wanted | banned) & set(o)) for when, o in (("now", seen["now"]), ("next boot", boot))}
    evidence = f"/proc/self/mountinfo: {seen['mount']} {','.join(seen['now'])}; next boot: {seen['source']}"
    reasons = []
    if wanted and seen["mount"] != path:
        return Verdict(
            ok=False,
            expected=expected,
            observed="not a mount of its own",
            reason=f"it lies on {seen['mount'] or '?'}; give it one of its own, in /etc/fstab: {seen['line']}",
            evidence=evidence,
        )
    for when, options in (("now", seen["now"]), ("at the next boot", boot)):
        lacking, there = sorted(wanted - set(options)), sorted(banned & set(options))
        reasons += [f"{', '.join(lacking)} missing {when}"] if lacking else []
        reasons += [f"{', '.join(there)} set {when}"] if there else []
    advice = f"; in /etc/fstab: {seen['line']}; then: mount -o remount {seen['mount']}" if reasons else ""
    return Verdict(
        ok=not reasons, expected=expected, observed=shown, reason="; ".join(reasons) + advice, evidence=evidence
    )


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write the line of a folder that systemd mounts by itself, and give the mount its options now."""
    for setting in (settings[index] for index in sorted(failing)):
        path, wanted = setting["path"], set(setting.get("options") or ())
        now = mounts(host.text("/proc/self/mountinfo") or "").get(path)
        if path not in SYSTEMD_DEFAULTS or now is None:
            raise EnforceError(f"{path} is no mount that systemd makes by itself, so its line is the operator's")
        text = host.text(TABLE) or ""
        fields = entries(text).get(path)
        if not wanted <= set(fields[3].split(",") if fields else SYSTEMD_DEFAULTS[path]):
            host.write(
                TABLE, _with(text, path, line(path, wanted, set(), now, fields)).encode("utf-8", "surrogateescape")
            )
        if not wanted <= set(now.options):
            host.must_run(
                ["mount", "-o", f"remount,{','.join(sorted(wanted | set(now.options) & RESTRICTIONS))}", path]
            )


def _with(text: str, path: str, new: str) -> str:
    """The table with one line for a mount point, where its last one was or at the end; above it what stood there."""
    lines = split_lines(_without_mark(text, path))
    own = [number for number, one in enumerate(lines) if path in entries(one)]
    if own:
        lines[own[-1] : own[-1] + 1] = [MARK + lines[own[-1]].strip(SPACE), new]
    else:
        lines += [MARK + path, new]
    return "".join(f"{one}\n" for one in lines)


def _mark(path: str) -> re.Pattern[str]:
    """The comment above a line of ours, with what stood there or the mount point alone, and that line."""
    escaped = re.escape(path)
    return re.compile(rf"(?m)^{MARK}((?:\S+[ \t]+)?{escaped}(?:[ \t].*)?)\n\S+[ \t]+{escaped}[ \t].*\n?")


def _without_mark(text: str, path: str) -> str:
    """The table as it was before a line of ours."""
    return _mark(path).sub(lambda found: "" if found[1] == path else f"{found[1]}\n", text)


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """The table, as long as its line is ours."""
    return Left(TABLE if _mark(setting["path"]).search(host.text(TABLE) or "") else "")


def take_back(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Put the line back that stood there. What is mounted keeps its options until the next boot."""
    for setting in waived:
        text = host.text(TABLE) or ""
        host.write(TABLE, _without_mark(text, setting["path"]).encode("utf-8", "surrogateescape"))


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, enforced_by="engine", enforce=enforce, owned=Owned(left, take_back)
)
