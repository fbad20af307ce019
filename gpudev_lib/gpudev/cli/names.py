"""The NAME argument, with completion."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


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


reservation_name = click.argument("name", shell_complete=_complete)
reservation_names = click.argument("names", nargs=-1, required=True, shell_complete=_complete)
