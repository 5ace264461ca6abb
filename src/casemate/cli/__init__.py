"""The command line."""

from casemate.cli.app import main

__all__ = ["main"]
