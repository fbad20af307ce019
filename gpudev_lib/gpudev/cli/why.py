"""Why a name leads to no server, in ssh's own output: ``gpu-dev ssh-why``, and what ``ssh-sync`` says."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from gpudev import clock, foreign, ssh, sshblocks, wire, words
from gpudev.cli.sync import api_of
from gpudev.errors import GpuDevError, NotFound

TIMEOUT = 5.0
"""Seconds that the service has to say how a reservation stands."""
_RESOLVED_WITHIN = 0.5
"""Seconds for a look whether a name is that of another machine; ssh looks again, for as long as it takes."""


def main(args: Sequence[str]) -> int:
    """``gpu-dev ssh-why KEY ID``, which ssh runs in place of a connection: say how it stands, and fail."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is told by ssh
    key, reservation = args
    try:
        text = _why(key, reservation)
    except NotFound:
        text = f"reservation {reservation} no longer exists."
    except Exception as error:
        text = f"reservation {reservation} could not be entered when last heard of: {error}"
    _say(text)
    return 1


def _say(text: str) -> None:
    sys.stderr.write(f"gpu-dev: {foreign.plain(text)}\n")


def _why(key: str, id: str) -> str:
    account = ssh.account_of(key)
    api = None if account is None else api_of(account, TIMEOUT)
    if api is None:
        return f"reservation {id} is of a gpu-dev configuration file that no longer exists."
    return how_it_stands(api.reservation(id))


def how_it_stands(record: wire.Reservation) -> str:
    """One sentence on why a reservation can't be entered, and what to do."""
    now = clock.now()
    view = words.describe(record, now)
    name = words.label(record)
    reason = f": {view.reason}" if view.reason else ""
    match record.state:
        case "queued":
            return f"{', '.join((f'gpu-{name} is queued', *view.times[:1]))}{reason}."
        case "starting":
            return f"gpu-{name} is starting{reason}. Wait for it: gpu-dev wait {name}"
        case "ready" if record.server == "running":
            return f"gpu-{name} has just become ready: try again."
        case "ready":
            return f"gpu-{name} is yours, but its server is {record.server}{reason}."
        case "stopping":
            return f"gpu-{name} is being stopped{reason}."
        case "ended":
            ended = words.parse_time(record.ended_at)
            at = "" if ended is None else f" {words.when(ended, now)}"
            return f"gpu-{name} has ended{at}: {view.reason or words.outcome(record)}."


def tell_of_unknown_name(name: str, accounts: Sequence[Path], errors: Sequence[GpuDevError]) -> None:
    """Say that a typed name is no reservation's, unless it is that of another machine."""
    if not sshblocks.is_alias(name.lower()):
        return
    live: dict[str, str] = {}
    for account in accounts:
        names, past = ssh.names_of(account)
        if name in names or name in past:
            return  # ssh connects, or its configuration says why it can't
        live |= names
    if name.lower() in live:
        if not _another_machine(name):
            _say(f"the names of reservations are in lower case. Use: ssh {name.lower()}")
        return
    if errors:
        text = f"{errors[0].message} What is known of {name} may be out of date."
    elif _another_machine(name):
        return
    else:
        # Each is known by its id as well; that is told where there is nothing better.
        named = {at for alias, at in live.items() if not alias.startswith(f"gpu-{at}")}
        mine = [a for a, at in live.items() if at not in named or not a.startswith(f"gpu-{at}")]
        held = f"Yours: {', '.join(sorted(mine))}." if mine else "You have none."
        text = f"you have no reservation called {name.lower().removeprefix('gpu-')}. {held}"
    _say(text)


def _another_machine(name: str) -> bool:
    """Whether the user's own configuration or the network know a machine of this name."""
    try:
        done = subprocess.run(
            ["ssh", "-G", name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return True
    settings = [line.split(" ", 1) for line in done.stdout.splitlines()]
    if ["hostname", name.lower()] not in settings or any(
        one[0] in ("proxycommand", "proxyjump") for one in settings
    ):
        return True
    resolved = threading.Event()

    def look() -> None:
        try:
            socket.getaddrinfo(name, None)
        except OSError:
            return
        resolved.set()

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(_RESOLVED_WITHIN)
    return resolved.is_set()
