"""A reservation, as an object of a script or a notebook."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import Any, Self

from gpudev import clock, copies, display, remote, wire, words
from gpudev.api import LONGEST_POLL, Api, number_of_hours, pauses
from gpudev.errors import InvalidRequest, NetworkError, ReservationEnded, WaitTimeout
from gpudev.progress import Progress, choose


def check_timeout(seconds: float | None) -> None:
    """Raises `InvalidRequest` for what is no length of time."""
    if seconds is not None and not seconds >= 0:
        raise InvalidRequest(
            f"{seconds:g} seconds is not a length of time to wait.", hint="Use 0 or more, or leave it out."
        )


class Reservation:
    """GPUs asked for, waited for or held.

    As a context manager it releases them at the end of the block. What it says of itself is as of the last
    answer of the service: `refresh` asks again. Times are aware datetimes in UTC.
    """

    def __init__(self, api: Api, record: wire.Reservation) -> None:
        self._api = api
        self._record = record

    # What it is

    @property
    def id(self) -> str:
        """Unique for ever; given by the service."""
        return self._record.id

    @property
    def name(self) -> str | None:
        """For ``ssh gpu-NAME``: the one you gave, else two words."""
        return self._record.name

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self._record.owner

    @property
    def gpus(self) -> int:
        """GPUs per node."""
        return self._record.gpus

    @property
    def nodes(self) -> int:
        """How many nodes."""
        return self._record.nodes

    @property
    def total_gpus(self) -> int:
        """GPUs over all nodes."""
        return self._record.total_gpus

    @property
    def gpu_type(self) -> str:
        """What kind of GPU."""
        return self._record.gpu_type

    @property
    def hours(self) -> float:
        """Hours granted, extensions included; they count from `starts_at`."""
        return self._record.hours

    @property
    def state(self) -> wire.State:
        """``queued``, ``starting``, ``ready``, ``stopping`` or ``ended``."""
        return self._record.state

    @property
    def server(self) -> wire.Server | None:
        """Its server as seen: ``starting``, ``running``, ``stopped``, ``unknown``; None: there is none."""
        return self._record.server

    @property
    def outcome(self) -> wire.Outcome | None:
        """How it ended; None while it has not."""
        return self._record.outcome

    @property
    def position(self) -> int | None:
        """Place in the queue, 1 is next; None when not queued."""
        return self._record.position

    @property
    def planned_start(self) -> datetime | None:
        """When it is expected to start, as things stand."""
        return words.parse_time(self._record.planned_start)

    @property
    def guaranteed_by(self) -> datetime | None:
        """The promised latest start; it changes only with a recorded cause (see `history`)."""
        return words.parse_time(self._record.guaranteed_by)

    @property
    def likely_start(self) -> datetime | None:
        """When it will probably start, given how early others release; None where that is not known."""
        return words.parse_time(self._record.likely_start)

    @property
    def reason(self) -> str | None:
        """In words: why it waits, failed or changed."""
        return self._record.reason

    @property
    def starts_at(self) -> datetime | None:
        """When it became ready."""
        return words.parse_time(self._record.starts_at)

    @property
    def ends_at(self) -> datetime | None:
        """When it ends, unless it is extended or released."""
        return words.parse_time(self._record.ends_at)

    @property
    def url(self) -> str | None:
        """JupyterLab, once there is a server."""
        return self._record.url

    @property
    def ssh_command(self) -> str | None:
        """What to type to get a shell."""
        return self._record.ssh_command

    @property
    def vscode_url(self) -> str | None:
        """Opens the server in VS Code."""
        return self._record.vscode_url

    @property
    def allocation(self) -> list[wire.NodeSlots]:
        """Which GPUs of which nodes."""
        return self._record.allocation

    @property
    def record(self) -> wire.Reservation:
        """All of it, as the service sent it."""
        return self._record

    # What can be done with it

    def refresh(self) -> Self:
        """Ask the service how it stands."""
        return self._learn(self._api.reservation(self.id))

    def wait(self, timeout: float | None = None, *, progress: Progress | bool | None = None) -> Self:
        """Return when it is ready.

        Restarts of the service or the hub do not end the wait. `progress` is as in `gpudev.reserve`. Raises
        `WaitTimeout` after `timeout` seconds (it keeps its place), `ReservationEnded` if it ends first and
        `InvalidRequest` for a timeout that is none.
        """
        check_timeout(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        shown = choose(progress, self)
        troubles = pauses()
        note: str | None = None
        try:
            while True:
                shown.update(self._record, note)
                if self.state == "ready":
                    return self
                if self.state == "ended":
                    raise ReservationEnded(
                        f"Reservation {words.label(self._record)} has ended:"
                        f" {self.reason or words.outcome(self._record)}.",
                        self,
                        hint=f"What happened: gpu-dev logs {self.id}",
                    )
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise WaitTimeout(
                        f"Reservation {words.label(self._record)} is still {self.state} after {timeout:g} s.",
                        self,
                        hint="Give it up with: gpu-dev cancel " + words.label(self._record),
                    )
                try:
                    self.poll(LONGEST_POLL if left is None else min(left, LONGEST_POLL))
                    note, troubles = None, pauses()
                except NetworkError as error:
                    note = f"{error.message.rstrip('.')}. Your place is kept; still trying."
                    shown.update(self._record, note)
                    pause = max(next(troubles), error.retry_after)
                    time.sleep(pause if left is None else min(left, pause))
        finally:
            shown.close()

    def poll(self, wait: float) -> Self:
        """Return when something about it has changed, or after `wait` seconds."""
        return self._learn(self._api.poll(self.id, self._record.version, wait))

    def run(
        self,
        cmd: str | Sequence[str],
        *,
        check: bool = True,
        capture: bool = False,
        input: str | None = None,
        timeout: float | None = None,
    ) -> CompletedProcess[str]:
        """Run a command on the server over SSH and wait for its end.

        A string goes to the shell there, a list is run word for word. What it writes appears here as it
        comes; with `capture` it is returned in ``stdout`` and ``stderr`` instead. Raises
        `RemoteCommandFailed` for another exit status than 0, unless `check` is false, and `CommandTimeout`
        after `timeout` seconds. Then, and when it is interrupted here, all that it started is ended there.
        """
        check_timeout(timeout)
        return remote.run(self._host(), cmd, check=check, capture=capture, input=input, timeout=timeout)

    def upload(self, local: str | Path, remote_path: str = ".") -> None:
        """Copy a file or folder to the server, below the home unless `remote_path` is absolute.

        The copy is called `remote_path`; where that ends in a slash, or is ``.``, it goes into that folder
        under its own name. The same again gives the same tree: files are replaced, what else is there stays.
        """
        copies.upload(self._host(), local, remote_path)

    def download(self, remote_path: str, local: str | Path = ".") -> None:
        """Copy a file or folder from the server, by the rules of `upload`."""
        copies.download(self._host(), remote_path, local)

    def logs(self) -> wire.Logs:
        """What happened at the start, and the last lines of Jupyter and sshd."""
        return self._api.logs(self.id)

    def history(self) -> list[wire.HistoryItem]:
        """Every change since it was asked for, each with its cause."""
        return self._api.history(self.id)

    def extend(self, hours: float | str) -> Self:
        """Hold it `hours` longer (a number, or a text such as ``"90m"``).

        Raises `ExtensionRefused`, with the longest that would be granted, where that would break a promise.
        """
        return self._learn(self._api.extend(self.id, number_of_hours(hours)))

    def release(self) -> Self:
        """Give it back, or give up the place in the queue. Nothing happens where it has ended already."""
        if self.state == "ended":
            return self
        return self._learn(self._api.release(self.id))

    def _host(self) -> remote.Host:
        return remote.find(self._api, self.id)

    def _learn(self, record: wire.Reservation) -> Self:
        # Answers may overtake each other where a panel's thread asks too.
        if record.version >= self._record.version:
            self._record = record
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"Reservation {self.id} could not be released: {failure}")

    # How it looks

    def __repr__(self) -> str:
        view = words.describe(self._record, clock.now())
        # Python prints it, on terminals of every encoding.
        return words.in_ascii(f"<Reservation {self.id}: {view.title}, {view.line()}>")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        view = words.describe(self._record, clock.now())
        return {"text/plain": repr(self), "text/html": display.html(view)}

    def _ipython_display_(self) -> None:
        display.show(self)
