"""Functions and a client to request and find reservations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Self

import httpx

from gpudev import config, wire
from gpudev.api import Api, new_request_id, number_of_hours
from gpudev.arguments import check_timeout, text, whole_number
from gpudev.progress import Progress
from gpudev.renewal import StoredToken
from gpudev.reservation import Reservation, WaitTimeout
from gpudev.service_client import PATIENCE


class Client:
    """A client of one hub, as one user.

    `url` is the public address of the hub and `token` a token for it. Without them, they come from the
    environment (``GPUDEV_URL``, ``GPUDEV_TOKEN``; servers of the hub have their own variables), then from
    ``~/.gpu-dev-config``. `patience` is the number of seconds for which a request without an answer is
    retried. `tell` is called with a line of text while an answer takes long: after 2 seconds, then every 5
    seconds. `transport` (an ``httpx.BaseTransport``) replaces the network.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        patience: float = PATIENCE,
        tell: Callable[[str], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        settings = config.resolve(url, token)
        self._defaults = settings
        self.api = Api(
            settings.url,
            settings.token,
            transport=transport,
            patience=patience,
            tell=tell,
            keeper=StoredToken(settings, transport) if settings.stored else None,
        )

    @property
    def url(self) -> str:
        """Public address of the hub."""
        return self._defaults.url

    def reserve(
        self,
        gpus: int | None = None,
        nodes: int | None = None,
        hours: float | str | None = None,
        gpu_type: str | None = None,
        name: str | None = None,
        image: str | None = None,
        wait: bool = True,
        timeout: float | None = None,
        progress: Progress | bool | None = None,
    ) -> Reservation:
        """See `gpudev.reserve`."""
        check_timeout(timeout)
        request = wire.ReserveRequest(
            gpus=whole_number("gpus", gpus),
            nodes=whole_number("nodes", nodes),
            hours=self._defaults.hours if hours is None else number_of_hours(hours),
            gpu_type=text("gpu_type", gpu_type) or self._defaults.gpu_type,
            name=text("name", name),
            image=text("image", image),
            request_id=new_request_id(),
        )
        reservation = Reservation(self.api, self.api.reserve(request))
        if wait:
            try:
                reservation.wait(timeout, progress=progress)
            except BaseException as error:
                # The caller never gets the object, so the GPUs would be held unused.
                try:
                    reservation.release()
                except Exception as failure:
                    error.add_note(f"Reservation {reservation.id} could not be released: {failure}")
                else:
                    if isinstance(error, WaitTimeout):
                        error.hint = (
                            "The reservation was cancelled. To keep it in the queue:"
                            " reserve(..., wait=False), then wait()."
                        )
                raise
        return reservation

    def get(self, ref: str) -> Reservation:
        """Return a reservation by id, or by the name of one of your live reservations. Raises `NotFound`."""
        return Reservation(self.api, self.api.reservation(str(ref)))

    def reservations(self, *, all: bool = False, ended: bool = False) -> list[Reservation]:
        """Return live reservations (with `ended`, ended ones): yours, or with `all` everyone's."""
        found = self.api.reservations(everyone=all, ended=ended)
        return [Reservation(self.api, record) for record in found]

    def availability(self, hours: float | str | None = None) -> wire.Availability:
        """Return what is free now, and when each size could start for `hours`."""
        return self.api.availability(None if hours is None else number_of_hours(hours))

    def usage(
        self,
        by: wire.UsageBy = "day",
        since: date | str | None = None,
        until: date | str | None = None,
        *,
        all: bool = False,
    ) -> wire.Usage:
        """See `gpudev.usage`."""
        first, last = (None if day is None else str(day) for day in (since, until))
        return self.api.usage(by=by, since=first, until=last, everyone=all)

    def close(self) -> None:
        """Close the connections of the client. Reservations stay."""
        self.api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reserve(
    gpus: int | None = None,
    nodes: int | None = None,
    hours: float | str | None = None,
    gpu_type: str | None = None,
    name: str | None = None,
    image: str | None = None,
    wait: bool = True,
    timeout: float | None = None,
    progress: Progress | bool | None = None,
) -> Reservation:
    """Reserve GPUs and return when they are ready.

    Args:
        gpus: GPUs per node. Default: 1; with `nodes`, all GPUs of a node.
        nodes: number of whole nodes, connected to each other.
        hours: hold time, counted from when the reservation is ready: a number, or a text such as ``"90m"`` or
            ``"1:30"``. Default: the value in your configuration, else 4.
        gpu_type: GPU type. Default: the type in your configuration, or of the hub.
        name: name for ``ssh gpu-NAME``, unique among your live reservations. Default: two random words.
        image: image of the server. Default: the default image of the pool.
        wait: with False, return at once; the reservation may still be queued.
        timeout: most seconds to wait; then raise `WaitTimeout`.
        progress: False shows nothing. None chooses by the environment: a live line on a terminal, a panel in
            a notebook, plain lines elsewhere. You can also pass your own `Progress`.

    A retry never makes a second reservation. If this raises an error, you hold no GPUs and have no place in
    the queue. To keep your place after a timeout, use ``wait=False`` and then `Reservation.wait`.
    """
    return Client().reserve(gpus, nodes, hours, gpu_type, name, image, wait, timeout, progress)


def get(ref: str) -> Reservation:
    """Return a reservation by id, or by the name of one of your live reservations. Raises `NotFound`."""
    return Client().get(ref)


def reservations(*, all: bool = False, ended: bool = False) -> list[Reservation]:
    """Return live reservations (with `ended`, ended ones): yours, or with `all` everyone's."""
    return Client().reservations(all=all, ended=ended)


def availability(hours: float | str | None = None) -> wire.Availability:
    """Return what is free now, and when each size could start for `hours`."""
    return Client().availability(hours)


def usage(
    by: wire.UsageBy = "day",
    since: date | str | None = None,
    until: date | str | None = None,
    *,
    all: bool = False,
) -> wire.Usage:
    """Return GPU-hours reserved and held, waits and early releases.

    Args:
        by: ``"day"``, ``"person"``, ``"team"``, ``"pool"`` or ``"size"``.
        since: first day (UTC), such as ``"2026-11-01"``. Default: 29 days before `until`.
        until: last day, included. Default: today.
        all: the usage of all users. For operators.
    """
    return Client().usage(by, since, until, all=all)
