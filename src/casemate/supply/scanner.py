"""The operator's scanner of images, trivy or grype, run on the controller: pinned by sha256, with their own database.

It is never downloaded, and neither is its database. A copy of it is run whose bytes were compared with the digest, in a
folder and with an environment of its own: a file of settings or of what it shall ignore, which lies in the account's
home or in the current folder, is none of the operator's policy. Sources: trivy,
docs/guide/references/configuration/cli; grype, cmd/grype/cli/options.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from casemate.supply import oci_layout, scan_report
from casemate.supply.scan_policy import Scan

KEPT = (
    *("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""Of the environment what the scanner gets."""
MOST = 512 * 2**20
"""Bytes of a report that are read."""
CHUNK = 2**20
HIDING = {
    "trivy": (
        "--severity", "-s", "--ignore-unfixed", "--ignorefile", "--ignore-policy", "--ignore-status", "--vex",
        "--pkg-types", "--pkg-relationships", "--skip-dirs", "--skip-files", "--scanners", "--format", "-f", "--output",
        "-o", "--template", "-t", "--input", "--image-src", "--platform", "--cache-dir", "--config", "-c",
        "--exit-code", "--compliance", "--report", "--server", "--skip-db-update", "--download-db-only",
        "--vuln-type", "--security-checks", "--distro", "--skip-java-db-update", "--offline-scan",
    ),
    "grype": (
        "--only-fixed", "--only-notfixed", "--ignore-states", "--exclude", "--vex", "--output", "-o", "--file",
        "--template", "-t", "--fail-on", "-f", "--config", "-c", "--profile", "--platform", "--from", "--name",
        "--distro",
    ),
}  # fmt: skip
"""Arguments that keep findings out of the report, or that Casemate gives itself."""


class ScanError(Exception):
    """An image was not scanned; the message says why, and what to do."""


class Scanner(NamedTuple):
    """A scanner as the operator declares it: its kind, where it lies and its sha256, the folder of its database, more
    arguments, for how many seconds it may run, and the folder with archives of images that are in no registry.
    """

    kind: str
    path: Path
    sha256: str
    database: Path
    arguments: tuple[str, ...] = ()
    timeout: int = 600
    archives: Path | None = None


class Wanted(NamedTuple):
    """What to scan: the digest by which the image is known, a repository that has it ("" for none), the digest of its
    configuration where that is known, and the platform, such as linux/amd64.
    """

    digest: str
    repository: str
    config: str
    platform: str


class Ready(NamedTuple):
    """A scanner that was verified: the copy to run, and the folder for what comes of it."""

    scanner: Scanner
    program: Path
    folder: Path


@contextlib.contextmanager
def verified(scanner: Scanner, beside: Path) -> Iterator[Ready]:
    """Copy the scanner into a folder within `beside`, comparing its bytes; raises ScanError where they are others."""
    with tempfile.TemporaryDirectory(prefix=".casemate-", dir=beside) as folder:
        program, hashed = Path(folder, scanner.path.name), hashlib.sha256()
        try:
            with scanner.path.open("rb") as source, program.open("wb") as out:
                while chunk := source.read(CHUNK):
                    hashed.update(chunk)
                    out.write(chunk)
        except OSError as unread:
            raise ScanError(f"the scanner {scanner.path} cannot be read: {unread.strerror}") from unread
        if hashed.hexdigest() != scanner.sha256:
            said = f"the scanner {scanner.path} has sha256 {hashed.hexdigest()}, and casemate_image_scans demands "
            raise ScanError(f"{said}{scanner.sha256}. Find out who changed it, or review it and set scanner.sha256")
        program.chmod(0o500)
        yield Ready(scanner, program, Path(folder))


def scan(ready: Ready, wanted: Wanted, now: datetime.datetime) -> Scan:
    """Scan an image and return what was found; raises ScanError."""
    with tempfile.TemporaryDirectory(dir=ready.folder) as folder:
        layout, config, manifest = Path(folder, "layout"), "", ""
        if ready.scanner.archives is not None:
            try:
                place = (wanted.digest, wanted.config, wanted.platform)
                config, manifest = oci_layout.extract(ready.scanner.archives, *place, layout)
            except (oci_layout.LayoutError, OSError) as broken:
                raise ScanError(str(broken)) from broken
        if not config and not wanted.repository:
            raise ScanError(
                "no registry is known that has it, nor an archive. Export it on its node (k3s ctr images export "
                "NAME.tar IMAGE), and put the file into casemate_image_scans.archives"
            )
        image = str(layout) if config else f"{wanted.repository}@{wanted.digest}"
        text = _run(ready, _command(ready, image, bool(config), wanted.platform), Path(folder))
        try:
            made = scan_report.parse(ready.scanner.kind, text)
        except scan_report.ReportError as strange:
            raise ScanError(f"what {ready.scanner.path} printed cannot be taken for a result: {strange}") from strange
    expected = wanted.config or config or wanted.digest
    if expected not in made.digests:
        said = f"{ready.scanner.path} reports on another image: {', '.join(sorted(made.digests)) or 'none'}"
        raise ScanError(f"{said}; asked for was {expected}")
    database = made.database or _database(ready.scanner)
    source = f"{wanted.repository}@{wanted.digest}" if wanted.repository else wanted.digest
    about = (ready.scanner.kind, made.version, ready.scanner.sha256)
    moments = (database.replace(microsecond=0), now.replace(microsecond=0))
    of = config or (made.config if made.config != wanted.digest else "")  # by that digest it was asked for
    return Scan(source, *about, *moments, made.advisories, of, wanted.digest in (manifest, made.manifest))


def _command(ready: Ready, image: str, is_layout: bool, platform: str) -> list[str]:
    program, given = str(ready.program), ready.scanner.arguments
    if ready.scanner.kind == "grype":
        source = f"{'oci-dir' if is_layout else 'registry'}:{image}"
        return [program, source, "--output", "json", "--platform", platform, *given]
    offline = ["--skip-db-update", "--skip-java-db-update", "--offline-scan", "--quiet"]
    asked = ["image", "--format", "json", "--scanners", "vuln", "--cache-dir", str(ready.scanner.database), *offline]
    source_of = ["--input", image] if is_layout else ["--platform", platform, "--image-src", "remote", image]
    return [program, *asked, *given, *source_of]


def environment(scanner: Scanner, folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """What the scanner runs with: no setting from the account's home, no telemetry, no update, no network but for an
    image. Logins of registries come from where docker keeps them.
    """
    own = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder), "TMPDIR": str(folder)}
    logins = given.get("DOCKER_CONFIG") or str(Path(given.get("HOME", "/"), ".docker"))
    quiet = {
        "TRIVY_CACHE_BACKEND": "memory",
        "TRIVY_DISABLE_TELEMETRY": "true",
        "TRIVY_SKIP_VERSION_CHECK": "true",
        "TRIVY_SKIP_VEX_REPO_UPDATE": "true",
        "GRYPE_DB_CACHE_DIR": str(scanner.database),
        "GRYPE_DB_AUTO_UPDATE": "false",
        "GRYPE_DB_VALIDATE_AGE": "false",  # its age is judged by the operator's policy
        "GRYPE_CHECK_FOR_APP_UPDATE": "false",
    }
    return {
        **{name: given[name] for name in KEPT if name in given},
        **own,
        **quiet,
        "DOCKER_CONFIG": logins,
        "LC_ALL": "C",
    }


def _run(ready: Ready, command: Sequence[str], folder: Path) -> bytes:
    """What the scanner prints; raises ScanError for a time-out and for any end but success."""
    scanner = ready.scanner
    with tempfile.TemporaryFile(dir=folder) as out, tempfile.TemporaryFile(dir=folder) as err:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, start_new_session=True,
                env=environment(scanner, folder, os.environ),
            )  # fmt: skip
        except OSError as refused:
            raise ScanError(f"the scanner {scanner.path} cannot be run: {refused.strerror}") from refused
        try:
            code = process.wait(timeout=scanner.timeout)
        except subprocess.TimeoutExpired:
            said = f"the scanner {scanner.path} did not end within {scanner.timeout} s"
            raise ScanError(f"{said}. Give it more by scanner.timeout, or find out what it waits for") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started must not go on either
            process.wait()
        if code != 0:
            err.seek(max(0, err.seek(0, os.SEEK_END) - 2000))
            lines = err.read().decode("utf-8", "replace").strip().splitlines()
            raise ScanError(
                f"the scanner {scanner.path} ended with {code}: {lines[-1] if lines else 'it said nothing'}"
            )
        if out.seek(0, os.SEEK_END) > MOST:
            raise ScanError(f"the scanner {scanner.path} printed more than {MOST >> 20} MiB")
        out.seek(0)
        return out.read()


def _database(scanner: Scanner) -> datetime.datetime:
    """When trivy's database was built, which its report does not say; raises ScanError."""
    path = scanner.database / "db/metadata.json"
    try:
        made: Any = json.loads(path.read_text(encoding="utf-8"))
        built = scan_report.moment(made["UpdatedAt"])
    except (KeyError, OSError, TypeError, ValueError):
        built = None
    if scanner.kind != "trivy" or built is None:
        where = f": {path} has no UpdatedAt" if scanner.kind == "trivy" else ""
        raise ScanError(f"it is not known of when the database of {scanner.path} is{where}. Put a database there")
    return built
