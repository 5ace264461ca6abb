"""The list of images on the controller: what preflight refuses, and what `casemate images allow` makes of it."""

from __future__ import annotations

import datetime
import difflib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from unit import signing

from casemate.cli.app import main
from casemate.supply import image_list
from module_utils.casemate.k3s import running
from module_utils.casemate.k3s.image_verifier import NAMESPACE, Entry, Images

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
TODAY = datetime.datetime.now(datetime.UTC).date()
DAY = datetime.timedelta(days=1)


def allow(path: Path, *arguments: str, until: Any = TODAY + DAY) -> tuple[int, str]:
    given = ["images", "allow", "--list", str(path), "--until", str(until), "--reason", "needed", "--owner", "ops"]
    done = CliRunner().invoke(main, [*given, *arguments])
    return done.exit_code, done.output


def test_allow_makes_a_list_in_a_fixed_order_and_says_how_to_sign_it(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    code, said = allow(path, f"registry.example.org/b@{B}", f"busybox@{A}", f"team/app@{A}")
    assert code == 0 and f"ssh-keygen -Y sign -f ~/.ssh/id_ed25519 -n {NAMESPACE} {path}" in said
    listed = image_list.load(path)
    assert [one.image for one in listed.entries] == [
        "docker.io/library/busybox",
        "docker.io/team/app",
        "registry.example.org/b",
    ]
    assert listed.expires == TODAY + DAY
    before = path.read_text().split("\n")
    assert allow(path, f"registry.example.org/a@{A}", until=TODAY)[0] == 0
    changed = [line for line in difflib.ndiff(before, path.read_text().split("\n")) if line[0] in "+-"]
    assert [line.strip() for line in changed[:2]] == ['-   "serial": 1,', '+   "serial": 2,']
    assert len(changed) == 9 and all(line[0] == "+" for line in changed[2:]), "a diff shows the new one alone"
    assert allow(path, f"registry.example.org/a@{A}", "--expires", str(TODAY + 9 * DAY))[0] == 0
    longer = image_list.load(path)
    assert len(longer.entries) == 4 and longer.expires == TODAY + 9 * DAY
    assert {one.until for one in longer.entries} == {TODAY + DAY}, "the same image is there once"


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("busybox", "names no digest"),
        ("busybox:1.36", "has a tag"),
        (f"busybox:1.36@{A}", "has a tag"),
        (f"localhost:5000/app:1@{A}", "has a tag"),
        ("busybox@sha256:abc", "is not sha256: and 64 digits"),
        (f"busybox@{A.upper()}", "is not sha256: and 64 digits"),
        ("busybox@sha512:" + "a" * 128, "is not sha256: and 64 digits"),
        (f"Busybox@{A}", "small letters"),
        (f"Registry.example.org/app@{A}", "small letters"),
        (f"../app@{A}", "small letters"),
        (A, "names no repository"),
        (f"sha256:abc@{A}", "names no repository"),
        (f"ghcr.io/app@{A}@{A}", "more than one @"),
    ],
)
def test_allow_refuses_what_is_no_digest(tmp_path: Path, reference: str, says: str) -> None:
    code, said = allow(tmp_path / "images.json", f"good@{A}", reference)
    assert code == 1 and says in said
    assert not (tmp_path / "images.json").exists()


@pytest.mark.parametrize(
    ("more", "until", "says"),
    [
        ((), TODAY - DAY, "is over"),
        ((), "2027-13-01", "does not match the format"),
        (("--expires", str(TODAY - DAY)), TODAY, "--expires"),
        (("--reason", " "), TODAY, "--reason is empty"),
    ],
)
def test_allow_refuses_what_counts_for_nothing(tmp_path: Path, more: tuple[str, ...], until: Any, says: str) -> None:
    code, said = allow(tmp_path / "images.json", f"good@{A}", *more, until=until)
    assert code == 1 and says in said


@pytest.mark.parametrize(
    "reference", ["nginx", "library/nginx", "docker.io/nginx", "index.docker.io/nginx", "index.docker.io/library/nginx"]
)
def test_allow_writes_the_one_name_by_which_containerd_asks(tmp_path: Path, reference: str) -> None:
    assert allow(tmp_path / "images.json", f"{reference}@{A}")[0] == 0
    assert [one.image for one in image_list.load(tmp_path / "images.json").entries] == ["docker.io/library/nginx"]


def test_each_change_is_of_its_day_and_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    own = Images(TODAY + DAY, (Entry("docker.io/library/busybox", A, "ops", "needed", TODAY),))
    path.write_text(image_list.text(own))
    assert image_list.load(path) == own
    for serial in (1, 2):
        assert allow(path, f"busybox@{B}")[0] == 0
        listed = image_list.load(path)
        assert (listed.serial, listed.issued) == (serial, TODAY)


def test_a_password_in_a_name_is_not_shown(tmp_path: Path) -> None:
    code, said = allow(tmp_path / "images.json", f"user:canary@docker.io/x@{A}")
    assert code == 1 and "without an account" in said and "canary" not in said


def test_allow_adds_nothing_to_a_list_of_a_later_day(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    path.write_text(image_list.text(Images(TODAY + 9 * DAY, (), 3, TODAY + DAY)))
    before = path.read_text()
    code, said = allow(path, f"busybox@{B}")
    assert code == 1 and f"issued on {TODAY + DAY}" in said and path.read_text() == before


def test_allow_refuses_a_file_that_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text("{}")
    code, said = allow(tmp_path / "images.json", f"good@{A}")
    assert code == 1 and "is no list of images" in said
    assert (tmp_path / "images.json").read_text() == "{}"


class Signed:
    """A list in a folder, signed as the inputs of preflight name it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.key, self.signers = folder / "images.json", signing.key(folder), folder / "signers"
        signing.allow(self.signers, self.key)
        self.write()

    def write(
        self,
        expires: datetime.date = TODAY,
        until: datetime.date = TODAY,
        image: str = image_list.PAUSE,
        serial: int = 0,
        issued: datetime.date | None = None,
    ) -> None:
        entries = (Entry(image, A, "ops", "K3s", until),)
        self.path.write_text(image_list.text(Images(expires, entries, serial, issued)))
        signing.sign(self.path, self.key, NAMESPACE)

    def problems(self, changes: bool = True, **more: Any) -> str:
        values = {"casemate_image_list": str(self.path), "casemate_allowed_signers": str(self.signers), **more}
        found = image_list.problems(values, TODAY, changes)
        return "\n".join(found or image_list.pause_problems(values, TODAY))


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    made = Signed(tmp_path)
    assert made.problems() == ""
    return made


def test_a_list_that_is_over_stops_an_apply_and_is_a_finding_of_a_check(signed: Signed) -> None:
    signed.write(expires=TODAY - DAY)
    assert f"ended on {TODAY - DAY}" in signed.problems() and signed.problems(changes=False) == ""
    signed.write(until=TODAY - DAY)
    assert "allows no image today" in signed.problems()


def test_a_list_of_a_later_day_stops_an_apply(signed: Signed) -> None:
    signed.write(issued=TODAY, expires=TODAY + DAY)
    assert signed.problems() == ""
    signed.write(issued=TODAY + DAY, expires=TODAY + DAY)
    assert f"was issued on {TODAY + DAY}, and the clock of this machine says {TODAY}" in signed.problems()
    assert signed.problems(changes=False) == ""


@pytest.mark.parametrize(
    ("serial", "accepted", "says"),
    [
        (3, 3, ""),
        (4, 3, ""),
        (2, 3, "has the serial 2, and this node goes by one with 3: it is an older list"),
        (0, 3, "has no serial, and this node goes by one with 3"),
        (0, 0, ""),
        (2, None, ""),
        (2, "9", ""),
    ],
)
def test_an_older_list_takes_no_place_of_a_newer_one(signed: Signed, serial: int, accepted: Any, says: str) -> None:
    signed.write(serial=serial)
    said = "".join(image_list.accepted_problems({"casemate_image_list": str(signed.path)}, accepted))
    assert says in said and bool(said) == bool(says)
    assert image_list.accepted_problems({}, accepted) == []


@pytest.mark.parametrize(
    ("text", "serial"),
    [('{"serial": 7}', 7), ("", 0), ("{}", 0), ("[]", 0), ('{"serial": "7"}', 0), ("[" * 100_000, 0), ("7", 0)],
)
def test_a_node_tells_by_which_list_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, serial: int
) -> None:
    (tmp_path / "list.json").write_text(text)
    monkeypatch.setattr(running, "IMAGES", str(tmp_path / "list.json"))
    assert running.image_list() == serial
    monkeypatch.setattr(running, "IMAGES", str(tmp_path / "none"))
    assert running.image_list() == 0


def test_an_entry_by_a_name_that_containerd_never_asks_by_stops_an_apply(signed: Signed) -> None:
    for image, right in [
        ("docker.io/mirrored-pause", "docker.io/library/mirrored-pause"),
        ("index.docker.io/org/app", "docker.io/org/app"),
        ("registry/app", "docker.io/registry/app"),
    ]:
        signed.write(image=image)
        said = signed.problems()
        assert f"{image}, by which containerd never asks" in said and f"Write {right} there" in said


def test_an_unsigned_changed_or_foreign_list_stops_an_apply(signed: Signed, tmp_path: Path) -> None:
    signed.path.write_text(signed.path.read_text().replace('"ops"', '"eve"'))
    assert "was changed after signing" in signed.problems()
    signing.sign(signed.path, signed.key, "casemate-lock")
    assert "does not fit it" in signed.problems()
    signing.sign(signed.path, signing.key(tmp_path, "stranger"), NAMESPACE)
    assert "not by anybody listed" in signed.problems()
    Path(f"{signed.path}.sig").unlink()
    assert "has no signature" in signed.problems(changes=False)
    assert "nobody may sign it" in signed.problems(changes=False, casemate_allowed_signers="")
    signed.path.write_text("{")
    assert "it is not JSON" in signed.problems(changes=False)


def test_a_list_by_a_revoked_signer_stops_an_apply(signed: Signed, tmp_path: Path) -> None:
    revoked = tmp_path / "revoked"
    revoked.write_bytes(signing.key(tmp_path, "other").with_suffix(".pub").read_bytes())
    assert signed.problems(casemate_revoked_signers=str(revoked)) == ""
    revoked.write_bytes(signed.key.with_suffix(".pub").read_bytes())
    said = signed.problems(casemate_revoked_signers=str(revoked))
    assert f"{revoked} revokes the key" in said
    assert signed.problems(changes=False, casemate_revoked_signers=str(revoked)) == "", "a check tells it as a finding"
    revoked.unlink()
    assert "is missing" in signed.problems(casemate_revoked_signers=str(revoked))


def test_inputs_that_do_not_fit_are_named(signed: Signed) -> None:
    tool = {"name": "cosign", "path": "/x", "sha256": "a" * 64, "arguments": ["verify"], "timeout": 9}
    assert "arguments of cosign" in signed.problems(casemate_image_verifiers=[tool])
    tool["arguments"] = ["verify", "{image}"]
    assert signed.problems(casemate_image_verifiers=[tool]) == ""
    login = [{"host": "registry.example.org", "credentials_file": "/x"}]
    assert "a login (credentials_file) for registry.example.org" in signed.problems(casemate_registries=login)
    assert image_list.problems({"casemate_image_digests_only": True}, TODAY, True)[0].startswith(
        "casemate_image_digests_only"
    )
    assert image_list.problems({}, TODAY, True) == []


def test_k3s_own_pause_image_has_to_come_from_somewhere(signed: Signed) -> None:
    signed.write(image="docker.io/library/busybox")
    assert f"has no image of {image_list.PAUSE}" in signed.problems()
    assert signed.problems(k3s_node_config={"pause-image": "busybox:1"}) != ""
    assert signed.problems(k3s_node_config={"pause-image": "library/busybox:1"}) == ""
