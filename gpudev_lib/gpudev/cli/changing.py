"""``cancel`` and ``extend``."""

from __future__ import annotations

import sys

import click

from gpudev import words
from gpudev.cli.names import HOURS, reservation_name, reservation_names
from gpudev.cli.output import complain, connect, echo, emit, json_option, now
from gpudev.cli.sync import after_change
from gpudev.errors import GpuDevError
from gpudev.reservation import Reservation


@click.command()
@reservation_names
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def cancel_command(names: tuple[str, ...], yes: bool, as_json: bool) -> int:
    """Release reservations, or give up their places in the queue.

    On a terminal it asks before a running server is ended. Homes stay. With --json nothing is asked, and
    `reservations` are those that have been found, as they are then.
    """
    client = connect()
    code = 0
    found: list[Reservation] = []
    for name in names:
        try:
            reservation = client.get(name)
            if as_json:
                found.append(reservation.release())
            else:
                _cancel(reservation, yes)
        except GpuDevError as error:
            complain(error, as_json=False)
            code = code or error.exit_code
    if as_json:
        emit({"reservations": [reservation.record for reservation in found]})
    after_change(client.api)
    return code


def _cancel(reservation: Reservation, yes: bool) -> None:
    called = words.label(reservation.record)
    runs = reservation.state in ("starting", "ready")
    if runs and not yes and sys.stdin.isatty():
        text = f"{called} is {reservation.state}: its programs end (files in the home stay). Release it?"
        if not click.confirm(text, err=True):
            echo(f"{called} stays.")
            return
    over = reservation.state == "ended"
    reservation.release()
    echo(f"{called} had ended already." if over else f"{called} is {'released' if runs else 'cancelled'}.")


@click.command()
@reservation_name
@click.option("-t", "--hours", type=HOURS, required=True, help="How much longer: 2, 0.5, 90m, 1:30.")
@json_option
def extend_command(name: str, hours: float, as_json: bool) -> None:
    """Hold a reservation longer.

    Granted if that breaks no promise made to somebody who waits; a refusal says the longest that would be.
    """
    client = connect()
    reservation = client.get(name).extend(hours)
    if as_json:
        emit(reservation.record)
    else:
        ends = reservation.ends_at
        until = f" until {words.when(ends, now())}" if ends else ""
        total = words.hours(reservation.hours)
        echo(f"{words.label(reservation.record)} is yours{until}, {total} in all.")
    after_change(client.api)
