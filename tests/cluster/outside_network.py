"""A network outside the cluster, for users, their browsers, GitHub and DynamoDB.

The cluster's machine forwards their packets to pods, so network policies apply. Packets of processes beside
the cluster would count as traffic of the node.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# Addresses of 203.0.113.0/24, which RFC 5737 reserves for documentation. To policies they are the internet.
_GATEWAY: Final = "203.0.113.1"
USERS: Final = "203.0.113.2"
GITHUB: Final = "203.0.113.3"
DYNAMODB: Final = "203.0.113.4"
_PREFIX: Final = 24
_LINK: Final = "outside"
_PEER: Final = "inside"
_NEW_NETWORK: Final = 0x40000000
"""``CLONE_NEWNET``."""
_CLUSTER: Final = "/proc/1/ns/net"
"""The network of process 1, which leads the cluster."""


@contextmanager
def outside() -> Iterator[None]:
    """Move this thread and its new processes out of the cluster's network. Open listeners stay inside."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "no network of its own can be made for this process")
    try:
        _ip(
            f"link add {_LINK} type veth peer name {_PEER}",
            f"link set {_PEER} netns 1",
            "link set lo up",
            *(f"address add {address}/{_PREFIX} dev {_LINK}" for address in (USERS, GITHUB, DYNAMODB)),
            f"link set {_LINK} up",
        )
        _ip(f"address add {_GATEWAY}/{_PREFIX} dev {_PEER}", f"link set {_PEER} up", cluster=True)
        _ip(f"route add default via {_GATEWAY} src {USERS}")
        yield
    finally:
        with Path(_CLUSTER).open() as network:
            if libc.setns(network.fileno(), _NEW_NETWORK) != 0:
                raise OSError(ctypes.get_errno(), "the cluster's network cannot be entered again")


def in_cluster(*command: str) -> list[str]:
    """Return the command line that runs a command in the cluster's network."""
    return ["nsenter", f"--net={_CLUSTER}", "--", *command]


def _ip(*lines: str, cluster: bool = False) -> None:
    command = ["ip", "-batch", "-"]
    subprocess.run(
        in_cluster(*command) if cluster else command,
        input="\n".join(lines),
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
