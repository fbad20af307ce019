"""Tables: columns on a wide terminal, a few lines per entry on a narrow one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gpudev import wire, words
from gpudev.progress import STYLES

NARROW = 64
"""On terminals with fewer characters per line, each entry is a few lines."""


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


class _Plain:
    """A table of plain text. Where its words do not fit into the columns, each row is a few lines."""

    def __init__(self, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        self._columns = columns
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = _table(*self._columns)
        for row in self._rows:
            table.add_row(*map(Text, row))
        # `Measurement.get` would limit the result to the width of the terminal.
        if table.__rich_measure__(console, options).minimum <= options.max_width:
            yield table
            return
        for first, *others in self._rows:
            yield Text(first, "bold")
            pairs = zip(self._columns[1:], others, strict=True)
            facts = (f"{name.lower()} {value}".replace("\n", ", ") for name, value in pairs if value)
            yield Padding(Text(" · ".join(facts)), (0, 0, 0, 2))


def plain(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> RenderableType:
    """Return a table of plain text, for terminals of any width."""
    return _Plain(columns, list(rows))


def reservations(
    records: list[wire.Reservation], *, owners: bool, ids: bool, width: int, now: datetime
) -> RenderableType:
    """Return a table of reservations, with the reason why each waits or ended.

    `ids`: include the ids. An ended reservation can be found only by its id.
    """
    if width < NARROW:
        return Group(*(_card(record, owners, ids, now) for record in records))
    columns = [*(["ID"] if ids else []), *(["OWNER"] if owners else [])]
    table = _table("NAME", *columns, "GPUS", "STATE", "TIME")
    for record in records:
        view = words.describe(record, now)
        shared = [f"shared by {record.owner}"] if record.shared and not owners else []
        details = "\n".join(line for line in (*shared, *view.times, view.reason) if line)
        table.add_row(
            words.label(record),
            *([record.id] if ids else []),
            *([record.owner] if owners else []),
            words.hardware(record),
            Text(view.headline, STYLES[view.tone]),
            Text(details),
        )
    return table


def _card(record: wire.Reservation, owners: bool, ids: bool, now: datetime) -> Text:
    view = words.describe(record, now)
    card = Text()
    card.append(words.label(record), "bold")
    if ids:
        card.append(f" {record.id}")
    if owners:
        card.append(f" ({record.owner})")
    elif record.shared:
        card.append(f" (shared by {record.owner})")
    card.append(f"\n  {words.hardware(record)}, ")
    card.append(view.headline, STYLES[view.tone])
    for line in (*view.times, view.reason):
        if line:
            card.append(f"\n  {line}")
    return card


def reservation(record: wire.Reservation, *, now: datetime) -> RenderableType:
    """Return all facts of one reservation."""
    view = words.describe(record, now)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")

    def row(name: str, value: str | Text | None) -> None:
        if value:
            grid.add_row(name, Text(value) if isinstance(value, str) else value)

    def at(time: str | None) -> str | None:
        parsed = words.parse_time(time)
        return None if parsed is None else words.when(parsed, now)

    row("state", Text(view.headline, STYLES[view.tone]))
    row("reason", view.reason)
    row("planned start", at(record.planned_start))
    row("guaranteed by", at(record.guaranteed_by))
    row("likely start", at(record.likely_start))
    row("ready since", at(record.starts_at) if record.state != "ended" else None)
    row("ends", at(record.ends_at) if record.state != "ended" else None)
    row("ended", at(record.ended_at))
    row("hold time", words.hours(record.hours))
    row("JupyterLab", view.url)
    row("SSH", view.ssh_command)
    for rank, command in enumerate(view.node_ssh_commands, 1):
        row(f"SSH rank {rank}", command)
    row("variables", words.RANK_VARIABLES if view.node_ssh_commands else None)
    row("VS Code", view.vscode_url)
    row("server", record.server)
    held = (f"{part.node} (GPUs {','.join(map(str, part.slots))})" for part in record.allocation)
    row("nodes", ", ".join(held))
    row("image", record.image)
    row("owner", record.owner)
    row("shared with", ", ".join(guest.login for guest in record.guests))
    row("id", record.id)
    return Group(Text(view.title, "bold"), grid)


def availability(pool: wire.PoolAvailability, *, now: datetime) -> RenderableType:
    """Return a table of one pool: free GPUs, and when each size could start."""
    title = Text(words.marked(pool.label or pool.gpu_type, pool.simulated), "bold")
    title.append(
        f"  {pool.gpus_free} of {pool.gpus_total} GPUs free · {pool.nodes_up} nodes up"
        f" · {pool.queued} waiting",
        "dim",
    )
    table = _table("SIZE", "FREE NOW", "OF", "EARLIEST START")
    for size in pool.sizes:
        most = pool.gpus_total // (size.gpus * size.nodes)
        table.add_row(
            words.size(size.gpus, size.nodes),
            Text(str(size.free_now), "green" if size.free_now else "dim"),
            str(most),
            Text("\n".join(_start(size, now))),
        )
    return Group(title, table)


def _start(size: wire.SizeAvailability, now: datetime) -> list[str]:
    """Return when a request would start, and why not now."""
    earliest = words.parse_time(size.earliest_start)
    why = words.told(size.reason_data, now)
    if size.refused is not None:
        first = f"refused: {(why or size.refused.message).rstrip('.')}"
    elif earliest is None:
        first = why or "unknown: no node is up"
    else:
        first = words.when(max(earliest, now), now)
    if size.longest_now is not None:
        first += f", or now for up to {words.hours(size.longest_now)}"
    return [first, why] if why and earliest is not None else [first]
