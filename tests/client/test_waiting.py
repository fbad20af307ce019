"""Waiting: long polls, outages, ends, time-outs, and what a script holds when something is raised."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable

import msgspec
import pytest

import gpudev
from fault_proxy import Fault
from gpudev import wire
from gpudev.progress import Lines
from live_service import LiveService


def soon(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


class Heard:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.notes: list[str] = []
        self.closed = 0

    def update(self, record: wire.Reservation, note: str | None) -> None:
        self.states.append(record.state)
        if note:
            self.notes.append(note)

    def close(self) -> None:
        self.closed += 1


def later(service: LiveService, act: Callable[[], object]) -> threading.Thread:
    """Do it once somebody polls."""

    def work() -> None:
        soon(lambda: service.count("GET", "version="))
        act()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_it_returns_when_the_turn_has_come(service: LiveService, client: gpudev.Client) -> None:
    service.fill()
    heard = Heard()
    thread = later(service, lambda: service.make_ready(service.only.id))
    box = client.reserve(2, name="demo", progress=heard)
    thread.join()
    assert (box.state, box.name, box.ssh_command) == ("ready", "demo", "ssh gpu-demo")
    assert box.ends_at is not None
    assert box.ends_at.tzinfo is not None
    assert (heard.states[0], heard.states[-1], heard.closed) == ("queued", "ready", 1)


def test_a_restart_of_the_service_does_not_end_the_wait(service: LiveService, client: gpudev.Client) -> None:
    service.fill()
    heard = Heard()

    def restart() -> None:
        service.stop()
        soon(lambda: heard.notes)
        service.faults.append(Fault("503", method="GET", times=1))
        service.faults.append(Fault("404", method="GET", times=1))
        service.start()
        service.make_ready(service.only.id)

    thread = later(service, restart)
    box = client.reserve(2, progress=heard)
    thread.join()
    assert box.state == "ready"
    assert any("Your reservation is kept" in note for note in heard.notes)
    assert len(service.reservations) == 1


def test_a_reservation_that_ends_while_waited_for_is_an_error(
    service: LiveService, client: gpudev.Client
) -> None:
    service.fill()
    thread = later(
        service,
        lambda: service.change(
            service.only.id, state="ended", outcome="failed", reason="sshd did not answer"
        ),
    )
    said = r"demo has ended: failed: sshd did not answer\.\nShow what happened with: gpu-dev logs k2"
    with pytest.raises(gpudev.ReservationEnded, match=said) as caught:
        client.reserve(2, name="demo", progress=False)
    thread.join()
    assert caught.value.reservation.outcome == "failed"
    assert caught.value.exit_code == 8


def test_after_a_time_out_of_reserve_nothing_is_held(service: LiveService, client: gpudev.Client) -> None:
    service.fill()
    with pytest.raises(gpudev.WaitTimeout, match=r"still queued after 0\.1 s") as caught:
        client.reserve(2, timeout=0.1, progress=False)
    assert isinstance(caught.value, TimeoutError)
    assert "was cancelled" in caught.value.hint
    assert service.only.outcome == "cancelled"


def test_after_a_time_out_of_wait_the_place_is_kept(service: LiveService, client: gpudev.Client) -> None:
    service.fill()
    box = client.reserve(2, wait=False)
    with pytest.raises(gpudev.WaitTimeout):
        box.wait(0.05, progress=False)
    assert service.only.state == "queued"


def test_with_releases_at_the_end(service: LiveService, client: gpudev.Client) -> None:
    with client.reserve(2, progress=False) as box:
        held = service.only
    assert (held.state, box.state, service.ended(box.id).state) == ("ready", "stopping", "ended")
    assert box.refresh().state == "ended"


def test_with_releases_after_an_error_and_does_not_hide_it(
    service: LiveService, client: gpudev.Client
) -> None:
    with pytest.raises(ZeroDivisionError), client.reserve(2, progress=False):
        raise ZeroDivisionError
    assert service.ended(service.only.id).outcome == "released"


def test_an_error_in_the_block_says_if_the_release_failed_too(service: LiveService) -> None:
    client = gpudev.Client(service.url, service.token, patience=0.2)
    service.faults.append(Fault("503", method="DELETE", times=99))
    with pytest.raises(ZeroDivisionError) as caught, client.reserve(2, progress=False):
        raise ZeroDivisionError
    assert "could not be released" in caught.value.__notes__[0]


def test_an_older_answer_does_not_overwrite_a_newer(service: LiveService, client: gpudev.Client) -> None:
    service.fill()
    box = client.reserve(2, wait=False)
    queued = service.only
    service.make_ready(box.id)
    box.refresh()
    service.change(**msgspec.to_builtins(queued))
    box.refresh()
    assert box.state == "ready"


def test_lines_are_written_only_when_something_changes(service: LiveService, client: gpudev.Client) -> None:
    service.fill()
    box = client.reserve(2, name="demo", wait=False)
    out = io.StringIO()
    lines = Lines(out)
    for _ in range(3):
        lines.update(box.record, None)
    lines.update(box.record, "no answer")
    lines.update(box.record, "no answer")
    lines.update(service.make_ready(box.id), None)
    written = out.getvalue().splitlines()
    assert len(written) == 3
    assert "gpu-demo: next in the queue" in written[0]
    assert "waiting for 2 GPUs: node-1 is free by 15:00 (bob)" in written[0]
    assert "no answer" in written[1]
    assert "ready" in written[2]


def test_history_and_logs(client: gpudev.Client) -> None:
    box = client.reserve(2, progress=False)
    assert [item.state for item in box.history()] == ["queued", "starting", "ready"]
    assert box.logs().logs["jupyter"] == "serving\n"


def test_yours_and_everyones(service: LiveService, client: gpudev.Client) -> None:
    box = client.reserve(2, progress=False)
    service.reserve_as("bob", 1)
    assert [r.id for r in client.reservations()] == [box.id]
    assert len(client.reservations(all=True)) == 2
    box.release()
    service.ended(box.id)
    assert [r.id for r in client.reservations(ended=True)] == [box.id]


def test_a_reservation_says_what_it_is(service: LiveService, client: gpudev.Client) -> None:
    """In ASCII: `print` fails where the terminal lacks a character."""
    box = client.reserve(2, name="demo", progress=False)
    service.change(box.id, reason="größer × 2")
    assert repr(box.refresh()).isascii()
    assert repr(box).startswith(f"<Reservation {box.id}: gpu-demo - 2 GPUs h100 (simulated), ready - until ")
