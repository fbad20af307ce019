"""The ports that tests choose."""

from __future__ import annotations

import socket

import pytest

from hub_users import HeldPort, free_port


def test_a_chosen_port_is_for_servers_of_the_test_only() -> None:
    """The test starts them later; until then, other processes get other ports."""
    port = free_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind(("127.0.0.1", port))
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)) as server:
            socket.create_connection(server.getsockname()).close()
    held = HeldPort()
    number = held.number
    del held
    with socket.socket() as other:
        other.bind(("127.0.0.1", number))
