"""Tries connections through nftables rules, with a network namespace for each address.

``reached`` runs it as a program, as root, in separate namespaces, so that nothing remains.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_ROUTER = "198.18.0.1"
_PATIENCE = 1.0
"""Seconds after which a connection that nobody answers counts as dropped; an allowed one takes 1 ms."""
_ISOLATED = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def reached(
    rules: str, addresses: Mapping[str, str], tries: Sequence[tuple[str, str, int]]
) -> list[tuple[str, str, int]]:
    """Return the tries (from, to, TCP port) that connect. Names are keys of ``addresses``, or addresses."""
    given = json.dumps({"rules": rules, "addresses": dict(addresses), "tries": list(tries)})
    done = subprocess.run(
        [*_ISOLATED, sys.executable, str(Path(__file__)), "route"],
        input=given,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the namespaces could not be made: {done.stderr}")
    return [(found[0], found[1], found[2]) for found in json.loads(done.stdout)]


def _route(rules: str, addresses: Mapping[str, str], tries: Sequence[tuple[str, str, int]]) -> None:
    """Make a router of this namespace, load the rules, try, and print what connected."""
    _run("mount", "-t", "tmpfs", "none", "/run")
    _run("ip", "link", "set", "lo", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for number, (name, address) in enumerate(addresses.items()):
        inside, outside = ("ip", "-n", name), f"port{number}"
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "address", "add", f"{_ROUTER}/32", "dev", outside)
        _run("ip", "link", "set", outside, "up")
        _run("ip", "route", "add", address, "dev", outside)
        _run(*inside, "address", "add", f"{address}/32", "dev", "eth0")
        _run(*inside, "link", "set", "eth0", "up")
        _run(*inside, "route", "add", _ROUTER, "dev", "eth0")
        _run(*inside, "route", "add", "default", "via", _ROUTER)
    for name in addresses:
        ports = sorted({port for _, to, port in tries if to == name})
        if ports:
            server = _enter(name, "serve", *map(str, ports))
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
    _run("nft", "-f", "-", given=rules)
    attempts = [
        (one_try, _enter(one_try[0], "try", addresses.get(one_try[1], one_try[1]), str(one_try[2])))
        for one_try in tries
    ]
    print(json.dumps([one_try for one_try, attempt in attempts if attempt.wait() == 0]))


def _enter(namespace: str, *words: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", namespace, sys.executable, str(Path(__file__)), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _run(*command: str, given: str = "") -> None:
    subprocess.run(command, check=True, input=given, text=True)


def _serve(ports: Sequence[int]) -> None:
    sockets = [socket.create_server(("", port)) for port in ports]
    print("listening", flush=True)
    while True:
        for ready in select.select(sockets, [], [])[0]:
            ready.accept()


def _try(address: str, port: int) -> int:
    try:
        with socket.create_connection((address, port), timeout=_PATIENCE):
            return 0
    except OSError:
        return 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["route"]:
            _route(**json.load(sys.stdin))
        case ["serve", *ports]:
            _serve([int(port) for port in ports])
        case ["try", address, port]:
            sys.exit(_try(address, int(port)))
