"""Types of arguments and options: NAME with completion, HOURS and SECONDS."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from gpudev.hours import EXAMPLES, read_hours


def _complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from gpudev.client import Client
    from gpudev.errors import GpuDevError
    from gpudev.words import label, size

    try:
        found = Client(patience=1.0).reservations()
    except GpuDevError:
        return []
    return [
        CompletionItem(label(r.record), help=f"{size(r.gpus, r.nodes)}, {r.state}")
        for r in found
        if label(r.record).startswith(incomplete)
    ]


def hours(value: str) -> float:
    """Return the number of hours of a length of time. The service checks the limits."""
    found = read_hours(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a length of time. Use a value such as {EXAMPLES}.")
    return found


def seconds(value: str) -> float:
    """Return a number of seconds. The library checks the range."""
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number of seconds. Use a number such as 600.") from None


reservation_name = click.argument("name", shell_complete=_complete)
reservation_names = click.argument("names", nargs=-1, required=True, shell_complete=_complete)
