"""Output of the commands: JSON and results on standard output, the rest on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from gpudev import clock, wire, words
from gpudev.errors import GpuDevError

if TYPE_CHECKING:
    from rich.console import Console

    from gpudev.client import Client

WIDE = 160
"""Columns if the output is not a terminal."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def echo(text: str | bytes) -> None:
    """Write a line of the result."""
    # Without `file`, click writes UTF-8 to an ASCII terminal.
    click.echo(text, file=sys.stdout)


def emit(document: Any) -> None:
    """Print one JSON document."""
    # Bytes: JSON is UTF-8, whatever the terminal's encoding.
    echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def console() -> Console:
    """Return a console for standard output, with colours on a terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else WIDE)


def connect() -> Client:
    """Return a client of the configured hub that reports slow answers on standard error."""
    from gpudev.client import Client

    return Client(tell=say)


def say(text: str) -> None:
    """Write a line to standard error."""
    click.echo(text, file=sys.stderr)


def described(error: GpuDevError) -> dict[str, str]:
    """Return an error as the commands print it in JSON."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


def complain(error: GpuDevError, *, as_json: bool) -> None:
    """Write an error: what went wrong, and what to do next."""
    if as_json:
        emit({"error": described(error)})
    click.secho(f"Error: {error.message}", file=sys.stderr, fg="red")
    if error.hint:
        say(error.hint)
    for note in getattr(error, "__notes__", ()):
        say(note)


def confirm(text: str, *, default: bool = False) -> bool:
    """Ask a question on standard error until the answer is yes or no. Raises `click.Abort` for Ctrl-C."""
    choices = "Y/n" if default else "y/N"
    while True:
        answer: str = click.prompt(f"{text} [{choices}]", default="", show_default=False, err=True)
        match answer.strip().lower():
            case "":
                return default
            case "y" | "yes":
                return True
            case "n" | "no":
                return False
        say(f"{answer!r} is neither yes nor no. Answer y or n.")


def announce(record: wire.Reservation) -> None:
    """Print a new or ready reservation with its addresses."""
    view = words.describe(record, clock.now())
    facts = " · ".join((view.headline, *view.times))
    echo(f"{view.title}: {facts}")
    if view.reason:
        echo(f"  {view.reason}")
    for name, value in (
        ("JupyterLab", view.url),
        ("SSH", view.ssh_command),
        *((f"SSH rank {rank}", command) for rank, command in enumerate(view.node_ssh_commands, 1)),
        ("VS Code", view.vscode_url),
    ):
        if value:
            echo(f"  {name:<10} {value}")
