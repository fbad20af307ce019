"""``reserve`` and ``wait``."""

from __future__ import annotations

import sys

import click

from gpudev.cli.app import INTERRUPTED
from gpudev.cli.names import hours, reservation_name, seconds
from gpudev.cli.output import announce, confirm, connect, emit, json_option, say
from gpudev.cli.sync import after_change
from gpudev.client import Client
from gpudev.progress import for_stream
from gpudev.reservation import Reservation
from gpudev.words import label

TIMEOUT = click.option(
    "--timeout",
    type=seconds,
    metavar="SECONDS",
    help="Stop waiting after this time. Your place in the queue is kept.",
)


@click.command()
@click.option("-g", "--gpus", type=int, help="GPUs per node: 1, 2, 4 or 8. Default: 1; with --nodes, all.")
@click.option("--nodes", type=int, help="Number of whole nodes, connected to each other.")
@click.option(
    "-t", "--hours", type=hours, help="Hold time once the server is ready (4, 90m, 1:30, 2d). Default: 4."
)
@click.option("--gpu-type", help="GPU type. Default: your configured type, else the first of the hub.")
@click.option("-n", "--name", help="Name for `ssh gpu-NAME`. Default: two random words.")
@click.option("--image", help="Image of the server. Default: the default image of the pool.")
@click.option(
    "--wait/--no-wait", default=True, help="Return when the reservation is ready (default), or at once."
)
@TIMEOUT
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

    Ctrl-C while waiting asks whether to keep your place in the queue. Without a terminal, the place is kept.
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
@TIMEOUT
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
            keep = confirm(f"\nKeep the reservation {called}?", default=True)
        except click.Abort:
            say("")
    if keep:
        say(f"{called} is kept. It is {reservation.state}.")
        say(f"To wait again: gpu-dev wait {called} · to cancel it: gpu-dev cancel {called}")
    else:
        reservation.release()
        say(f"{called} is cancelled.")


def _result(reservation: Reservation, as_json: bool) -> None:
    if as_json:
        emit(reservation.record)
    else:
        announce(reservation.record)
