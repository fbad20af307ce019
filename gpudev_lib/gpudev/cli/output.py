"""What the commands write: JSON and results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from gpudev import clock, words
from gpudev.errors import GpuDevError

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from gpudev import wire
    from gpudev.client import Client

WIDE = 160
"""Columns where there is no terminal: nothing is cut off in a pipe."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def now() -> datetime:
    """This moment, as tables and countdowns are seen from."""
    return clock.now()


def echo(text: str | bytes) -> None:
    """Write a line of the result."""
    # To a stream that is not named, click writes UTF-8 where its encoding is ASCII.
    click.echo(text, file=sys.stdout)


def emit(document: Any) -> None:
    """Print one JSON document."""
    # Bytes: JSON is UTF-8, whatever the terminal's encoding.
    echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def console() -> Console:
    """Standard output, with colours on a terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else WIDE)


def connect() -> Client:
    """The configured hub; an answer that takes long is told of."""
    from gpudev.client import Client

    return Client(tell=say)


def say(text: str) -> None:
    """Tell something that is not the result."""
    click.echo(text, file=sys.stderr)


def complain(error: GpuDevError, *, as_json: bool) -> None:
    """Say what went wrong, and what to do next."""
    if as_json:
        emit({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
    click.secho(f"Error: {error.message}", file=sys.stderr, fg="red")
    if error.hint:
        say(error.hint)
    for note in getattr(error, "__notes__", ()):
        say(note)


def announce(record: wire.Reservation) -> None:
    """A reservation that was just made or has become ready, with the ways in."""
    view = words.describe(record, now())
    facts = " · ".join((view.headline, *view.times))
    echo(f"{view.title}: {facts}")
    if view.reason:
        echo(f"  {view.reason}")
    for name, value in (
        ("JupyterLab", view.url),
        ("SSH", view.ssh_command),
        *((f"SSH node {node}", command) for node, command in enumerate(view.node_ssh_commands, 1)),
        ("VS Code", view.vscode_url),
    ):
        if value:
            echo(f"  {name:<10} {value}")
