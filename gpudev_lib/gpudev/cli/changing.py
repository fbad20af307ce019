"""``cancel``, ``extend``, ``share`` and ``unshare``."""

from __future__ import annotations

import sys

import click

from gpudev import clock, words
from gpudev.cli.names import hours, reservation_name, reservation_names
from gpudev.cli.output import complain, confirm, connect, described, echo, emit, json_option
from gpudev.cli.sync import after_change
from gpudev.errors import GpuDevError
from gpudev.reservation import Reservation

REASON = click.option(
    "--reason", help="For operators: why you change another user's reservation. The owner reads it."
)


@click.command()
@reservation_names
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@REASON
@json_option
def cancel_command(names: tuple[str, ...], yes: bool, reason: str | None, as_json: bool) -> int:
    """Release running reservations, or cancel queued ones.

    On a terminal, the command asks before it releases a running server. Files in your home stay. With --json
    it does not ask, and prints the changed reservations in the list `reservations`, and errors in `errors`.
    """
    client = connect()
    found: list[Reservation] = []
    errors: list[GpuDevError] = []
    for name in names:
        try:
            reservation = client.get(name)
            if as_json:
                found.append(reservation.release(reason=reason))
            else:
                _cancel(reservation, yes, reason)
        except GpuDevError as error:
            complain(error, as_json=False)
            errors.append(error)
    if as_json:
        records = [reservation.record for reservation in found]
        emit({"reservations": records, "errors": [described(error) for error in errors]})
    after_change(client.api)
    return errors[0].exit_code if errors else 0


def _cancel(reservation: Reservation, yes: bool, reason: str | None) -> None:
    called = words.label(reservation.record)
    runs = reservation.state in ("starting", "ready")
    if runs and not yes and sys.stdin.isatty():
        whose = "" if reservation.record.mine else f" (owner: {reservation.owner})"
        what = "Its programs will end; files in the home stay. Release it?"
        text = f"{called}{whose} is {reservation.state}. {what}"
        if not confirm(text):
            echo(f"{called} was not released.")
            return
    before = reservation.state
    reservation.release(reason=reason)
    done = {"ended": "has already ended", "stopping": "is already stopping", "queued": "is cancelled"}
    echo(f"{called} {done.get(before, 'is released')}.")


@click.command()
@reservation_name
@click.option("-t", "--hours", type=hours, required=True, help="Time to add: 2, 0.5, 90m, 1:30.")
@REASON
@json_option
def extend_command(name: str, hours: float, reason: str | None, as_json: bool) -> None:
    """Extend a reservation.

    The extension is granted only if everyone waiting still starts by their guaranteed time. If it is refused,
    the message gives the longest extension available.
    """
    client = connect()
    reservation = client.get(name).extend(hours, reason=reason)
    if as_json:
        emit(reservation.record)
    else:
        ends = reservation.ends_at
        until = f" until {words.when(ends, clock.now())}" if ends else ""
        total = words.hours(reservation.hours)
        echo(f"{words.label(reservation.record)} is yours{until}. Total hold time: {total}.")
    after_change(client.api)


@click.command()
@reservation_name
@click.argument("login")
@json_option
def share_command(name: str, login: str, as_json: bool) -> None:
    """Give another user access to a server until its reservation ends.

    They can use SSH on this server, and JupyterLab if the hub permits it. They work there as you, with all
    files in your home. With their own login, they cannot extend, release or share the reservation. Sharing
    again with the same user changes nothing.
    """
    reservation = connect().get(name).share(login)
    if as_json:
        emit(reservation.record)
    else:
        echo(f"{words.label(reservation.record)} is shared with {login} until it ends.")
        if not reservation.record.lab_shared:
            echo("They can use SSH only: this hub has no separate address for each user's JupyterLab.")
        echo(f"To end this: gpu-dev unshare {words.label(reservation.record)} {login}")


@click.command()
@reservation_name
@click.argument("login")
@json_option
def unshare_command(name: str, login: str, as_json: bool) -> None:
    """End another user's access to a server. Their connections end within seconds."""
    reservation = connect().get(name)
    had_access = login.lower() in (guest.lower() for guest in reservation.guests)
    reservation = reservation.unshare(login)
    if as_json:
        emit(reservation.record)
    elif not had_access:
        echo(f"{words.label(reservation.record)} was not shared with {login}, so nothing changed.")
    else:
        echo(f"{words.label(reservation.record)} is no longer shared with {login}.")
