"""Whether the network policies of this server are in force, seen from inside.

A policy probe on the same node belongs to a DaemonSet. Some network plugins enforce policies for such pods,
and not for pods without a controller, as servers are. Some let a new pod send anything for its first seconds.
So each server looks for itself, before anything of its user runs.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

PATIENCE: Final = 20.0
"""Seconds after which policies that are not in force never will be."""
DROPPED: Final = 1.0
"""Seconds after which a connection that nobody answers counts as dropped."""
_PAUSE: Final = 0.2


def wait_until_enforced(forbidden: Sequence[str], patience: float = PATIENCE) -> list[str]:
    """Return once none of these targets (``HOST:PORT``) can be reached, or after ``patience`` seconds.

    Returns the targets that can be reached still.
    """
    deadline = time.monotonic() + patience
    while reached := reachable(forbidden):
        if time.monotonic() > deadline:
            break
        time.sleep(_PAUSE)
    return reached


def reachable(targets: Sequence[str]) -> list[str]:
    """Return the targets that accept a TCP connection. All are tried at the same time."""
    with ThreadPoolExecutor(max_workers=len(targets)) as pool:
        return [target for target, up in zip(targets, pool.map(_accepts, targets), strict=True) if up]


def _accepts(target: str) -> bool:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, port), timeout=DROPPED).close()
    except OSError:  # also for what has no address
        return False
    return True
