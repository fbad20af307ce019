"""``reserve`` and ``wait``."""

from __future__ import annotations

import sys

import click

from gpudev.cli.app import INTERRUPTED
from gpudev.cli.names import HOURS, reservation_name
from gpudev.cli.output import announce, connect, emit, json_option, say
from gpudev.cli.sync import after_change
from gpudev.client import Client
from gpudev.progress import for_stream
from gpudev.reservation import Reservation
from gpudev.words import label


@click.command()
@click.option("-g", "--gpus", type=int, help="GPUs per node: 1, 2, 4, 8. Left out: 1, or, with --nodes, all.")
@click.option("--nodes", type=int, help="So many whole nodes; several are joined.")
@click.option(
    "-t", "--hours", type=HOURS, help="How long (4, 90m, 1:30, 2d) from when it is ready. Left out: 4."
)
@click.option("--gpu-type", help="Left out: the default one.")
@click.option("-n", "--name", help="For `ssh gpu-NAME`. Left out: two words.")
@click.option("--image", help="Left out: the default one.")
@click.option("--wait/--no-wait", default=True, help="Return when it is ready (default), or at once.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Wait no longer than this; the place is kept.")
@json_option
def reserve_command(
    gpus: int | None,
    nodes: int | None,
    hours: float | None,
    gpu_type: str | None,
    name: str | None,
    image: str | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Reserve GPUs and wait until they are ready.

    Ctrl-C while waiting asks whether to keep the place; where there is no terminal to ask on, it is kept.
    """
    client = connect()
    reservation = client.reserve(gpus, nodes, hours, gpu_type, name, image, wait=False, timeout=timeout)
    after_change(client.api)
    if wait:
        return _wait(client, reservation, timeout, as_json)
    _result(reservation, as_json)
    return 0


@click.command()
@reservation_name
@click.option("--timeout", type=float, metavar="SECONDS", help="Wait no longer than this; the place is kept.")
@json_option
def wait_command(name: str, timeout: float | None, as_json: bool) -> int:
    """Wait until a reservation is ready, as `reserve` does."""
    client = connect()
    return _wait(client, client.get(name), timeout, as_json)


def _wait(client: Client, reservation: Reservation, timeout: float | None, as_json: bool) -> int:
    try:
        reservation.wait(timeout, progress=for_stream(sys.stderr))
    except KeyboardInterrupt:
        _keep_or_cancel(reservation)
        after_change(client.api)
        return INTERRUPTED
    after_change(client.api)
    _result(reservation, as_json)
    return 0


def _keep_or_cancel(reservation: Reservation) -> None:
    called = label(reservation.record)
    keep = True
    if sys.stdin.isatty() and sys.stderr.isatty():
        try:
            keep = click.confirm(f"\nKeep the place of {called} in the queue?", default=True, err=True)
        except click.Abort:
            say("")
    if keep:
        say(f"{called} keeps its place.")
        say(f"Wait again: gpu-dev wait {called} · give it up: gpu-dev cancel {called}")
    else:
        reservation.release()
        say(f"{called} is cancelled.")


def _result(reservation: Reservation, as_json: bool) -> None:
    if as_json:
        emit(reservation.record)
    else:
        announce(reservation.record)
