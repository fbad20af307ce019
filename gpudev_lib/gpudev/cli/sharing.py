"""``share`` and ``unshare``."""

from __future__ import annotations

import click

from gpudev import words
from gpudev.cli.names import reservation_name
from gpudev.cli.output import connect, echo, emit, json_option


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
    reservation = connect().get(name).unshare(login)
    if as_json:
        emit(reservation.record)
    else:
        echo(f"{words.label(reservation.record)} is no longer shared with {login}.")
