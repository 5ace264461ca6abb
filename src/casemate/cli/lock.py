"""`casemate lock`: add releases of K3s to the signed lock of digests, take them out, renew it, and say who signed."""

from __future__ import annotations

import datetime
import re
import shlex
from pathlib import Path

import click

from casemate.cli import app
from casemate.supply import artifact_lock, ceremony, channel
from casemate.supply.artifact_lock import VERSION, Lock, LockError
from casemate.supply.ceremony import DisagreementError
from casemate.supply.channel import Channel, ChannelError
from module_utils.casemate.core import waiver
from module_utils.casemate.host.signature import NAMESPACE

ARCHITECTURES = sorted(set(artifact_lock.ARCHITECTURES.values()))
SIGN = "ssh-keygen -Y sign -f ~/.ssh/id_ed25519 -n {namespace} < {path} > {path}.NAME.sig"


def _channels(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> list[Channel]:
    """Channels by their names; what is given by one name belongs together."""
    places: dict[str, list[str]] = {}
    for one in given:
        name, equals, place = one.partition("=")
        if not equals or not place or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise click.BadParameter(f"{one!r} is not NAME=PLACE, such as mirror=https://mirror.example.org/k3s/")
        places.setdefault(name.lower(), []).append(place)
    return [Channel(name, tuple(which)) for name, which in places.items()]


def _day(_: click.Context, __: click.Parameter, given: datetime.datetime | None) -> datetime.date | None:
    """A day that is not over."""
    day, today = given.date() if given else None, waiver.today_in_utc()
    if day and day < today:
        raise click.BadParameter(f"{day} is over: today is {today} in UTC")
    return day


def _version(_: click.Context, __: click.Parameter, given: str) -> str:
    if not re.fullmatch(VERSION, given):
        raise click.BadParameter(f"{given!r} is no version of K3s such as v1.36.4+k3s1")
    return given


PATH = click.option("--lock", "path", type=click.Path(dir_okay=False, path_type=Path),
                    default=Path("artifacts.lock.json"), show_default=True,
                    help="The lock, as casemate_artifact_lock names it.")  # fmt: skip
EXPIRES = click.option("--expires", type=click.DateTime(["%Y-%m-%d"]), callback=_day, metavar="DATE",
                       help="The last day of the lock, in UTC, as YYYY-MM-DD. Default: as it is.")  # fmt: skip
RELEASE = click.argument("version", callback=_version)


@click.group()
def lock() -> None:
    """Say which bytes are K3s, and who vouches for them."""


@lock.command()
@RELEASE
@click.option("--channel", "channels", required=True, multiple=True, metavar="NAME=PLACE", callback=_channels,
              help="Where digests come from: a folder of the release, a file of checksums, or an https address of "
                   "one, or of a folder with such when it ends with /. Two names or more (repeatable).")  # fmt: skip
@PATH
@EXPIRES
@click.option("--default", "default", is_flag=True, help="Have this release installed where no version is named.")
@click.option("--architecture", "architectures", multiple=True, type=click.Choice(ARCHITECTURES),
              default=ARCHITECTURES, show_default=True, help="Whose files (repeatable).")  # fmt: skip
@click.option("--without-images", is_flag=True, help="Leave out the images for starts without a network.")
def add(
    version: str,
    channels: list[Channel],
    path: Path,
    expires: datetime.date | None,
    default: bool,
    architectures: tuple[str, ...],
    without_images: bool,
) -> int:
    """Add the release VERSION, once independent channels agree on its digests."""
    files = ceremony.wanted(architectures, images=not without_images)
    try:
        channel.demand_independent(channels)
        readings = {one.name: channel.read(one, files, architectures, version) for one in channels}
        digests = ceremony.agreed(readings, files)
        known = artifact_lock.load(path) if path.exists() else None
        made = ceremony.with_release(known, version, digests, default)
    except (ChannelError, DisagreementError, LockError) as refusal:
        raise click.ClickException(f"nothing was written.\n{refusal}") from refusal
    for told in channel.at_one_place(channels):
        app.err.print(f"{told}: be sure that two different people keep them")
    if names := ceremony.strange(readings):
        app.err.print(f"Left out, since no release of K3s has it: {', '.join(names)}")
    if not any(reading.has_bytes for reading in readings.values()):
        said = f"No channel has the bytes of K3s, which say their version: that these are those of {version} is only"
        app.err.print(f"{said} what you say. A folder with the downloaded release shows it.")
    for name, digest in digests.items():
        app.out.print(f"{version} {name} {digest}: {', '.join(readings)} agree")
    return _write(path, known, made, expires)


@lock.command()
@RELEASE
@PATH
@EXPIRES
def remove(version: str, path: Path, expires: datetime.date | None) -> int:
    """Take the release VERSION out, such as a vulnerable one."""
    known = _load(path)
    try:
        made = ceremony.without_release(known, version)
    except LockError as refusal:
        raise click.ClickException(str(refusal)) from refusal
    return _write(path, known, made, expires)


@lock.command()
@PATH
@EXPIRES
def renew(path: Path, expires: datetime.date | None) -> int:
    """Give the lock a new last day, once somebody has reviewed it again."""
    if expires is None:
        raise click.UsageError("--expires is missing: name the new last day, as YYYY-MM-DD")
    known = _load(path)
    return _write(path, known, known, expires)


@lock.command()
@PATH
@click.option("--allowed-signers", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Who may sign, as casemate_allowed_signers names it.")  # fmt: skip
@click.option("--threshold", type=click.IntRange(min=1), default=1, show_default=True, help="How many have to.")
@click.option("--revoked", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Keys that may sign no more, as casemate_revoked_signers names it.")  # fmt: skip
def verify(path: Path, allowed_signers: Path, threshold: int, revoked: Path | None) -> int:
    """Say who signed the lock, and whether these are enough and it still holds."""
    known = _load(path)
    try:
        signed = artifact_lock.verify(path, allowed_signers, threshold, revoked)
    except LockError as refusal:
        raise click.ClickException(str(refusal)) from refusal
    end = f"until {known.expires}" if known.expires else "without an end"
    app.out.print(f"{path}: serial {known.serial or 'none'}, {end}, signed by {', '.join(signed)}")
    if over := known.over(waiver.today_in_utc()):
        raise click.ClickException(over)
    return 0


def _load(path: Path) -> Lock:
    try:
        return artifact_lock.load(path)
    except LockError as refusal:
        raise click.ClickException(str(refusal)) from refusal


def _write(path: Path, known: Lock | None, made: Lock, expires: datetime.date | None) -> int:
    """Write what differs from the lock that was there, as the next one, and say how it is signed."""
    if made == known and (expires is None or expires.isoformat() == known.expires):
        app.out.print(f"{path} has it already; nothing was written.")
        return 0
    today = waiver.today_in_utc()
    issued = ceremony.reissued(made, today, expires)
    path.write_text(artifact_lock.text(issued), encoding="utf-8")
    command = SIGN.format(namespace=NAMESPACE, path=shlex.quote(str(path)))
    until = f"until {issued.expires}" if issued.expires else "without an end: give it one by --expires"
    app.out.print(f"{path}: serial {issued.serial}, {until}")
    if over := issued.over(today):
        app.err.print(over)
    said = "Compare it with the one before, as with git diff. No signature of that one fits it; each signer signs anew:"
    app.out.print(f"{said} {command}")
    return 0
