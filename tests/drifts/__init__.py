"""Drifts that a seed draws: who changes hosts and clusters, knowing places and families and no control.

`python -m drifts` plants them on an applied lab, one at a time and in pairs, and tells which of them a check names.
What runs on machines uses the standard library only, and runs on Python 3.9.
"""
