"""What registries answered is kept in one file, counts for some days, and is refused where it is something else."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from casemate.supply import registry_answers as answers
from casemate.supply.registry import Answer

NOW = datetime.datetime(2026, 11, 29, 12, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
APP, PLATFORM = "registry.example.org/app:1", "linux/amd64"
FOUND = Answer((f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"), f"sha256:{'c' * 64}")


def test_an_answer_counts_for_some_days_and_none_from_the_future(tmp_path: Path) -> None:
    given = {"answers": str(tmp_path)}
    answers.keep(given, {APP: {PLATFORM: answers.answered(FOUND, NOW)}}, NOW)
    assert answers.known(given, NOW + 7 * DAY)[APP][PLATFORM]["digests"] == list(FOUND.digests)
    assert answers.known(given, NOW + 7.1 * DAY) == {}
    assert answers.known({**given, "max_age_days": 1}, NOW + 2 * DAY) == {}
    assert answers.known(given, NOW - DAY) == {}
    assert answers.known(None, NOW) == {}


def test_those_of_other_hosts_stay_and_those_that_count_no_more_go(tmp_path: Path) -> None:
    given = {"answers": str(tmp_path)}
    answers.keep(given, {APP: {PLATFORM: answers.answered(FOUND, NOW)}}, NOW)
    answers.keep(given, {APP: {"linux/arm64": answers.unanswered("closed", NOW + DAY)}}, NOW + DAY)
    assert {platform: one["why"] for platform, one in answers.known(given, NOW + DAY)[APP].items()} == {
        PLATFORM: "",
        "linux/arm64": "closed",
    }
    path = answers.keep(given, {}, NOW + 7.5 * DAY)
    assert list(json.loads(path.read_text())["answers"][APP]) == ["linux/arm64"]
    assert [one.name for one in tmp_path.iterdir()] == [answers.NAME]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, '{"schema": 2, "answers": {}}', '{"schema": 1, "answers": {"a": {"b": {}}}}',
     '{"schema": 1, "answers": {"a": {"b": {"asked": "soon", "digests": [], "config": "", "why": ""}}}}',
     '{"schema": 1, "answers": {"a": {"b": {"asked": "2026-11-29T12:00:00Z", "digests": []}}}}'],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / answers.NAME).write_text(text)
    with pytest.raises(answers.AnswersError, match="Remove it"):
        answers.known({"answers": str(tmp_path)}, NOW)
