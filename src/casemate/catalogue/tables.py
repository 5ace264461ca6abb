"""Cells of Markdown tables."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def cell(value: Any) -> str:
    """A value inside a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def names(controls: Collection[str], attacked: Collection[str]) -> str:
    """Controls for a table, those that prove attacks in bold."""
    return ", ".join(f"**`{cid}`**" if cid in attacked else f"`{cid}`" for cid in controls) or "none"
