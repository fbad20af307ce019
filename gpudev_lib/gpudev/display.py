"""Reservations in notebooks: a live panel with buttons with ipywidgets, otherwise live HTML."""

from __future__ import annotations

import html as _html
import importlib.util
import sys
import threading
from typing import TYPE_CHECKING, Any

from gpudev import clock, wire, words
from gpudev.errors import GpuDevError, NetworkError

if TYPE_CHECKING:
    from gpudev.progress import Progress
    from gpudev.reservation import Reservation

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


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


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

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation
        self._handle: Any = None

    def update(self, record: wire.Reservation, note: str | None) -> None:
        """Draw it."""
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


def panel(reservation: Reservation) -> Progress:
    """Return the panel for a notebook, with buttons if ipywidgets is installed."""
    if importlib.util.find_spec("ipywidgets") is None:
        return HtmlPanel(reservation)
    from gpudev.widgets import Panel

    return Panel(reservation)


def show(reservation: Reservation) -> None:
    """Show a panel that follows the reservation until it has ended."""
    shown = panel(reservation)
    shown.update(reservation.record, None)
    shown.close()


def follow(reservation: Reservation, shown: Progress) -> threading.Thread:
    """Keep `shown` up to date from a daemon thread until the reservation has ended."""
    thread = threading.Thread(
        target=_follow, args=(reservation, shown), name=f"gpudev-{reservation.id}", daemon=True
    )
    thread.start()
    return thread


def _follow(reservation: Reservation, shown: Progress) -> None:
    pause = threading.Event()
    note: str | None = None
    while reservation.state != "ended":
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
