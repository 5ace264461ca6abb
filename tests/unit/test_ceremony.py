"""What channels agree on, and the lock that follows."""

from __future__ import annotations

import datetime
import json

import pytest

from casemate.supply import artifact_lock, ceremony
from casemate.supply.artifact_lock import Lock, LockError, Release
from casemate.supply.ceremony import DisagreementError, agreed, reissued, strange, wanted, with_release, without_release
from casemate.supply.channel import Reading

DIGEST, OTHER = "ab" * 32, "cd" * 32
OLD, NEW = "v1.36.3+k3s1", "v1.36.4+k3s1"
LOCK = Lock(OLD, {OLD: Release(OLD, ("api_semantics",), {"k3s": DIGEST})}, 4, "2026-11-01", "2027-01-31")
TODAY = datetime.date(2026, 11, 29)


def readings(one: dict[str, str], other: dict[str, str]) -> dict[str, Reading]:
    return {"download": Reading(one, has_bytes=True), "mirror": Reading(other, has_bytes=False)}


def test_a_lock_holds_programs_and_images_for_each_architecture() -> None:
    assert wanted(["amd64", "arm64"], images=True) == [
        "k3s",
        "k3s-arm64",
        "k3s-airgap-images-amd64.tar.zst",
        "k3s-airgap-images-arm64.tar.zst",
    ]
    assert wanted(["arm64"], images=False) == ["k3s-arm64"]


def test_what_channels_agree_on_is_taken_and_nothing_else() -> None:
    both = {"k3s": DIGEST, "k3s-armhf": OTHER, "install.sh": OTHER}
    assert agreed(readings(both, both), ["k3s"]) == {"k3s": DIGEST}
    assert strange(readings(both, {"k3s": DIGEST, "evil": OTHER})) == ["evil", "install.sh"]


def test_a_difference_names_file_digests_and_channels() -> None:
    with pytest.raises(DisagreementError, match=f"k3s differs: download says {DIGEST}, mirror says {OTHER}"):
        agreed(readings({"k3s": DIGEST}, {"k3s": OTHER}), ["k3s"])


def test_all_faults_are_named_at_once() -> None:
    one, other = {"k3s": DIGEST, "k3s-arm64": DIGEST}, {"k3s": OTHER}
    with pytest.raises(DisagreementError) as refused:
        agreed(readings(one, other), ["k3s", "k3s-arm64", "k3s-airgap-images-amd64.tar.zst"])
    first, second, third = str(refused.value).split("\n")
    assert first.startswith("k3s differs")
    assert second.startswith("k3s-airgap-images-amd64.tar.zst is missing in download, mirror")
    assert third.startswith("k3s-arm64 is missing in mirror")


def test_a_file_that_nobody_asked_for_has_to_agree_too() -> None:
    """Else the channels are of two releases, or one was changed."""
    one, other = {"k3s": DIGEST, "k3s-armhf": DIGEST}, {"k3s": DIGEST, "k3s-armhf": OTHER}
    with pytest.raises(DisagreementError, match="k3s-armhf differs"):
        agreed(readings(one, other), ["k3s"])


def test_a_release_is_added_beside_the_others() -> None:
    made = with_release(LOCK, NEW, {"k3s": OTHER}, default=False)
    assert (made.default, list(made.releases)) == (OLD, [OLD, NEW])
    assert made.releases[NEW] == Release(NEW, ("api_semantics",), {"k3s": OTHER})
    assert with_release(LOCK, NEW, {"k3s": OTHER}, default=True).default == NEW
    assert with_release(None, NEW, {"k3s": OTHER}, default=False).default == NEW


def test_files_of_a_known_release_add_up_and_never_change() -> None:
    assert with_release(LOCK, OLD, {"k3s-arm64": OTHER}, default=False).releases[OLD].files == {
        "k3s": DIGEST,
        "k3s-arm64": OTHER,
    }
    with pytest.raises(LockError, match=f"the lock has {DIGEST} for k3s of v1.36.3"):
        with_release(LOCK, OLD, {"k3s": OTHER}, default=False)


def test_a_release_goes_unless_it_is_the_default() -> None:
    both = with_release(LOCK, NEW, {"k3s": OTHER}, default=True)
    assert list(without_release(both, OLD).releases) == [NEW]
    with pytest.raises(LockError, match="installs by default"):
        without_release(both, NEW)
    with pytest.raises(LockError, match="not in the lock"):
        without_release(LOCK, NEW)


def test_every_change_has_a_higher_serial() -> None:
    made = reissued(LOCK, TODAY, None)
    assert (made.serial, made.issued, made.expires) == (5, "2026-11-29", "2027-01-31")
    assert reissued(LOCK, TODAY, datetime.date(2028, 1, 1)).expires == "2028-01-01"
    assert reissued(Lock(OLD, LOCK.releases), TODAY, None).serial == 1


def test_a_lock_is_always_written_in_the_same_way() -> None:
    made = with_release(LOCK, NEW, {"k3s-airgap-images-amd64.tar.zst": OTHER, "k3s": OTHER}, default=True)
    text = artifact_lock.text(made)
    assert artifact_lock.parse(text) == made
    assert text.index(NEW + '": {') < text.index(OLD + '": {')
    other = Lock(made.default, dict(reversed(list(made.releases.items()))), made.serial, made.issued, made.expires)
    assert artifact_lock.text(other) == text
    assert [line.count(DIGEST) + line.count(OTHER) for line in text.split("\n") if len(line) > 70] == [1, 1, 1]
    assert json.loads(text)["serial"] == 4


def test_assets_of_a_release_are_known() -> None:
    for name in ("k3s", "k3s-arm64", "k3s-airgap-images-arm.tar.gz", "k3s-images.txt"):
        assert ceremony.ASSET.fullmatch(name)
