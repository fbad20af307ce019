"""Messages in the output of ssh that say why a name has no server: ``ssh-why`` and ``ssh-sync``."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from gpudev import clock, foreign, ssh, sshblocks, wire, words
from gpudev.errors import GpuDevError, NotFound

TIMEOUT = 5.0
"""Timeout in seconds for the request to the service."""
_RESOLVED_WITHIN = 0.5
"""Seconds to look up whether the name is that of another machine. ssh looks it up again, without limit."""


def main(args: Sequence[str]) -> int:
    """Run ``gpu-dev ssh-why KEY ID``, which ssh runs instead of connecting: print why, and fail."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ssh reports Ctrl-C
    key, reservation = args
    try:
        text = _why(key, reservation)
    except NotFound:
        text = f"reservation {reservation} no longer exists. List yours with: gpu-dev list"
    except Exception as error:
        text = f"the state of reservation {reservation} is unknown: {error}"
    _say(text)
    return 1


def _say(text: str) -> None:
    sys.stderr.write(f"gpu-dev: {foreign.plain(text)}\n")


def _why(key: str, id: str) -> str:
    account = ssh.account_of(key)
    api = None if account is None else ssh.api_of(account, TIMEOUT)
    if api is None:
        return (
            f"the gpu-dev configuration file of reservation {id} no longer exists. Log in with: gpu-dev login"
        )
    return how_it_stands(api.reservation(id))


def how_it_stands(record: wire.Reservation) -> str:
    """Return one sentence on why you cannot connect to a reservation, and what to do."""
    now = clock.now()
    view = words.describe(record, now)
    name = words.label(record)
    why = view.reason.rstrip(".")
    reason = f": {why}" if why else ""
    match record.state:
        case "queued":
            when = "".join(f", {time}" for time in view.times[:1])
            return f"gpu-{name} is queued{when}{reason}. Wait for it with: gpu-dev wait {name}"
        case "starting":
            return f"gpu-{name} is starting{reason}. Wait for it with: gpu-dev wait {name}"
        case "ready" if record.server == "running":
            return f"gpu-{name} has just become ready. Connect again."
        case "ready":
            return f"gpu-{name} is yours, but its server is {record.server}{reason}."
        case "stopping":
            return f"gpu-{name} is stopping{reason}."
        case "ended":
            ended = words.parse_time(record.ended_at)
            when = "now" if ended is None else words.when(ended, now)
            at = "" if when == "now" else f" at {when}"
            return f"gpu-{name} ended{at}: {words.how_it_ended(record, now)}."


def tell_of_unknown_name(name: str, accounts: Sequence[Path], errors: Sequence[GpuDevError]) -> None:
    """Print that no reservation has the typed name, unless it is the name of another machine."""
    if not sshblocks.ALIAS.fullmatch(name.lower()):
        return
    live: dict[str, str] = {}
    for account in accounts:
        names, past = ssh.names_of(account)
        if name in names or name in past:
            return  # ssh connects, or its configuration runs ssh-why
        live |= names
    if name.lower() in live:
        if not _another_machine(name):
            _say(f"names of reservations are in lower case. Use: ssh {name.lower()}")
        return
    if errors:
        text = f"{errors[0].message} The SSH settings for {name} may be out of date."
    elif _another_machine(name):
        return
    else:
        # ssh knows each reservation by its id too. The id is shown only if it has no name.
        named = {at for alias, at in live.items() if not alias.startswith(f"gpu-{at}")}
        mine = [a for a, at in live.items() if at not in named or not a.startswith(f"gpu-{at}")]
        held = f"Your reservations: {', '.join(sorted(mine))}." if mine else "You have no live reservations."
        text = f"you have no reservation called {name.lower().removeprefix('gpu-')}. {held}"
    _say(text)


def _another_machine(name: str) -> bool:
    """Return whether the user's SSH configuration or the network has a machine with this name."""
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
