"""What K3s says while it is refused ends the wait early, with what to do; what it says once does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.k3s import readiness, refused

DUPLICATE = (
    'level=fatal msg="etcd cluster join failed: duplicate node name found, please use a unique name for this node"'
)
REJECTED = 'level=info msg="Waiting to retrieve agent configuration; server is not ready: Node password rejected, ..."'
FOREIGN = 'level=error msg="token CA hash does not match the Cluster CA certificate hash: a != b"'


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], ""),
        (["level=info msg=fine"] * 9, ""),
        ([DUPLICATE], ""),  # once may be about to pass
        ([DUPLICATE, "x", DUPLICATE], "k3s kubectl delete node s2"),
        ([REJECTED, REJECTED], "the cluster knows another machine as s2"),
        ([FOREIGN, FOREIGN], "the token is another cluster's"),
        ([FOREIGN, FOREIGN, DUPLICATE], ""),
    ],
)
def test_a_refusal_that_is_repeated_is_told_with_what_to_do(lines: list[str], said: str) -> None:
    found = refused.meaning("\n".join(lines), "s2")
    assert (said in found) and bool(found) is bool(said)


def test_the_wait_ends_with_the_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise readiness.NotReady("node s2 to register")

    monkeypatch.setattr(refused, "PAUSE", 0)
    host = FakeHost(tmp_path, commands={"journalctl": (0, f"{DUPLICATE}\n{DUPLICATE}\n", "")})
    reason = readiness.wait(never, 600, refusal=refused.Refusal(host, "k3s.service", "s2"))
    assert reason.startswith("it is refused: etcd still has a member of this name")
    assert any(argument.startswith("--since=@") for argument in host.ran[0])


def test_the_journal_is_not_read_at_every_look(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    refusal = refused.Refusal(host, "k3s.service", "s2")
    assert [refusal(), refusal()] == ["", ""]
    assert host.ran == []
