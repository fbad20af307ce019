"""A server that looks whether its network policies are in force."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from gpudev_hub.server.pod import CannotStart, check_policies
from gpudev_hub.server.policies import reachable, wait_until_enforced
from hub_users import free_port


@pytest.fixture
def door() -> Iterator[socket.socket]:
    """A port that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def target(door: socket.socket) -> str:
    host, port = door.getsockname()
    return f"{host}:{port}"


def environment(api: str) -> dict[str, str]:
    host, _, port = api.rpartition(":")
    return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}


def closed() -> str:
    return f"127.0.0.1:{free_port()}"


def test_what_can_be_reached(door: socket.socket) -> None:
    targets = [closed(), target(door), "no-such-host.invalid:80", ":", "127.0.0.1:"]
    assert reachable(targets) == [target(door)]


def test_a_packet_that_is_dropped_is_not_waited_for(door: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        # Its queue is full: the kernel drops further attempts.
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        began = time.monotonic()
        assert reachable([target(full), target(door)]) == [target(door)]
        assert time.monotonic() - began < 3
        for one in waiting:
            one.close()


def test_policies_may_come_a_moment_later(door: socket.socket) -> None:
    threading.Timer(0.5, door.close).start()
    assert wait_until_enforced([target(door)]) == []


def test_a_server_does_not_start_without_them(door: socket.socket) -> None:
    said = r"not enforced: it can reach 127\.0\.0\.1:\d+\. Tell an operator"
    for forbidden, api in ((target(door), closed()), (closed(), target(door))):
        with pytest.raises(CannotStart, match=said):
            check_policies([forbidden], environment(api), patience=0)


def test_it_starts_with_them_and_where_nobody_asks(door: socket.socket) -> None:
    check_policies([closed()], environment(closed()), patience=0)
    check_policies([], environment(target(door)), patience=0)
