"""Whatever a test of a kind makes it say has to be fit for people: no Python, nothing cut, never nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from unit.made import finding as made_finding
from unit.saying import unfit

from casemate.report import words
from module_utils.casemate.core.verdict import Verdict


@pytest.fixture(autouse=True)
def _said_for_people(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[Verdict] = []
    real = Verdict.__init__

    def kept(self: Verdict, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(Verdict, "__init__", kept)
    yield
    for verdict in made:
        if not verdict.ok:
            finding = made_finding("fail", reason=verdict.reason)
            finding |= {"expected": verdict.expected, "observed": verdict.observed, "evidence": verdict.evidence}
            for text in (verdict.reason, words.difference(finding)):
                wrong = unfit(text, verdict.expected, verdict.observed)
                assert not wrong, f"{wrong}: {text}"
