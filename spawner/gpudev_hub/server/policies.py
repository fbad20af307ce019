"""Whether the network policies of this server are in force, seen from inside.

A policy probe on the same node belongs to a DaemonSet. Some network plugins enforce policies for such pods,
and not for pods without a controller, as servers are. Some let a new pod send anything for its first seconds.
So each server looks for itself, before anything of its user runs.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
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
    tried: dict[socket.socket, str] = {}
    reached: set[str] = set()
    try:
        for target in targets:
            host, _, port = target.rpartition(":")
            try:
                family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
                attempt = socket.socket(family, kind)
            except OSError:
                continue  # what has no address is reached by nobody
            tried[attempt] = target
            attempt.setblocking(False)
            attempt.connect_ex(address)
        waiting, deadline = set(tried), time.monotonic() + DROPPED
        while waiting and (left := deadline - time.monotonic()) > 0:
            for done in select.select((), waiting, (), left)[1]:
                waiting.discard(done)
                if done.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    reached.add(tried[done])
    finally:
        for attempt in tried:
            attempt.close()
    return [target for target in targets if target in reached]
