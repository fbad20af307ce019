"""``cancel`` and ``extend``."""

from __future__ import annotations

import sys

import click

from gpudev import words
from gpudev.cli.names import reservation_name, reservation_names
from gpudev.cli.output import complain, now
from gpudev.cli.sync import after_change
from gpudev.client import Client
from gpudev.errors import GpuDevError
from gpudev.reservation import Reservation


@click.command()
@reservation_names
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def cancel_command(names: tuple[str, ...], yes: bool) -> int:
    """Release reservations, or give up their places in the queue.

    On a terminal it asks before a running server is ended. Homes stay.
    """
    client = Client()
    code = 0
    for name in names:
        try:
            _cancel(client.get(name), yes)
        except GpuDevError as error:
            complain(error, as_json=False)
            code = code or error.exit_code
    after_change(client.api)
    return code


def _cancel(reservation: Reservation, yes: bool) -> None:
    called = words.label(reservation.record)
    runs = reservation.state in ("starting", "ready")
    if runs and not yes and sys.stdin.isatty():
        text = f"{called} is {reservation.state}: its programs end (files in the home stay). Release it?"
        if not click.confirm(text, err=True):
            click.echo(f"{called} stays.")
            return
    over = reservation.state == "ended"
    reservation.release()
    click.echo(
        f"{called} had ended already." if over else f"{called} is {'released' if runs else 'cancelled'}."
    )


@click.command()
@reservation_name
@click.option("-t", "--hours", type=float, required=True, help="So many hours longer.")
def extend_command(name: str, hours: float) -> None:
    """Hold a reservation longer.

    Granted if that breaks no promise made to somebody who waits; a refusal says the longest that would be.
    """
    client = Client()
    reservation = client.get(name).extend(hours)
    ends = reservation.ends_at
    until = f" until {words.when(ends, now())}" if ends else ""
    click.echo(f"{words.label(reservation.record)} is yours{until}, {words.hours(reservation.hours)} in all.")
    after_change(client.api)
