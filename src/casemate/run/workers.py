"""What Python is told once, before Ansible forks a worker for each host and task."""

from __future__ import annotations

import gc

BATCH = 100_000
"""New objects after which Python looks for those that nothing needs any more; it is 700 unless told otherwise."""


def spare() -> None:
    """Have the garbage collector leave alone what is there already, and come more rarely for what is new.

    It would walk through all that was read before the fork, anew in each worker, and so copy it for each of them: a
    third of a worker's time. A worker ends long before what it throws away is worth collecting.
    """
    gc.freeze()
    gc.set_threshold(BATCH, *gc.get_threshold()[1:])
