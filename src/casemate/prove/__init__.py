"""The attacks on a real inventory."""
