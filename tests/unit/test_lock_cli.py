"""`casemate lock`: what it writes, when it writes nothing, and what it tells people to do next."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from unit import signing

from casemate.cli import app
from casemate.supply import artifact_lock
from module_utils.casemate.core import waiver

VERSION = "v1.36.4+k3s1"
FILES = {
    "k3s": f"-X github.com/k3s-io/k3s/pkg/version.Version={VERSION} -s amd64",
    "k3s-arm64": f"-X github.com/k3s-io/k3s/pkg/version.Version={VERSION} -s arm64",
    "k3s-airgap-images-amd64.tar.zst": "images",
    "k3s-airgap-images-arm64.tar.zst": "more images",
}
DIGESTS = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Casemate in a folder with a downloaded release and the checksums of a mirror."""
    (tmp_path / "release").mkdir()
    for name, text in FILES.items():
        (tmp_path / "release" / name).write_text(text)
    (tmp_path / "mirror.txt").write_text("".join(f"{digest} *{name}\r\n" for name, digest in DIGESTS.items()))

    def run(verb: str, *arguments: str) -> Result:
        return CliRunner().invoke(app.main, ["lock", verb, *arguments, "--lock", str(tmp_path / "lock.json")])

    return run


@pytest.fixture
def channels(tmp_path: Path) -> list[str]:
    return [f"--channel=download={tmp_path / 'release'}", f"--channel=mirror={tmp_path / 'mirror.txt'}"]


def test_a_release_on_which_both_agree_is_added(call: Call, channels: list[str], tmp_path: Path) -> None:
    done = call("add", VERSION, *channels, "--expires", "2098-12-31")
    assert done.exit_code == 0, done.output
    lock = artifact_lock.load(tmp_path / "lock.json")
    assert dict(lock.releases[VERSION].files) == DIGESTS
    assert (lock.default, lock.serial, lock.expires) == (VERSION, 1, "2098-12-31")
    assert lock.issued == waiver.today_in_utc().isoformat()
    assert f"{VERSION} k3s {DIGESTS['k3s']}: download, mirror agree" in done.output
    assert "ssh-keygen -Y sign" in done.output

    again = call("add", VERSION, *channels)
    assert (again.exit_code, "nothing was written" in again.output) == (0, True)
    assert artifact_lock.load(tmp_path / "lock.json").serial == 1


def test_a_difference_writes_nothing(call: Call, channels: list[str], tmp_path: Path) -> None:
    mirror = tmp_path / "mirror.txt"
    mirror.write_text(mirror.read_text().replace(DIGESTS["k3s"], "ab" * 32))
    done = call("add", VERSION, *channels)
    assert done.exit_code == 1
    assert f"k3s differs: download says {DIGESTS['k3s']}, mirror says {'ab' * 32}" in done.output
    assert not (tmp_path / "lock.json").exists()


def test_one_place_by_two_names_is_refused(call: Call, channels: list[str], tmp_path: Path) -> None:
    done = call("add", VERSION, channels[0], channels[0].replace("download", "other"))
    assert (done.exit_code, "are one: both are in" in done.output) == (1, True)
    assert "compared with nothing" in call("add", VERSION, channels[0]).output
    assert not (tmp_path / "lock.json").exists()


def test_files_that_are_not_used_can_be_left_out(call: Call, channels: list[str], tmp_path: Path) -> None:
    (tmp_path / "release/k3s-airgap-images-arm64.tar.zst").unlink()
    refused = call("add", VERSION, *channels)
    assert "k3s-airgap-images-arm64.tar.zst is missing in download" in refused.output
    done = call("add", VERSION, *channels, "--architecture", "amd64")
    assert done.exit_code == 0, done.output
    assert set(artifact_lock.load(tmp_path / "lock.json").releases[VERSION].files) == {
        "k3s",
        "k3s-airgap-images-amd64.tar.zst",
    }
    done = call("add", VERSION, *channels, "--without-images")
    assert "k3s-arm64" in artifact_lock.load(tmp_path / "lock.json").releases[VERSION].files
    assert artifact_lock.load(tmp_path / "lock.json").serial == 2


def test_sums_alone_do_not_say_of_which_version_they_are(call: Call, channels: list[str], tmp_path: Path) -> None:
    (tmp_path / "sums.txt").write_text("".join(f"{digest}  {name}\n" for name, digest in DIGESTS.items()))
    done = call("add", VERSION, channels[1], f"--channel=other={tmp_path / 'sums.txt'}")
    assert (done.exit_code, "No channel has the bytes" in done.output) == (0, True)
    assert "No channel has the bytes" not in call("add", "v1.36.4+k3s1", *channels).output


def test_what_no_release_has_is_left_out_and_told(call: Call, channels: list[str], tmp_path: Path) -> None:
    with (tmp_path / "mirror.txt").open("a") as mirror:
        mirror.write(f"{'ab' * 32}  k3s-helper\n")
    done = call("add", VERSION, *channels)
    assert "no release of K3s has it: k3s-helper" in done.output
    assert "k3s-helper" not in (tmp_path / "lock.json").read_text()


def test_a_lock_of_before_gets_a_serial_and_keeps_what_it_has(call: Call, channels: list[str], tmp_path: Path) -> None:
    old = {"provides": ["api_semantics"], "files": {"k3s": "ab" * 32}}
    lock = {"schema": 1, "default": "v1.36.3+k3s1", "releases": {"v1.36.3+k3s1": old}}
    (tmp_path / "lock.json").write_text(json.dumps(lock))
    assert call("add", VERSION, *channels, "--default").exit_code == 0
    made = artifact_lock.load(tmp_path / "lock.json")
    assert (made.default, made.serial, list(made.releases)) == (VERSION, 1, [VERSION, "v1.36.3+k3s1"])
    assert call("remove", "v1.36.3+k3s1").exit_code == 0
    made = artifact_lock.load(tmp_path / "lock.json")
    assert (made.serial, list(made.releases)) == (2, [VERSION])
    assert "installs by default" in call("remove", VERSION).output


def test_a_lock_is_renewed(call: Call, channels: list[str], tmp_path: Path) -> None:
    call("add", VERSION, *channels, "--expires", "2098-12-31")
    assert "name the new last day" in call("renew").output
    assert "is over" in call("renew", "--expires", "2020-01-01").output
    done = call("renew", "--expires", "2099-12-31")
    assert (done.exit_code, "signs anew" in done.output) == (0, True)
    lock = artifact_lock.load(tmp_path / "lock.json")
    assert (lock.serial, lock.expires) == (2, "2099-12-31")


def test_the_commands_that_are_printed_sign_it(call: Call, channels: list[str], tmp_path: Path) -> None:
    lock, signers = tmp_path / "lock.json", tmp_path / "signers"
    said = call("add", VERSION, *channels, "--expires", "2098-12-31").output
    command = said[said.rindex("ssh-keygen") :].strip()
    for name in ("alice", "bob"):
        signing.key(tmp_path, name)
    signers.write_text("".join(f"{name} {(tmp_path / f'{name}.pub').read_text()}" for name in ("alice", "bob")))
    asked = ("verify", "--allowed-signers", str(signers), "--threshold", "2")
    for name in ("alice", "bob"):
        assert "needs 2 signers" in call(*asked).output
        made = command.replace("~/.ssh/id_ed25519", str(tmp_path / name)).replace("NAME", name)
        subprocess.run(["sh", "-c", made], check=True, capture_output=True)
    done = call(*asked)
    assert (done.exit_code, "serial 1, until 2098-12-31, signed by alice, bob" in done.output) == (0, True), done.output

    today = waiver.today_in_utc().isoformat()
    lock.write_text(lock.read_text().replace("2098-12-31", "2020-01-01").replace(today, "2019-01-01"))
    for name in ("alice", "bob"):
        made = command.replace("~/.ssh/id_ed25519", str(tmp_path / name)).replace("NAME", name)
        subprocess.run(["sh", "-c", made], check=True, capture_output=True)
    done = call(*asked)
    assert (done.exit_code, "ended on 2020-01-01" in done.output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "latest", "--channel=a=/x"), "is no version of K3s"),
        (("add", VERSION, "--channel=/x"), "is not NAME=PLACE"),
        (("add", VERSION, "--channel=a="), "is not NAME=PLACE"),
        (("add", VERSION), "--channel"),
        (("verify", "--allowed-signers", "/nowhere"), "does not exist"),
        (("remove", VERSION), "cannot be read"),
    ],
)
def test_misuse_says_what_is_right(call: Call, arguments: tuple[str, ...], says: str) -> None:
    done = call(*arguments)
    assert done.exit_code == 1
    assert says in done.output
