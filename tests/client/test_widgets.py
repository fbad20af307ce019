"""The panel of a notebook: what it shows, what its buttons do, and how it ends with the reservation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

import gpudev
from gpudev import panels
from gpudev.widgets import Panel
from live_service import LiveService

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def soon(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was displayed: there is no browser here."""
    things: list[object] = []
    monkeypatch.setattr("IPython.display.display", things.append)
    return things


@pytest.fixture
def box(service: LiveService, client: gpudev.Client) -> Iterator[gpudev.Reservation]:
    service.fill()
    made = client.reserve(2, name="demo", wait=False)
    yield made
    # Threads of panels end with the reservation.
    if service.reservations[made.id].state != "ended":
        made.release()
    soon(lambda: not followers(made))


def followers(box: gpudev.Reservation) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"gpudev-{box.id}")]


def test_while_a_cell_waits_there_are_no_buttons(box: gpudev.Reservation, shown: list[object]) -> None:
    panel = Panel(box)
    panel.update(box.record, None)
    panel.update(box.record, None)
    assert shown == [panel.box]
    assert "next in the queue" in panel.text.value
    assert "interrupt the cell" in panel.text.value
    assert panel.buttons.layout.display == "none"


def test_a_panel_follows_until_the_end(
    service: LiveService, box: gpudev.Reservation, shown: list[object]
) -> None:
    panel = Panel(box)
    panel.update(box.record, None)
    panel.close()
    assert panel.buttons.layout.display == ""
    assert panel.release.description == "Cancel"
    assert panel.extend.disabled
    service.make_ready(box.id)
    soon(lambda: "until" in panel.text.value)
    assert f'href="{service.url}/user/alice/{box.id}/lab"' in panel.text.value
    assert not panel.extend.disabled
    assert panel.release.description == "Release"
    service.change(box.id, state="ended", outcome="expired")
    soon(lambda: "expired" in panel.text.value)
    soon(lambda: not followers(box))
    assert panel.buttons.layout.display == "none"


def test_extend_and_release(service: LiveService, box: gpudev.Reservation, shown: list[object]) -> None:
    service.make_ready(box.id)
    box.refresh()
    panel = Panel(box)
    panel.update(box.record, None)
    panel.close()
    panel.hours.value = 2.0
    panel.extend.click()
    soon(lambda: "Extended by 2 h." in panel.text.value)
    assert service.only.hours == 6.0
    panel.release.click()
    soon(lambda: "released" in panel.text.value)
    assert service.ended(service.only.id).outcome == "released"


def test_a_refusal_is_shown_and_the_buttons_come_back(
    service: LiveService, box: gpudev.Reservation, shown: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    service.make_ready(box.id)
    box.refresh()
    panel = Panel(box)
    service.reserve_as("carol", 8, hours=5.5)
    service.reserve_as("bob", 8, nodes=2)
    panel.hours.options = [("12 h", 12.0)]
    panel.update(box.record, None)
    panel.close()
    panel.extend.click()
    soon(lambda: "The longest extension now is 1 h 30 min" in panel.text.value and not panel.extend.disabled)


def test_an_outage_is_shown_and_survived(
    service: LiveService, box: gpudev.Reservation, shown: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panels, "PAUSE", 0.05)
    panel = Panel(box)
    panel.update(box.record, None)
    panel.close()
    service.stop()
    soon(lambda: "cannot be reached" in panel.text.value)
    service.start()
    service.make_ready(box.id)
    soon(lambda: "until" in panel.text.value)


def test_without_ipywidgets_there_is_live_html(
    service: LiveService, box: gpudev.Reservation, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    class Handle:
        def update(self, thing: object) -> None:
            drawn.append(str(getattr(thing, "data", "")))

    def show(thing: object, display_id: bool = False) -> Handle:
        Handle().update(thing)
        return Handle()

    monkeypatch.setattr("IPython.display.display", show)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    box._ipython_display_()
    service.make_ready(box.id)
    soon(lambda: "Open JupyterLab" in drawn[-1])
    assert "next in the queue" in drawn[0]


def test_a_bundle_has_text_and_html(box: gpudev.Reservation) -> None:
    bundle = box._repr_mimebundle_(include=None, exclude=None)
    assert bundle["text/plain"] == repr(box)
    assert "gpu-demo" in bundle["text/html"]
