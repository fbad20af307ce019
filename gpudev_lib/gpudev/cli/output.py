"""What the commands write: JSON and results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from gpudev import words
from gpudev.errors import GpuDevError

if TYPE_CHECKING:
    from rich.console import Console

    from gpudev import wire

WIDE = 160
"""Columns where there is no terminal: nothing is cut off in a pipe."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def now() -> datetime:
    """This moment, as tables and countdowns are seen from."""
    return datetime.now(UTC)


def emit(document: Any) -> None:
    """Print one JSON document."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    click.echo(text)


def console() -> Console:
    """Standard output, with colours on a terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else WIDE)


def say(text: str) -> None:
    """Tell something that is not the result."""
    click.echo(text, err=True)


def complain(error: GpuDevError, *, as_json: bool) -> None:
    """Say what went wrong, and what to do next."""
    if as_json:
        emit({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
    click.secho(f"Error: {error.message}", err=True, fg="red")
    if error.hint:
        say(error.hint)
    for note in getattr(error, "__notes__", ()):
        say(note)


def announce(record: wire.Reservation) -> None:
    """A reservation that was just made or has become ready, with the ways in."""
    view = words.describe(record, now())
    facts = " · ".join((view.headline, *view.times))
    click.echo(f"{view.title}: {facts}")
    if view.reason and record.state != "ready":
        click.echo(f"  {view.reason}")
    for name, value in (
        ("JupyterLab", view.url),
        ("SSH", view.ssh_command),
        ("VS Code", view.vscode_url),
    ):
        if value:
            click.echo(f"  {name:<11}{value}")
