"""The panel of a reservation as HTML, and the thread that keeps a panel in a notebook up to date."""

from __future__ import annotations

import html as _html
import threading
from typing import Any, Protocol

from gpudev import clock, wire, words
from gpudev.errors import GpuDevError, NetworkError
from gpudev.progress import Progress

POLL = 20.0
"""Seconds between updates of the time left, if nothing else changes."""
PAUSE = 5.0
"""Seconds before a retry if the service did not answer."""

COLOURS: dict[words.Tone, str] = {
    "waiting": "#0b7285",
    "starting": "#b35900",
    "ready": "#2b8a3e",
    "over": "#868e96",
    "failed": "#c92a2a",
}


class Followed(Protocol):
    """A reservation that a panel follows: what a panel needs of `gpudev.Reservation`."""

    @property
    def record(self) -> wire.Reservation:
        """The last answer of the service."""

    def poll(self, wait: float) -> object:
        """Wait for a change, for at most `wait` seconds."""

    def extend(self, hours: float) -> object:
        """Extend it."""

    def release(self) -> object:
        """Release or cancel it."""


def html(view: words.View, note: str | None = None) -> str:
    """Return the panel without buttons as HTML. All texts are escaped."""
    colour = COLOURS[view.tone]
    # Notebooks run on servers, which do not know the time zone of the reader.
    zone = ["times in UTC"] if view.times and clock.now().astimezone().tzname() == "UTC" else []
    facts = " · ".join(_html.escape(part) for part in (view.headline, *view.times, *zone))
    rows = [
        f'<div style="font-weight:600">{_html.escape(view.title)}</div>',
        f'<div style="color:{colour}">{facts}</div>',
    ]
    if view.reason:
        rows.append(f'<div style="opacity:.75">{_html.escape(view.reason)}</div>')
    if note:
        rows.append(f'<div style="color:{COLOURS["starting"]}">{_html.escape(note)}</div>')
    links = [
        f'<a href="{_html.escape(address, quote=True)}" target="_blank" rel="noopener">{text}</a>'
        for address, text in ((view.url, "Open JupyterLab"), (view.vscode_url, "Open in VS Code"))
        if address
    ]
    if links:
        rows.append(f"<div>{' · '.join(links)}</div>")
    if view.ssh_command:
        commands = (view.ssh_command, *view.node_ssh_commands)
        rows += [f"<div><code>{_html.escape(command)}</code></div>" for command in commands]
    return (
        f'<div style="border-left:4px solid {colour};padding:4px 12px;margin:4px 0;line-height:1.5">'
        f"{''.join(rows)}</div>"
    )


class HtmlPanel:
    """The panel without buttons, updated in place."""

    def __init__(self, reservation: Followed) -> None:
        self._reservation = reservation
        self._handle: Any = None

    def update(self, record: wire.Reservation, note: str | None) -> None:
        from IPython.display import HTML, display

        view = words.describe(record, clock.now())
        drawn = HTML(html(view, note))  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = display(drawn, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(drawn)

    def close(self) -> None:
        """End the wait: from now on, a thread keeps the panel up to date."""
        follow(self._reservation, self)


def follow(reservation: Followed, shown: Progress) -> threading.Thread:
    """Keep `shown` up to date from a daemon thread until the reservation has ended."""
    thread = threading.Thread(
        target=_follow, args=(reservation, shown), name=f"gpudev-{reservation.record.id}", daemon=True
    )
    thread.start()
    return thread


def _follow(reservation: Followed, shown: Progress) -> None:
    pause = threading.Event()
    note: str | None = None
    while reservation.record.state != "ended":
        try:
            reservation.poll(POLL)
            note = None
        except NetworkError as error:
            note = error.message
            pause.wait(max(PAUSE, error.retry_after))
        except GpuDevError as error:
            shown.update(reservation.record, str(error))
            return
        shown.update(reservation.record, note)
