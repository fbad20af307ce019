"""Checks of ports that ``ssh`` forwards, and a session like that of VS Code."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address

from hub_users import free_port, wait_for

_LISTENER = """\
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(f"port {listener.getsockname()[1]}", flush=True)
listener.settimeout(60)
caller, _ = listener.accept()
caller.sendall(b"CODE")
"""
_SCRIPT = f"""\
cat > listener.py <<'END'
{_LISTENER}END
nohup python listener.py > listener.log 2>&1 < /dev/null &
until grep -q port listener.log; do sleep 0.1; done
sed 's/port /listeningOn==/' listener.log
"""


def connects(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def greet(port: int, socks_to: int | None = None, host: str = "127.0.0.1") -> bytes:
    """Return the first bytes from a port. ``socks_to``: ask the SOCKS proxy there for this port of ``host``.

    The answer is empty if the proxy may not connect there, because ``ssh -D`` then closes the connection.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        if socks_to is not None:
            connection.sendall(b"\x05\x01\x00")
            assert connection.recv(2) == b"\x05\x00"
            connection.sendall(b"\x05\x01\x00\x01" + IPv4Address(host).packed + socks_to.to_bytes(2, "big"))
            answer = connection.recv(10)
            if not answer:
                return b""
            assert answer[:2] == b"\x05\x00"
        return connection.recv(4)


def heard_as_vs_code(
    ssh: Callable[..., list[str]], host: str, environment: Mapping[str, str] | None = None
) -> bytes:
    """Connect like VS Code's Remote-SSH; return the answer of its server: ``CODE``.

    A script on standard input starts a detached listener and prints its port. The same connection has ``-D``,
    which leads there. ``ssh`` makes the command from its arguments.
    """
    socks = free_port()
    with subprocess.Popen(
        ssh("-T", "-D", str(socks), host, "bash"),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(_SCRIPT)
            process.stdin.flush()
            # Words of anybody else's before this line would disturb VS Code, too.
            found = re.search(r"listeningOn==(\d+)", process.stdout.readline())
            assert found is not None
            wait_for("the SOCKS proxy", lambda: connects(socks))
            return greet(socks, int(found[1]))
        finally:
            process.kill()
