"""Casemate: a hardened K3s cluster, and the proof of it."""

__version__ = "0.1.0"
