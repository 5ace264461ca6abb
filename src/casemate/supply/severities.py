"""How bad an advisory is, in one word: by the data's own, or by a vector of CVSS that the data has. Pure.

Source: https://ossf.github.io/osv-schema/ (severity). Scores, and the words for them, are those of the library cvss.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

WORDS = ("low", "medium", "high", "critical")
"""From the least to the worst."""
UNKNOWN = "unknown"
"""What data says of a severity, and nobody can read. It counts whatever limit there is, as what is critical does."""
ORDER = ("", "low", "medium", "high", UNKNOWN, "critical")
"""Of two names of one fault the later in this counts; "" is where data says nothing."""
OTHER_WORDS = {"moderate": "medium"}
"""How GitHub's data calls one of them."""


def of(word: object, vectors: Iterable[Any]) -> str:
    """The severity by a word of the data, else by its vectors (OSV's `severity`), of which the worst counts.

    Without either it is what the word is, or "". Raises KeyError and TypeError for vectors that are none of OSV.
    """
    said = str(word or "").lower()
    said = OTHER_WORDS.get(said, said)
    if said in WORDS:
        return said
    found = [_of_vector(one["type"], str(one.get("score"))) for one in vectors if str(one["type"]).startswith("CVSS_")]
    return worst(found) if found else said


def worst(words: Iterable[str]) -> str:
    """The one of several, at least one, that counts. Any other word is as good as unknown."""
    return max(words, key=lambda word: ORDER.index(word if word in ORDER else UNKNOWN))


@functools.cache
def _of_vector(kind: str, vector: str) -> str:
    """The base severity of one vector. A score of 0 is unknown: that of something that is no fault."""
    # Here, since a collection is also read where it is not installed.
    from cvss import CVSS2, CVSS3, CVSS4
    from cvss.exceptions import CVSSError

    versions = {"CVSS_V2": CVSS2, "CVSS_V3": CVSS3, "CVSS_V4": CVSS4}
    version = versions.get(kind)
    if version is None:
        return UNKNOWN
    try:
        word = str(version(vector).severities()[0]).lower()
    except CVSSError:
        return UNKNOWN
    return word if word in WORDS else UNKNOWN
