"""The generator of drifts on a made root: the same seed draws the same, and what is planted is taken back exactly."""

from __future__ import annotations

import contextlib
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from drifts import objects, peers, planting, sends
from drifts.drift import Drift, Family, drawn, groups
from drifts.hosts import Files, other_families
from drifts.k3s import k3s_families
from drifts.objects import cluster_families
from drifts.planting import Tree

from casemate import ROOT
from casemate.catalogue import load, threats

NOT_OF_FILES = {"rules of the kernel", "sockets"}
THERE = {
    "/etc/passwd": "root:x:0:0::/root:/bin/bash\n", "/etc/pam.d/su": "auth required pam_unix.so\n" * 9,
    "/etc/pam.d/common-auth": "auth required pam_unix.so\n" * 9, "/etc/sudoers": "root ALL=(ALL) ALL\n",
    "/etc/profile": "umask 027\n" * 9, "/usr/bin/find": "\x7fELF" + "x" * 64, "/usr/bin/grep": "\x7fELF" + "y" * 64,
    "/usr/sbin/groupadd": "\x7fELF" + "z" * 64, "/etc/systemd/journald.conf": "[Journal]\n#Storage=auto\n" * 4,
    "/etc/sysctl.d/99-zz-casemate.conf": "net.ipv4.ip_forward = 1\n" * 8, "/usr/bin/.hidden": "#!/bin/sh\n",
    "/var/lib/rancher/k3s/server/tls/client-ca.crt": "one\n", "/etc/rancher/k3s/k3s.yaml": "a kubeconfig\n",
    "/var/lib/rancher/k3s/server/tls/request-header-ca.crt": "other\n",
    "/etc/rancher/k3s/config.yaml.d/a.yaml": "a: b\n",
    "/var/lib/rancher/k3s/data/0123/bin/runc": "\x7fELF", "/etc/cron.d/e2scrub": "30 3 * * 0 root true\n",
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    for path, text in THERE.items():
        real = tmp_path / path[1:]
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_text(text)
        os.utime(real, ns=(1, 1_000_000_007))
    for folder in ("var/tmp", "tmp", "opt", "usr/local/bin", "etc/systemd/system"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    return Tree(str(tmp_path))


def everything(tree: Tree) -> dict[str, Any]:
    """All that can be told of each path but the kernel's own date."""
    found = {}
    for folder, folders, files in os.walk(tree.root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)[len(tree.root) :]
            found[path] = tree.state(path)
    return found


def of_files() -> list[Family]:
    declared = [Files(**one).family() for held in sends.families_of_files().values() for one in held]
    return [one for one in (*declared, *other_families(), *k3s_families(server=True)) if one.name not in NOT_OF_FILES]


def every(tree: Tree) -> Iterator[Drift]:
    for family in of_files():
        yield from family.every(random.Random(1), tree)


def test_the_same_seed_draws_the_same_and_another_seed_something_else(tree: Tree) -> None:
    def told(seed: int) -> list[tuple[str, str, tuple[str, ...]]]:
        return [one[:3] for one in drawn(seed, 60, of_files(), tree)]

    assert told(7) == told(7)
    assert told(7) != told(8)
    assert len(set(told(7))) == 60


def test_a_draw_reaches_every_family_that_has_something_to_draw(tree: Tree) -> None:
    able = {one.name for one in of_files() if list(one.every(random.Random(1), tree))}
    assert {one.family for one in drawn(7, len(able), of_files(), tree)} == able


def test_more_than_there_is_cannot_be_drawn(tree: Tree) -> None:
    few = [one for one in of_files() if one.name == "the loader"]
    assert [one.variant for one in drawn(7, 9, few, tree)] in (["planted", "link"], ["link", "planted"])


def test_whatever_is_planted_can_be_seen_and_is_taken_back_exactly(tree: Tree) -> None:
    before, tried = everything(tree), 0
    for drift in drawn(5, 300, of_files(), tree):
        try:
            with drift.plant():
                assert everything(tree) != before, drift[:3]
                tried += 1
        except OSError as lacking:  # capabilities and the flags of chattr are not everywhere
            assert drift.variant == "immutable" or "capable" in drift.variant, (drift[:3], lacking)
        assert everything(tree) == before, drift[:3]
    assert tried > 250


def test_what_fails_while_it_is_planted_is_taken_back_as_well(tree: Tree) -> None:
    before = everything(tree)
    with pytest.raises(RuntimeError), planting.planted(tree, "/etc/a/b/c", b"x", 0o4755):
        raise RuntimeError
    assert everything(tree) == before


def test_a_disguised_file_has_its_size_and_its_time(tree: Tree) -> None:
    path = Path(tree.real("/usr/bin/find"))
    seen = path.stat()
    with planting.disguised(tree, "/usr/bin/find", b"y"):
        now = path.stat()
        assert (now.st_size, now.st_mtime_ns, now.st_mode) == (seen.st_size, seen.st_mtime_ns, seen.st_mode)
        assert path.read_text().endswith("xy")


def test_a_file_that_is_removed_or_replaced_meanwhile_comes_back(tree: Tree) -> None:
    before = everything(tree)
    path = tree.real("/usr/bin/find")
    with planting.kept(tree, "/usr/bin/find"):
        os.remove(path)
        os.symlink("/bin/true", path)
    assert everything(tree) == before
    with planting.kept(tree, "/usr/bin/find"):
        os.remove(path)
    assert everything(tree) == before


def test_a_finding_names_a_drift_by_its_place_or_by_a_line_of_it_and_by_nothing_longer() -> None:
    drift = Drift("cron", "planted", ("/etc/cron.d/sync",), lambda: planting.kept(Tree(), "/nowhere"))
    assert drift.is_named_by(["/etc/cron.d/other", "/etc/cron.d/sync:3"])
    assert not drift.is_named_by(["/etc/cron.d/sync2", "/etc/cron.d"])


def test_what_is_planted_together_is_never_at_one_place() -> None:
    def at(family: str, place: str) -> Drift:
        return Drift(family, "", (place,), lambda: planting.kept(Tree(), "/x"))

    a, b, c = at("a", "/x"), at("b", "/x"), at("c", "/y")
    assert groups([a, b, c], 2) == [[a], [c], [b]]
    assert groups([a, c, b], 2) == [[a, c], [b]]
    assert groups([a, b, b, c], 9) == [[a, c], [b], [b]]
    assert groups([a, a, c, c], 9) == [[a, c], [a, c]]


def test_families_have_names_of_their_own_and_undermine_mitigations_that_there_are() -> None:
    families = [*of_files(), *cluster_families()]
    assert len({one.name for one in families}) == len(families)
    known = {mitigation["id"] for threat in threats() for mitigation in threat["mitigations"]}
    assert {each for one in families for each in one.undermines} <= known


def test_what_is_open_is_of_a_family_that_there_is() -> None:
    known = {one.name for one in (*of_files(), *cluster_families())} | NOT_OF_FILES
    assert {one["family"] for one in yaml.safe_load((ROOT / "tests/drifts/open.yml").read_text())} <= known
    assert sends.why_open({"family": "authorized keys", "place": "/home/alice/.ssh/authorized_keys"})
    assert not sends.why_open({"family": "units", "place": "/etc/systemd/system/x.service"})


def test_the_generator_knows_no_control() -> None:
    texts = "".join(path.read_text() for path in (ROOT / "tests/drifts").rglob("*.*") if path.suffix in (".py", ".yml"))
    assert [one for one in load() if one in texts] == []


def test_objects_are_told_by_their_kind_and_by_their_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "is_there", lambda body: True)
    drifts = [one for family in cluster_families() for one in family.every(random.Random(3), Tree())]
    assert len({one.place for one in drifts}) > 50
    assert all(name.count("/") in (1, 2) and path.startswith("/api") for name, path in (one.places for one in drifts))


def test_nothing_of_the_automation_loses_its_end(tree: Tree) -> None:
    """A file by which somebody gets in is only ever appended to."""
    ways = {"/etc/passwd", "/etc/sudoers", "/etc/pam.d/common-auth"}
    assert {one.variant for one in every(tree) if one.place in ways} <= {"appended", "writable", "immutable"}
    assert stat.S_ISREG(os.stat(tree.real("/etc/passwd")).st_mode)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("f++++++++++++++++: /etc/cron.d/job", True),
        ("/etc/cron.d/job:3", True),
        ("/etc/cron.d/job.old", True),  # a dot may end the sentence
        ("/etc/cron.d/jobs", False),
        ("/etc/cron.d/job/x", False),
        ("/mnt/etc/cron.d/job", False),
        ("2 files added", False),
    ],
)
def test_another_tool_names_a_place_by_the_whole_of_it(said: str, named: bool) -> None:
    drift = Drift("jobs", "planted", ("/etc/cron.d/job",), contextlib.nullcontext)
    assert peers.is_named(drift, f"before\n{said}\nafter") is named
