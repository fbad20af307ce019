"""A reservation as an object in a script or a notebook."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Self

from gpudev import clock, copies, display, panels, remote, wire, words
from gpudev.api import LONGEST_POLL, Api, number_of_hours
from gpudev.arguments import check_timeout
from gpudev.errors import GpuDevError, InvalidRequest, NetworkError
from gpudev.progress import Progress
from gpudev.service_client import pauses


class WaitTimeout(GpuDevError, TimeoutError, code="wait_timeout", exit_code=7):
    """The reservation was not ready before the timeout."""

    def __init__(self, message: str, reservation: Reservation, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reservation = reservation


class ReservationEnded(GpuDevError, code="reservation_ended", exit_code=8):
    """The reservation ended while you waited: it was cancelled, it failed, or its node was lost."""

    def __init__(self, message: str, reservation: Reservation, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reservation = reservation


class Reservation:
    """A reservation of GPUs: queued, held or ended.

    As a context manager, it is released at the end of the block. The properties have the values of the last
    answer of the service; `refresh` updates them. Times are aware datetimes in UTC.
    """

    def __init__(self, api: Api, record: wire.Reservation) -> None:
        self._api = api
        self._record = record

    # Properties

    @property
    def id(self) -> str:
        """Unique id, chosen by the service and never used again."""
        return self._record.id

    @property
    def name(self) -> str | None:
        """Name for ``ssh gpu-NAME``: the name you chose, else two random words."""
        return self._record.name

    @property
    def owner(self) -> str:
        """User who owns the reservation."""
        return self._record.owner

    @property
    def gpus(self) -> int:
        """GPUs per node."""
        return self._record.gpus

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self._record.nodes

    @property
    def total_gpus(self) -> int:
        """GPUs on all nodes together."""
        return self._record.total_gpus

    @property
    def gpu_type(self) -> str:
        """GPU type."""
        return self._record.gpu_type

    @property
    def simulated(self) -> bool:
        """True if its GPUs are simulated, without hardware."""
        return self._record.simulated

    @property
    def hours(self) -> float:
        """Hold time in hours, including extensions, counted from `starts_at`."""
        return self._record.hours

    @property
    def state(self) -> wire.State:
        """``queued``, ``starting``, ``ready``, ``stopping`` or ``ended``."""
        return self._record.state

    @property
    def server(self) -> wire.Server | None:
        """State of its server: ``starting``, ``running``, ``stopped`` or ``unknown``; None without one."""
        return self._record.server

    @property
    def outcome(self) -> wire.Outcome | None:
        """How it ended; None before the end."""
        return self._record.outcome

    @property
    def position(self) -> int | None:
        """Place in the queue (1 is next); None if it is not queued."""
        return self._record.position

    @property
    def planned_start(self) -> datetime | None:
        """When it is planned to start. The planned start can change."""
        return words.parse_time(self._record.planned_start)

    @property
    def guaranteed_by(self) -> datetime | None:
        """Guaranteed start: the latest time it starts. `history` gives the cause of each change."""
        return words.parse_time(self._record.guaranteed_by)

    @property
    def likely_start(self) -> datetime | None:
        """When it will probably start if others release as early as usual; None if unknown."""
        return words.parse_time(self._record.likely_start)

    @property
    def reason(self) -> str | None:
        """Why it waits, failed or changed, as text."""
        return self._record.reason

    @property
    def starts_at(self) -> datetime | None:
        """When it became ready."""
        return words.parse_time(self._record.starts_at)

    @property
    def ends_at(self) -> datetime | None:
        """When it expires, unless it is extended or released first."""
        return words.parse_time(self._record.ends_at)

    @property
    def url(self) -> str | None:
        """Address of JupyterLab; None without a server."""
        return self._record.url

    @property
    def ssh_command(self) -> str | None:
        """Command for a shell on the server; None without a server."""
        return self._record.ssh_command

    @property
    def ssh_commands(self) -> list[str]:
        """One command for each node, in rank order; empty without a server."""
        return self._record.ssh_commands

    @property
    def vscode_url(self) -> str | None:
        """Address that opens the server in VS Code; None without a server."""
        return self._record.vscode_url

    @property
    def allocation(self) -> list[wire.NodeSlots]:
        """GPUs of each node that it holds."""
        return self._record.allocation

    @property
    def guests(self) -> list[str]:
        """Logins of the users with whom the server is shared."""
        return [guest.login for guest in self._record.guests]

    @property
    def record(self) -> wire.Reservation:
        """The whole answer of the service."""
        return self._record

    # Actions

    def refresh(self) -> Self:
        """Update the properties from the service."""
        return self._learn(self._api.reservation(self.id))

    def wait(self, timeout: float | None = None, *, progress: Progress | bool | None = None) -> Self:
        """Wait until it is ready.

        The wait continues over restarts of the service or the hub. `progress` is as in `gpudev.reserve`.
        Raises `WaitTimeout` after `timeout` seconds (the reservation keeps its place in the queue),
        `ReservationEnded` if it ends first, and `InvalidRequest` for a negative timeout.
        """
        check_timeout(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        shown = display.choose(progress, self)
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
                        f" {words.how_it_ended(self._record, clock.now())}.",
                        self,
                        hint=f"Show what happened with: gpu-dev logs {self.id}",
                    )
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise WaitTimeout(
                        f"Reservation {words.label(self._record)} is still {self.state} after {timeout:g} s.",
                        self,
                        hint=f"To wait again: gpu-dev wait {words.label(self._record)}\n"
                        f"To cancel it: gpu-dev cancel {words.label(self._record)}",
                    )
                try:
                    self.poll(LONGEST_POLL if left is None else min(left, LONGEST_POLL))
                    note, troubles = None, pauses()
                except NetworkError as error:
                    note = f"{error.message.rstrip('.')}. Your reservation is kept; retrying."
                    shown.update(self._record, note)
                    pause = max(next(troubles), error.retry_after)
                    time.sleep(pause if left is None else min(left, pause))
        finally:
            shown.close()

    def poll(self, wait: float) -> Self:
        """Wait for a change of the reservation, for at most `wait` seconds."""
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

        A string is run by the shell on the server; the items of a list are passed on unchanged. The output is
        shown while the command runs; with `capture` it is returned in ``stdout`` and ``stderr`` instead.
        Raises `RemoteCommandFailed` if the exit status is not 0 and `check` is true, and `CommandTimeout`
        after `timeout` seconds. After a timeout or an interrupt, all processes of the command are stopped.
        """
        check_timeout(timeout)
        if not remote.line(cmd).strip():  # ssh would open a shell
            raise InvalidRequest(
                f"The command for reservation {words.label(self._record)} is empty.",
                hint='Use a command line such as "nvidia-smi", or a list such as ["python", "train.py"].',
            )
        return remote.run(self._host(), cmd, check=check, capture=capture, input=input, timeout=timeout)

    def upload(self, local: str | Path, remote_path: str = ".") -> None:
        """Copy a file or folder to the server, relative to the home unless `remote_path` is absolute.

        `remote_path` is the name of the copy. If it ends with a slash or is ``.``, the copy goes into that
        folder under its own name. Copying again gives the same tree: files are replaced, and other files
        stay.
        """
        copies.upload(self._host(), local, remote_path)

    def download(self, remote_path: str, local: str | Path = ".") -> None:
        """Copy a file or folder from the server, by the same rules as `upload`."""
        copies.download(self._host(), remote_path, local)

    def logs(self) -> wire.Logs:
        """Return start events and the last log lines of Jupyter and sshd."""
        return self._api.logs(self.id)

    def history(self) -> list[wire.HistoryItem]:
        """Return every change of the reservation with its cause, oldest first."""
        return self._api.history(self.id)

    def extend(self, hours: float | str, *, reason: str | None = None) -> Self:
        """Extend it by `hours` (a number, or a text such as ``"90m"``).

        Granted only if everyone waiting still starts by their guaranteed time. Otherwise raises
        `ExtensionRefused`, with the longest extension available. `reason`: why an operator extends the
        reservation of another user, who reads it.
        """
        return self._learn(self._api.extend(self.id, number_of_hours(hours), reason))

    def release(self, *, reason: str | None = None) -> Self:
        """Release it, or cancel it if it is queued. Does nothing if it has already ended.

        `reason`: why an operator ends the reservation of another user, who reads it.
        """
        if self.state == "ended":
            return self
        return self._learn(self._api.release(self.id, reason))

    def share(self, login: str) -> Self:
        """Give another user access to the server, by SSH and in JupyterLab, until the reservation ends.

        They work there as you, with your home. Sharing again with the same user changes nothing.
        """
        return self._learn(self._api.share(self.id, login))

    def unshare(self, login: str) -> Self:
        """End another user's access to the server. Their connections end. If they have none, nothing changes.

        Raises `NotFound` if the hub has no user with this login.
        """
        return self._learn(self._api.unshare(self.id, login))

    def _host(self) -> remote.Host:
        return remote.find(self._api, self.id)

    def _learn(self, record: wire.Reservation) -> Self:
        # Answers may arrive out of order if the thread of a panel asks too.
        if record.version >= self._record.version:
            self._record = record
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self.release()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"Reservation {self.id} could not be released: {failure}")

    # Display

    def __repr__(self) -> str:
        view = words.describe(self._record, clock.now())
        # Python prints it on terminals of any encoding.
        return words.in_ascii(f"<Reservation {self.id}: {view.title}, {view.line()}>")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        view = words.describe(self._record, clock.now())
        return {"text/plain": repr(self), "text/html": panels.html(view)}

    def _ipython_display_(self) -> None:
        shown = display.panel(self)
        shown.update(self._record, None)
        shown.close()
