"""Progress of a wait: a live line on a terminal, plain lines in a log."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TextIO

from gpudev import clock, wire, words

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.spinner import Spinner

STYLES: dict[words.Tone, str] = {
    "waiting": "cyan",
    "starting": "yellow",
    "ready": "green",
    "over": "dim",
    "failed": "red",
}


class Progress(Protocol):
    """Receives the progress of a wait."""

    def update(self, record: wire.Reservation, note: str | None) -> None:
        """Show the current state of the reservation, and in `note` a problem such as a lost connection."""

    def close(self) -> None:
        """End the display: the wait is over."""


class Silent:
    """Shows nothing."""

    def update(self, record: wire.Reservation, note: str | None) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """Writes a plain line after each change."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: object = None

    def update(self, record: wire.Reservation, note: str | None) -> None:
        facts = (
            record.state,
            record.server,
            record.position,
            record.planned_start,
            record.guaranteed_by,
            record.reason,
            note,
        )
        if facts == self._shown:
            return
        self._shown = facts
        now = clock.now()
        view = words.describe(record, now)
        text = f"{now.astimezone():%H:%M:%S} gpu-{words.label(record)}: {note or view.line()}"
        with suppress(OSError, ValueError):  # a full or closed stream does not end the wait
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing."""


class LiveLine:
    """A line that is updated in place as time passes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live: Live | None = None
        self._spinner: Spinner | None = None
        self._record: wire.Reservation | None = None
        self._note: str | None = None

    def update(self, record: wire.Reservation, note: str | None) -> None:
        self._record, self._note = record, note
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, highlight=False)
            self._live = Live(
                console=console, get_renderable=self._draw, refresh_per_second=8, transient=True
            )
            self._live.start()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> RenderableType:
        from rich.spinner import Spinner
        from rich.text import Text

        assert self._record is not None
        view = words.describe(self._record, clock.now())
        text = Text.assemble(
            (view.title, "bold"), "  ", (" · ".join((view.headline, *view.times)), STYLES[view.tone])
        )
        if view.reason:
            text.append(f"\n{view.reason}", "dim")
        if self._note:
            text.append(f"\n{self._note}", "yellow")
        if self._spinner is None:  # kept between updates, so that it turns
            unicode = (self._stream.encoding or "").lower().startswith("utf")
            self._spinner = Spinner("dots" if unicode else "line")
        self._spinner.update(text=text)
        return self._spinner


def for_stream(stream: TextIO | None) -> Progress:
    """Return a live line for a terminal, plain lines for other streams, nothing for a closed stream."""
    if stream is None or stream.closed:
        return Silent()
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", ""):
        return LiveLine(stream)
    return Lines(stream)
