"""Patterns of OpenSSH, and lists of them, in which ! before a pattern takes out. Source: ssh_config(5), PATTERNS."""

from __future__ import annotations

import fnmatch


def positive(patterns: str) -> list[str]:
    """What a list asks for."""
    return [one for one in patterns.split(",") if one and not one.startswith("!")]


def negated(patterns: str) -> list[str]:
    """What a list leaves out."""
    return [one[1:] for one in patterns.split(",") if one.startswith("!")]


def listed(name: str, patterns: str) -> bool:
    """Whether a list of patterns matches a name."""
    return any(fits(name, one) for one in positive(patterns)) and not any(fits(name, one) for one in negated(patterns))


def fits(name: str, pattern: str) -> bool:
    """Whether one pattern matches; in those of OpenSSH * and ? alone are special."""
    if "*" not in pattern and "?" not in pattern:
        return name == pattern
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))
