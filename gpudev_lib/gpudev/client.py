"""Asking for reservations and finding them again."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from gpudev import config, wire
from gpudev.api import PATIENCE, Api, new_request_id, number_of_hours
from gpudev.errors import WaitTimeout
from gpudev.progress import Progress
from gpudev.reservation import Reservation, check_timeout


class Client:
    """One hub, as one user.

    `url` is the hub's public address, `token` one of its tokens; what is left out comes from the environment
    (``GPUDEV_URL``, ``GPUDEV_TOKEN``; on a server of the hub's everything is there) and then from
    ``~/.gpu-dev-config``. `patience`: for how many seconds a request that gets no answer is repeated.
    `tell` is called with a line of text while an answer takes long: after 2 s, then every 5 s.
    `transport` replaces the network (an ``httpx.BaseTransport``).
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
        self.api = Api(settings.url, settings.token, transport=transport, patience=patience, tell=tell)

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
            gpus=gpus,
            nodes=nodes,
            hours=self._defaults.hours if hours is None else number_of_hours(hours),
            gpu_type=gpu_type or self._defaults.gpu_type,
            name=name,
            image=image,
            request_id=new_request_id(),
        )
        reservation = Reservation(self.api, self.api.reserve(request))
        if wait:
            try:
                reservation.wait(timeout, progress=progress)
            except BaseException as error:
                # The caller never gets hold of it: left alone, it would take GPUs that nobody uses.
                try:
                    reservation.release()
                except Exception as failure:
                    error.add_note(f"Reservation {reservation.id} could not be released: {failure}")
                else:
                    if isinstance(error, WaitTimeout):
                        error.hint = (
                            "Its place was given up. To keep it: reserve(..., wait=False), then wait()."
                        )
                raise
        return reservation

    def get(self, ref: str) -> Reservation:
        """A reservation by id, or by the name of a live one of yours. Raises `NotFound`."""
        return Reservation(self.api, self.api.reservation(str(ref)))

    def reservations(self, *, all: bool = False, ended: bool = False) -> list[Reservation]:
        """Live reservations, or past ones; yours, or everyone's."""
        found = self.api.reservations(everyone=all, ended=ended)
        return [Reservation(self.api, record) for record in found]

    def availability(self, hours: float | str | None = None) -> wire.Availability:
        """What is free now and when each size could start, for a hold of `hours`."""
        return self.api.availability(None if hours is None else number_of_hours(hours))

    def close(self) -> None:
        """Give up what the client holds. Reservations stay."""
        self.api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        gpus: GPUs per node; left out: 1, or, with `nodes`, all that a node has.
        nodes: so many whole nodes; several are joined.
        hours: how long, from the moment it is ready: a number, or a text such as ``"90m"`` or ``"1:30"``.
        gpu_type: left out: the default one.
        name: for ``ssh gpu-NAME``, unique among your live reservations; left out: two words.
        image: left out: the default one.
        wait: false: return at once, with the place in the queue.
        timeout: seconds to wait at most, then `WaitTimeout`.
        progress: False shows nothing, None what suits the place (a live line on a terminal, a panel in a
            notebook, plain lines elsewhere), or something of your own.

    A lost answer never makes two reservations. If this raises, you hold nothing and wait for nothing; to keep
    the place over a time-out, use ``wait=False`` and then `Reservation.wait`.
    """
    return Client().reserve(gpus, nodes, hours, gpu_type, name, image, wait, timeout, progress)


def get(ref: str) -> Reservation:
    """A reservation by id, or by the name of a live one of yours. Raises `NotFound`."""
    return Client().get(ref)


def reservations(*, all: bool = False, ended: bool = False) -> list[Reservation]:
    """Live reservations, or past ones; yours, or everyone's."""
    return Client().reservations(all=all, ended=ended)


def availability(hours: float | str | None = None) -> wire.Availability:
    """What is free now and when each size could start, for a hold of `hours`."""
    return Client().availability(hours)
