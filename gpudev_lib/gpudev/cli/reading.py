"""``list``, ``show``, ``logs`` and ``avail``."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from gpudev import clock, wire, words
from gpudev.cli import tables
from gpudev.cli.names import hours, reservation_name
from gpudev.cli.output import connect, console, echo, emit, json_option, say
from gpudev.errors import InvalidRequest, NetworkError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from gpudev.api import Api

INTERVAL = 2.0
"""Seconds between two requests of ``list --watch``."""


@click.command()
@click.option("-a", "--all", "everyone", is_flag=True, help="List the reservations of all users.")
@click.option("--ended", is_flag=True, help="List ended and stopping reservations, and why they ended.")
@click.option("-w", "--watch", is_flag=True, help="Update the list until Ctrl-C.")
@json_option
def list_command(everyone: bool, ended: bool, watch: bool, as_json: bool) -> None:
    """List your live reservations."""
    if watch and as_json:
        raise click.UsageError("Use either --watch or --json, not both.")
    api = connect().api
    if as_json:
        emit(wire.ReservationList(reservations=api.reservations(everyone=everyone, ended=ended)))
        return
    out = console()
    if not watch:
        out.print(_listing(api, out, everyone, ended))
        return
    with suppress(KeyboardInterrupt):
        _watch(api, out, everyone, ended)


def _listing(api: Api, out: Console, everyone: bool, ended: bool) -> RenderableType:
    records = api.reservations(everyone=everyone, ended=ended)
    if not records:
        what = "ended" if ended else "live"
        return f"There are no {what} reservations." if everyone else f"You have no {what} reservations."
    return tables.reservations(records, owners=everyone, ids=ended, width=out.width, now=clock.now())


def _watch(api: Api, out: Console, everyone: bool, ended: bool) -> None:
    from rich.live import Live

    if not out.is_terminal:
        raise InvalidRequest(
            "--watch needs a terminal, but the output is not a terminal.",
            hint="Leave out --watch, or use --json.",
        )
    with Live(_listing(api, out, everyone, ended), console=out, auto_refresh=False) as live:
        while True:
            time.sleep(INTERVAL)
            try:
                live.update(_listing(api, out, everyone, ended), refresh=True)
            except NetworkError as error:
                say(error.message)


@click.command()
@reservation_name
@json_option
def show_command(name: str, as_json: bool) -> None:
    """Show one reservation, by name or id."""
    record = connect().api.reservation(name)
    if as_json:
        emit(record)
    else:
        console().print(tables.reservation(record, now=clock.now()))


@click.command()
@reservation_name
@json_option
def logs_command(name: str, as_json: bool) -> None:
    """Show start events and the last log lines of Jupyter and sshd."""
    api = connect().api
    logs = api.logs(api.reservation(name).id)
    if as_json:
        emit(logs)
        return
    for event in logs.events:
        echo(event)
    for source, text in logs.logs.items():
        click.secho(f"\n{source}", file=sys.stdout, bold=True)
        echo(text.rstrip("\n") or "(empty)")


@click.command()
@click.option("-t", "--hours", type=hours, help="Hold time to check (4, 90m, 1:30, 2d). Default: 4.")
@json_option
def avail_command(hours: float | None, as_json: bool) -> None:
    """Show free GPUs, and when each size could start.

    FREE NOW counts the reservations of a size that have room now for the whole hold time, before your limits.
    OF counts those that fit into the empty pool.
    """
    availability = connect().api.availability(hours)
    if as_json:
        emit(availability)
        return
    out = console()
    out.print(f"For a reservation of {words.hours(availability.hours)}:")
    for pool in availability.pools:
        out.print()
        out.print(tables.availability(pool, now=clock.now()))
