"""The verifier of images as containerd runs it: a program of its own, with signatures of ssh-keygen."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit import signing

from module_utils.casemate.k3s import image_verifier as verifier

GOOD, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
IMAGE = "registry.example.org/team/app"
TODAY = datetime.datetime.now(datetime.UTC).date()
TOMORROW, YESTERDAY = ((TODAY + datetime.timedelta(days=days)).isoformat() for days in (1, -1))


def entry(**changes: Any) -> dict[str, Any]:
    return {"image": IMAGE, "digest": GOOD, "owner": "ops", "reason": "our app", "until": TOMORROW, **changes}


def listed(*entries: dict[str, Any], **changes: Any) -> str:
    return json.dumps({"schema": 1, "expires": TOMORROW, "images": list(entries), **changes})


class Node:
    """The verifier and what it reads, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.program = folder / "images", folder / "verifier"
        self.folder.mkdir()
        text = verifier.HEAD + Path(verifier.__file__).read_text()
        self.program.write_text(text.replace(f'"{verifier.FOLDER}"', repr(str(self.folder))))
        self.key, self.stranger = signing.key(folder, "id"), signing.key(folder, "stranger")
        signing.allow(self.folder / verifier.SIGNERS, self.key, options='namespaces="casemate-images"')
        (self.folder / verifier.FURTHER).write_text("[]\n")
        (self.folder / verifier.REVOKED).write_text("")
        self.write(listed(entry()))

    @property
    def list(self) -> Path:
        return self.folder / verifier.LIST

    def write(self, text: str, private: Path | None = None, namespace: str = verifier.NAMESPACE) -> None:
        self.list.write_text(text)
        signing.sign(self.list, private or self.key, namespace)

    def pull(self, name: str = f"{IMAGE}@{GOOD}", digest: str = GOOD) -> tuple[int, str]:
        argv = [sys.executable, "-IS", str(self.program), "-name", name, "-digest", digest, "-stdin-media-type", "x"]
        done = subprocess.run(argv, input="{}\n", capture_output=True, text=True, timeout=20, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout.strip()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    assert made.pull() == (0, f"it is on the list of images until {TOMORROW}")
    return made


def test_a_tag_that_leads_to_an_allowed_digest_may_be_pulled(node: Node) -> None:
    assert node.pull(f"{IMAGE}:1.0")[0] == 0
    assert node.pull("registry.example.org/team/app:1.0@" + GOOD)[0] == 0


def test_a_key_may_sign_by_another_line_than_the_first_that_has_it(node: Node) -> None:
    public = node.key.with_name("id.pub").read_text().strip()
    lines = [f'git@example.org namespaces="git" {public}', "# others", "", f'ops namespaces="casemate-*" {public}']
    (node.folder / verifier.SIGNERS).write_text("\n".join(lines) + "\n")
    assert node.pull()[0] == 0
    (node.folder / verifier.SIGNERS).write_text(lines[0] + "\n")
    assert node.pull()[0] == 1


def test_it_runs_as_a_program_of_its_own(node: Node) -> None:
    node.program.chmod(0o755)
    argv = [str(node.program), "-name", f"{IMAGE}:1", "-digest", GOOD, "-stdin-media-type", "x"]
    assert subprocess.run(argv, input=b"{}", check=False, timeout=20).returncode == 0


@pytest.mark.parametrize(
    ("name", "digest", "says"),
    [
        (f"{IMAGE}:1.0", OTHER, "not on the list"),  # the tag was moved
        (f"{IMAGE}@{OTHER}", OTHER, "not on the list"),
        (f"{IMAGE}@{OTHER}", GOOD, "was resolved to"),
        (f"registry.example.org/team/other@{GOOD}", GOOD, f"that digest is, for {IMAGE}"),
        (f"registry.example.org.evil.example/team/app@{GOOD}", GOOD, "not on the list"),
        (f"registry.example.org:5000/team/app@{GOOD}", GOOD, "not on the list"),
        (f"Registry.example.org/team/app@{GOOD}", GOOD, "not on the list"),
        (f"[2001:db8::1]:5000/team/app@{GOOD}", GOOD, "not on the list"),
        (f"docker.io/{IMAGE}@{GOOD}", GOOD, "not on the list"),
        (IMAGE, "sha512:" + "a" * 128, "no digest of SHA-256"),
        (IMAGE, GOOD.upper(), "no digest of SHA-256"),
        (IMAGE, "", "no digest of SHA-256"),
    ],
)
def test_what_the_list_does_not_have_is_refused(node: Node, name: str, digest: str, says: str) -> None:
    code, said = node.pull(name, digest)
    assert code == 1 and says in said


def unlisted(node: Node) -> None:
    node.list.unlink()


def linked(node: Node) -> None:
    node.list.rename(node.folder / "elsewhere")
    node.list.symlink_to("elsewhere")


SPOILED: list[tuple[Callable[[Node], object], str]] = [
    (unlisted, "list.json is missing"),
    (linked, "no regular file"),
    (lambda node: (node.folder / verifier.SIGNATURE).unlink(), "list.json.sig is missing"),
    (lambda node: (node.folder / verifier.SIGNERS).write_text(""), "not signed by anybody"),
    (lambda node: (node.folder / verifier.SIGNERS).chmod(0o666), "allowed_signers may be written by others than root"),
    (lambda node: (node.folder / verifier.FURTHER).chmod(0o664), "verifiers.json may be written by others"),
    (lambda node: node.folder.chmod(0o777), "images/ may be written by others"),
    (lambda node: (node.folder / verifier.FURTHER).unlink(), "verifiers.json is missing"),
    (lambda node: (node.folder / verifier.FURTHER).write_text("{"), "so nothing is pulled: JSONDecodeError"),
    (lambda node: node.list.write_text(listed(entry(), entry(digest=OTHER))), "was changed since"),
    (lambda node: node.list.write_text(""), "was changed since"),
    (lambda node: node.write(listed(entry()), node.stranger), "not signed by anybody"),
    (lambda node: node.write(listed(entry()), namespace="casemate-lock"), "not signed by anybody"),
    (lambda node: node.write(listed(entry()), namespace="file"), "not signed by anybody"),
    (lambda node: node.write(listed(entry(), expires=YESTERDAY)), f"ended on {YESTERDAY}"),
    (lambda node: node.write(listed(entry(until=YESTERDAY))), f"was allowed until {YESTERDAY}"),
    (lambda node: node.write(listed()), "not on the list"),
    (lambda node: node.write("{"), "it is not JSON"),
    (lambda node: node.write(listed(entry(), entry())), "stands twice"),
    (lambda node: node.write(listed(entry(image="App"))), "no repository with its host"),
]


@pytest.mark.parametrize(("spoil", "says"), SPOILED)
def test_it_fails_closed(node: Node, spoil: Callable[[Node], object], says: str) -> None:
    spoil(node)
    code, said = node.pull()
    assert code == 1 and says in said


def revoke(node: Node, *keys: Path, as_list: bool = False) -> None:
    """Revoke keys by a file of public keys, or by a list of revocations, which is no text."""
    public = [key.with_name(key.name + ".pub") for key in keys]
    data = b"".join(key.read_bytes() for key in public)
    if as_list:
        made = node.folder.parent / "revocations"
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", made, *public], check=True, capture_output=True)
        data = made.read_bytes()
        with pytest.raises(UnicodeDecodeError):
            data.decode()
    (node.folder / verifier.REVOKED).write_text(base64.b64encode(data).decode())


@pytest.mark.parametrize("as_list", [False, True])
def test_a_revoked_signer_vouches_for_nothing(node: Node, as_list: bool) -> None:
    revoke(node, node.stranger, as_list=as_list)
    assert node.pull()[0] == 0
    revoke(node, node.stranger, node.key, as_list=as_list)
    code, said = node.pull()
    assert code == 1 and "not signed by anybody who may" in said
    both = node.folder / verifier.SIGNERS
    lines = both.read_text()
    signing.allow(both, node.stranger)
    both.write_text(lines + both.read_text())
    node.write(node.list.read_text(), node.stranger)
    assert node.pull()[0] == 1, "the stranger's key is revoked, too"
    revoke(node, node.key, as_list=as_list)
    assert node.pull()[0] == 0, "another one may sign"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "revoked_signers is missing"),
        (lambda path: (path.rename(f"{path}.x"), path.symlink_to(f"{path}.x")), "no regular file"),
        (lambda path: path.write_text("@"), "so nothing is pulled"),
        (lambda path: path.write_bytes(base64.b64encode(b"nonsense\n")), "not signed by anybody who may"),
        (lambda path: path.write_bytes(base64.b64encode(b"SSHKRL\n\0cut off")), "not signed by anybody who may"),
    ],
)
def test_where_nobody_can_say_who_is_revoked_nothing_is_pulled(
    node: Node, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(node.folder / verifier.REVOKED)
    code, said = node.pull()
    assert code == 1 and says in said


def test_it_fails_closed_without_arguments(node: Node) -> None:
    done = subprocess.run([sys.executable, "-IS", node.program], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "so nothing is pulled: KeyError" in done.stdout


def further(node: Node, script: str, **changes: Any) -> Path:
    program = node.folder.parent / "cosign"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    made = {"name": "cosign", "path": str(program), "arguments": ["verify", "{image}"], "timeout": 1}
    made["sha256"] = hashlib.sha256(program.read_bytes()).hexdigest()
    (node.folder / verifier.FURTHER).write_text(json.dumps([{**made, **changes}]))
    return program


def test_a_further_verifier_has_to_agree(node: Node) -> None:
    further(node, f'test "$*" = "verify {IMAGE}@{GOOD}"')
    code, said = node.pull(f"{IMAGE}:1.0")
    assert code == 0 and said.endswith("and cosign lets it pass")
    further(node, "echo no signature >&2; exit 3")
    assert node.pull() == (1, f"cosign refuses {IMAGE}@{GOOD}: no signature")
    further(node, "exec sleep 9")
    code, said = node.pull()
    assert code == 1 and "TimeoutExpired" in said
    further(node, "true").write_text("#!/bin/sh\nexit 0\n")
    code, said = node.pull()
    assert code == 1 and "has not the digest of the verifier cosign" in said
    further(node, "true").unlink()
    assert node.pull()[0] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "no list of images"),
        (listed(schema=2), "no list of images"),
        (listed(more=1), "no list of images"),
        (listed(images={}), "its images are no list"),
        (listed(expires="soon"), "expires 'soon' is no date"),
        (listed(expires=20270331), "is no date"),
        (listed(issued="soon"), "issued 'soon' is no date"),
        (listed(issued=None), "issued None is no date"),
        *((listed(serial=odd), "is no whole number from 1 on") for odd in (0, -1, True, "7", 1.0, None)),
        (listed(entry(until="2027-02-30")), "is no date"),
        (listed(entry(digest=GOOD.upper())), "is not sha256"),
        (listed(entry(image="busybox")), "no repository with its host"),
        (listed(entry(image="docker.io/library/busybox:1")), "no repository with its host"),
        (listed(entry(reason=" ")), "its reason is empty"),
        (listed({"image": IMAGE}), "images[0] is not {image"),
        ('{"schema": 1, "schema": 1}', "stands twice"),
    ],
)
def test_a_malformed_list_is_refused_and_says_why(text: str, says: str) -> None:
    with pytest.raises(verifier.Refused) as refusal:
        verifier.read(text)
    assert says in str(refusal.value)


def test_a_clock_that_was_set_back_makes_no_list_count_again(node: Node) -> None:
    node.write(listed(entry(), issued=TODAY.isoformat(), serial=7))
    assert node.pull()[0] == 0
    node.write(listed(entry(), issued=TOMORROW, serial=7))
    code, said = node.pull()
    assert code == 1 and f"was issued on {TOMORROW}, and the clock of this machine says {TODAY}" in said


def test_a_long_list_is_read_before_containerd_gives_up() -> None:
    """It waits ten seconds, and each pull reads all of it."""
    entries = [entry(digest=f"sha256:{number:064x}") for number in range(20_000)]
    started = time.monotonic()
    assert len(verifier.read(listed(*entries)).entries) == len(entries)
    assert time.monotonic() - started < 5
    with pytest.raises(verifier.Refused, match="stands twice"):
        verifier.read(listed(*entries, entries[7]))


def test_what_is_nested_without_end_is_refused_as_what_is_no_json() -> None:
    with pytest.raises(verifier.Refused, match="not JSON"):
        verifier.read("[" * 100_000)
