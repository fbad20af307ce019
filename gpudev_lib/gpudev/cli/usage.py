"""``usage``: GPU-hours, waits and early releases."""

from __future__ import annotations

from datetime import datetime
from typing import get_args

import click
from rich.console import RenderableType

from gpudev import wire, words
from gpudev.cli import tables
from gpudev.cli.output import connect, console, echo, emit, say


def day(value: str) -> str:
    """Return a day such as 2026-11-01. Raises ``click.BadParameter`` for anything else."""
    try:
        return f"{datetime.strptime(value, '%Y-%m-%d'):%Y-%m-%d}"  # noqa: DTZ007 (a day has no zone)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a day. Write it like 2026-11-01.") from None


@click.command()
@click.option(
    "--by",
    type=click.Choice(get_args(wire.UsageBy)),
    default="day",
    show_default=True,
    help="What to group by.",
)
@click.option("--since", type=day, metavar="DAY", help="First day (UTC). Default: 29 days before --until.")
@click.option("--until", type=day, metavar="DAY", help="Last day (UTC), included. Default: today.")
@click.option("-a", "--all", "everyone", is_flag=True, help="Show the usage of all users (for operators).")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="Output format.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def usage_command(
    by: wire.UsageBy, since: str | None, until: str | None, everyone: bool, form: str, as_json: bool
) -> None:
    """Show GPU-hours reserved and held, waits and early releases.

    Days are UTC days, like 2026-11-01. Running reservations count until now. `--all` needs an operator token
    in GPUDEV_TOKEN.
    """
    if as_json and form == "csv":
        raise click.UsageError("Use either --json or --format csv, not both.")
    api = connect().api
    found = api.usage(by=by, since=since, until=until, everyone=everyone)
    if not found.complete:
        say(
            "The service is still reading its history: these figures are too low. Try again in a few minutes."
        )
    if as_json or form == "json":
        emit(found)
        return
    if not found.rows:
        say(f"There is no usage from {found.since} to {found.until}.")
    if form == "csv":
        # With the days of the first answer, so that both are of the same range around midnight.
        echo(api.usage_csv(found).rstrip("\n"))
    elif found.rows:
        console().print(table(found))


def table(found: wire.Usage) -> RenderableType:
    """Return a table of the groups, with the total of all of them."""
    columns = (found.by.upper(), "HELD", "RESERVED", "GIVEN BACK", "REQUESTS", "STARTS", "WAIT", "LONGEST")
    rows = [*found.rows, found.total] if len(found.rows) > 1 else found.rows
    return tables.plain(columns, map(_row, rows))


def _row(row: wire.UsageRow) -> tuple[str, ...]:
    waited = row.waits > 0
    return (
        row.label,
        f"{row.gpu_hours_held:,.1f} h",
        f"{row.gpu_hours_reserved:,.1f} h",
        f"{row.gpu_hours_given_back:,.1f} h",
        str(row.requests),
        str(row.starts),
        words.hours(row.wait_hours / row.waits) if waited else "-",
        words.hours(row.longest_wait_hours) if waited else "-",
    )
