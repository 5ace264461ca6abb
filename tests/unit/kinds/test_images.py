"""Whether containerd asks our verifier, what that answers, and what runs without being on the list."""

from __future__ import annotations

import datetime
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from unit import running_images, signing
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable, Verdict
from module_utils.casemate.formats import toml_dump
from module_utils.casemate.host.machine import Host
from module_utils.casemate.k3s import image_verifier as program
from module_utils.casemate.k3s.artifact import digest_of
from module_utils.casemate.k3s.image_archive import configurations
from module_utils.casemate.kinds import image_list, image_running, image_verifier

DAY = datetime.date(2027, 3, 31)
FOLDER, LISTS = "/usr/local/lib/casemate/image-verifiers", program.FOLDER
DUMP = """version = 4
disabled_plugins = []
required_plugins = ['io.containerd.image-verifier.v1.bindir', 'io.containerd.transfer.v1.local']

[plugins]
  [plugins.'io.containerd.cri.v1.images']
    snapshotter = 'overlayfs'
    disable_snapshot_annotations = true
    discard_unpacked_layers = false
    max_concurrent_downloads = 3
    image_pull_with_sync_fs = false
    use_local_image_pull = false

    [plugins.'io.containerd.cri.v1.images'.registry]
      config_path = '/x/certs.d'

  [plugins.'io.containerd.image-verifier.v1.bindir']
    bin_dir = '/usr/local/lib/casemate/image-verifiers'
    max_verifiers = -1
    per_verifier_timeout = '10s'
"""
LOGIN = """      [plugins.'io.containerd.cri.v1.images'.registry.configs]
        [plugins.'io.containerd.cri.v1.images'.registry.configs.'registry.example.org']
          [plugins.'io.containerd.cri.v1.images'.registry.configs.'registry.example.org'.auth]
            password = 'hush'
"""
SETTING: Any = {"folder": FOLDER, "program": "casemate", "lists": LISTS, "wanted": True}


def test_a_dump_is_read_by_table() -> None:
    read = toml_dump.parse(DUMP + LOGIN)
    assert read[()]["disabled_plugins"] == "[]"
    assert read["plugins", "io.containerd.cri.v1.images"]["snapshotter"] == "overlayfs"
    assert ("plugins", "io.containerd.cri.v1.images", "registry", "configs", "registry.example.org", "auth") in read


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("", "", ""),
        ("pull = false", "pull = true", "use_local_image_pull is true"),
        ("annotations = true", "annotations = false", "disable_snapshot_annotations is false"),
        ("downloads = 3", "downloads = 4", "max_concurrent_downloads is 4"),
        ("sync_fs = false", "sync_fs = true", "image_pull_with_sync_fs is true"),
        ("layers = false", "layers = true", "discard_unpacked_layers is true"),
        (FOLDER, "/opt/other", "bin_dir of the verifiers is '/opt/other'"),
        ("verifiers = -1", "verifiers = 1", "max_verifiers is 1"),
        ("disabled_plugins = []", "disabled_plugins = ['io.containerd.transfer.v1.local']", "disabled_plugins has"),
        ("  [plugins.'io.containerd.image-v", LOGIN + "  [plugins.'io.containerd.image-v", "logins of registries.yaml"),
    ],
)
def test_what_turns_the_verifier_off_is_named(before: str, after: str, says: str) -> None:
    found = "; ".join(image_verifier.unasked(DUMP.replace(before, after) if before else DUMP, FOLDER))
    assert (says in found) if says else found == ""
    assert "hush" not in found


def asked(tmp_path: Path, dump: tuple[int, str, str], changed: float, started: str) -> Verdict:
    host = FakeHost(tmp_path, {image_verifier.CONFIG: "", image_verifier.OURS: ""})
    host.commands = {
        f"{host.path(image_verifier.CONTAINERD)} -c": dump,
        "systemctl show k3s.service": (0, f"ActiveState=active\nMainPID=7\nExecMainStartTimestamp={started}\n", ""),
    }
    os.utime(host.path(image_verifier.DROPINS), (changed, changed))
    setting: Any = {**SETTING, "aspect": "asked"}
    seen = image_verifier.observe([setting], host)[0]
    return image_verifier.assess(setting, seen)


def test_containerd_is_asked_for_its_own_settings(tmp_path: Path) -> None:
    noon = "Thu 2026-01-01 12:00:00 UTC"
    before, after = 1767268800.0 - 60, 1767268800.0 + 60
    assert asked(tmp_path, (0, DUMP, ""), before, noon).ok
    late = asked(tmp_path, (0, DUMP, ""), after, noon)
    assert not late.ok and "was started before" in late.reason and late.stale == ("k3s.service",)
    off = asked(tmp_path, (0, DUMP.replace("pull = false", "pull = true"), ""), after, noon)
    assert not off.ok and not off.stale and off.blocked_by, "a restart would turn it off"
    assert not late.blocked_by, "apply starts K3s again"
    broken = asked(tmp_path, (1, "", "containerd: failed to unmarshal TOML\n"), before, noon)
    assert "would not start again" in broken.reason


@pytest.mark.parametrize("kind", [image_verifier, image_running])
def test_without_a_list_nothing_is_judged(tmp_path: Path, kind: Any) -> None:
    setting = {**SETTING, "aspect": "answers", "archive": "/x", "digests": {}, "wanted": False}
    (why,) = kind.observe([setting], FakeHost(tmp_path))
    assert isinstance(why, Unavailable) and why.code == "unasked"
    (why,) = image_list.observe([{"list": "", "allowed_signers": "", "revoked": ""}], FakeHost(tmp_path))
    assert isinstance(why, Unavailable) and why.code == "unasked"


class RealHost(FakeHost):
    """A host on which programs are run as they are."""

    run = Host.run


def signed_list(folder: Path, *entries: program.Entry, expires: datetime.date = DAY, **more: Any) -> Path:
    """A signed list with what the verifier reads beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [{**one._asdict(), "until": one.until.isoformat()} for one in entries]
    path = folder / program.LIST
    path.write_text(json.dumps({"schema": 1, "expires": expires.isoformat(), "images": images, **more}))
    private = folder.parent / "id"
    if not private.exists():
        signing.key(folder.parent)
    signing.allow(folder / program.SIGNERS, private)
    signing.sign(path, private, program.NAMESPACE)
    (folder / program.FURTHER).write_text("[]")
    (folder / program.REVOKED).write_text("")
    return path


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda at, lists: None, ""),
        (lambda at, lists: at.write_text("#!/bin/sh\nexit 0\n"), "lets through what no list has"),
        (lambda at, lists: at.write_text("#!/bin/sh\nexit 1\n"), "refuses every image: it ended with 1"),
        (
            lambda at, lists: at.write_text("#!/bin/sh\necho not on the list; exit 1\n"),
            "it refuses registry.example.org/app",
        ),
        (lambda at, lists: at.unlink(), "refuses every image"),
        (lambda at, lists: signed_list(lists, expires=datetime.date(2020, 1, 1)), "ended on 2020-01-01"),
        (lambda at, lists: (lists / program.LIST).unlink(), "list.json is missing"),
    ],
)
def test_the_verifier_itself_is_asked(tmp_path: Path, damage: Any, says: str) -> None:
    host = RealHost(tmp_path)
    lists, at = Path(host.path(LISTS)), Path(host.path(f"{FOLDER}/casemate"))
    at.parent.mkdir(parents=True)
    today = datetime.datetime.now(datetime.UTC).date()
    entry = program.Entry("registry.example.org/app", "sha256:" + "a" * 64, "ops", "x", today)
    signed_list(lists, entry, expires=today)
    text = program.HEAD + Path(program.__file__).read_text()
    at.write_text(text.replace(f'"{program.FOLDER}"', repr(str(lists))))
    at.chmod(0o755)
    damage(at, lists)
    setting: Any = {**SETTING, "aspect": "answers"}
    verdict = image_verifier.assess(setting, image_verifier.observe([setting], host)[0])
    assert verdict.ok is (not says) and says in verdict.reason


def archive(path: Path, *configs: str) -> None:
    """An archive of images as a release has it, of which no more than manifest.json is read."""
    manifest = json.dumps([{"Config": f"{config[7:]}.json"} for config in configs]).encode()
    with tarfile.open(path.with_suffix(""), "w") as made:
        for name, data in (("layer.tar", b"\0" * 300000), ("manifest.json", manifest)):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            made.addfile(about, io.BytesIO(data))
    subprocess.run(["zstd", "-q", "-f", path.with_suffix(""), "-o", path], check=True)


def test_what_runs_is_on_the_list_or_of_the_release(tmp_path: Path) -> None:
    blobs: running_images.Blobs = {}
    (app, app_config), (own, own_config), (bad, bad_config), (old, old_config) = (
        running_images.image(blobs, f"2026-01-0{day}T00:00:00Z") for day in (1, 2, 3, 4)
    )
    names = {app: "registry.example.org/app", own: "docker.io/rancher/mirrored-pause"}
    names |= {bad: "docker.io/library/bad", old: "docker.io/library/old"}
    named = [(f"{name}:1", digest) for digest, name in names.items()]
    runs = [running_images.container(one, f"default/{name}") for one, name in
            ((app_config, "app"), (own_config, "own"), (bad_config, "bad"), (old_config, "old"))]  # fmt: skip
    host = running_images.node(tmp_path, blobs, named, runs, context={"today": "2027-03-31"})
    signed_list(
        Path(host.path(LISTS)),
        program.Entry(names[app], app, "ops", "x", DAY),
        program.Entry(names[old], old, "ops", "x", datetime.date(2027, 3, 30)),
        program.Entry("docker.io/library/other", bad, "ops", "x", DAY),
    )
    host.commands["systemctl show k3s.service"] = (0, "ActiveState=active\nMainPID=7\n", "")
    path = tmp_path / "images.tar.zst"
    archive(path, own_config)
    digests = {os.uname().machine: digest_of(str(path))}
    setting: Any = {"lists": LISTS, "archive": "/images.tar.zst", "wanted": True, "digests": digests}
    verdict = image_running.assess(setting, image_running.observe([setting], host)[0])
    assert not verdict.ok
    assert f"{names[bad]}@{bad}: its digest is on the list for docker.io/library/other only" in verdict.reason
    assert f"{names[old]}@{old}: it was allowed until 2027-03-30" in verdict.reason
    assert verdict.where == ("pod default/bad/main", "pod default/old/main")
    host._cache.clear()
    path.write_bytes(b"other")
    changed = image_running.assess(setting, image_running.observe([setting], host)[0])
    assert "is not that of the lock" in changed.reason and "default/own" in str(changed.where)


def test_an_archive_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "images.tar.zst"
    archive(path, "sha256:" + "c" * 64)
    assert configurations(str(path)) == {"sha256:" + "c" * 64}
    whole = path.read_bytes()
    for data, says in ((whole[:-9], "ends in the middle"), (b"no zstd at all", "not compressed"), (b"", "no archive")):
        path.write_bytes(data)
        with pytest.raises(OSError, match=says):
            configurations(str(path))


def test_the_list_is_judged_on_the_controller(tmp_path: Path) -> None:
    host = RealHost(tmp_path / "root", context={"today": "2027-03-31"})
    path = signed_list(tmp_path / "lists", program.Entry("docker.io/library/x", "sha256:" + "a" * 64, "o", "r", DAY))
    setting: Any = {"list": str(path), "allowed_signers": str(path.parent / program.SIGNERS), "revoked": ""}

    def verdict() -> Verdict:
        return image_list.assess(setting, image_list.observe([setting], host)[0])

    assert verdict().ok and "signed by ops@example.org, until 2027-03-31, 1 images" in str(verdict().observed)
    revoked = tmp_path / "revoked"
    revoked.write_bytes((tmp_path / "id.pub").read_bytes())
    setting["revoked"] = str(revoked)
    assert not verdict().ok and "revokes the key" in verdict().reason
    revoked.unlink()
    assert not verdict().ok and "is missing" in verdict().reason
    setting["revoked"] = ""
    signed_list(path.parent, expires=datetime.date(2027, 3, 30))
    assert "it ended on 2027-03-30" in verdict().reason
    signed_list(path.parent, issued="2027-04-01", serial=3)
    assert "it was issued on 2027-04-01, and the clock of this machine says 2027-03-31" in verdict().reason
    signed_list(path.parent)
    assert "allows no image today" in verdict().reason
    path.write_text("{}")
    assert "was changed after signing" in verdict().reason
