"""The notebook panel with buttons. Needs ``ipywidgets``, from the extra ``widgets``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets

from gpudev import clock, panels, wire, words
from gpudev.errors import GpuDevError

STEPS = ((0.5, "30 min"), (1.0, "1 h"), (2.0, "2 h"), (4.0, "4 h"))
"""Choices for an extension: hours and label."""


class Panel:
    """A panel for one reservation: its state, links, and buttons to extend and release it.

    While a cell waits, the kernel does not receive button events. So the buttons appear after the wait, and
    before that the panel says how to cancel.
    """

    def __init__(self, reservation: panels.Followed) -> None:
        self._reservation = reservation
        self._lock = threading.Lock()
        self._following = False
        self._busy = False
        self._note: str | None = None
        self.text = ipywidgets.HTML()
        self.hours = ipywidgets.Dropdown(
            options=[(text, hours) for hours, text in STEPS],
            value=1.0,
            layout=ipywidgets.Layout(width="7em"),
            tooltip="Time to add",
        )
        self.extend = ipywidgets.Button(description="Extend", icon="clock-o")
        self.release = ipywidgets.Button(description="Release", icon="stop", button_style="warning")
        self.buttons = ipywidgets.HBox([self.hours, self.extend, self.release])
        self.box = ipywidgets.VBox([self.text, self.buttons])
        self.extend.on_click(self._on_extend)
        self.release.on_click(lambda _: self._do(self._reservation.release, ""))
        self._shown = False

    def update(self, record: wire.Reservation, note: str | None) -> None:
        with self._lock:
            view = words.describe(record, clock.now())
            if not self._following and record.state in ("queued", "starting"):
                note = note or "To cancel the reservation, interrupt the cell (■)."
            self.text.value = panels.html(view, note or self._note)
            self.extend.disabled = self._busy or not view.can_extend
            self.hours.disabled = self.extend.disabled
            self.release.disabled = self._busy or not view.can_release
            self.release.description = "Cancel" if record.state == "queued" else "Release"
            usable = self._following and (view.can_extend or view.can_release)
            self.buttons.layout.display = "" if usable else "none"
            if self._shown:
                return
            self._shown = True
        from IPython.display import display as show

        show(self.box)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """End the wait: show the buttons, and keep the panel up to date from a thread."""
        self._following = True
        self.update(self._reservation.record, None)
        panels.follow(self._reservation, self)

    def _on_extend(self, _: Any) -> None:
        hours = self.hours.value
        self._do(lambda: self._reservation.extend(hours), f"Extended by {words.hours(hours)}.")

    def _do(self, action: Callable[[], object], done: str) -> None:
        """Run an action in a thread, so that the kernel stays free, and show the result."""
        self._busy, self._note = True, None
        self.update(self._reservation.record, None)

        def work() -> None:
            try:
                action()
                self._note = done or None
            except GpuDevError as error:
                self._note = str(error)
            self._busy = False
            self.update(self._reservation.record, None)

        threading.Thread(
            target=work, name=f"gpudev-{self._reservation.record.id}-button", daemon=True
        ).start()
