"""Checks from inside a server that its network policies are in force.

The policy probe of the node is not enough, because it belongs to a DaemonSet. Some network plugins enforce
policies for such pods, but not for pods without a controller, such as servers. Others let a new pod send
anything for its first seconds. So each server checks its own policies before any code of its user runs.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

PATIENCE: Final = 20.0
"""Seconds to wait until policies are in force; after them the check fails."""
DROPPED: Final = 1.0
"""Seconds after which an unanswered connection counts as blocked."""
_PAUSE: Final = 0.2


def wait_until_enforced(forbidden: Sequence[str], patience: float = PATIENCE) -> list[str]:
    """Wait until these targets (``HOST:PORT``) are all blocked, at most ``patience`` seconds.

    Returns the targets that can still be reached.
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
    except OSError:  # also if the name has no address
        return False
    return True
