"""Times and states in words."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gpudev import panels, wire, words

NOW = datetime(2030, 1, 1, 10, 0, tzinfo=UTC)


def record(**values: Any) -> wire.Reservation:
    plain: dict[str, Any] = {
        "id": "k1",
        "name": "demo",
        "owner": "alice",
        "state": "queued",
        "gpus": 2,
        "nodes": 1,
        "total_gpus": 2,
        "gpu_type": "h100",
        "image": "default",
        "hours": 4.0,
        "created_at": "2030-01-01T09:00:00Z",
        "allocation": [],
        "version": 1,
        "mine": True,
        "shared": False,
        "lab_shared": True,
        "guests": [],
        "simulated": False,
        "ssh_commands": [],
    }
    names = {field.name for field in msgspec.structs.fields(wire.Reservation)}
    return msgspec.convert(dict.fromkeys(names) | plain | values, wire.Reservation)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (30, "30 s"),
        (89, "89 s"),
        (90, "2 min"),
        (45 * 60, "45 min"),
        (3600, "1 h"),
        (7800, "2 h 10 min"),
        (47 * 3600 + 59 * 60, "47 h 59 min"),
        (48 * 3600, "2 d"),
        (51 * 3600, "2 d 3 h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert words.span(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("hours", "text"), [(0, "0 s"), (0.75, "45 min"), (2.5, "2 h 30 min"), (48, "48 h"), (51, "51 h")]
)
def test_hours_are_never_days(hours: float, text: str) -> None:
    """People compare them with limits and budgets, which are in hours."""
    assert words.hours(hours) == text


def test_times_of_the_service_are_shown_in_the_zone_of_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        said = {
            "code": "waiting_for",
            "template": "{first}, node-2 by {at} (bob); {log}",
            "params": {
                "first": {
                    "code": "free_by",
                    "template": "{node} is free by {at} (alice)",
                    "params": {"node": "node-1"},
                    "instants": {"at": "2030-01-01T17:58:00Z"},
                },
                "log": "the log says: 10:15:30 no answer at 10:15, 2 Jan 03:00",
            },
            "instants": {"at": "2030-01-02T03:00:00Z"},
        }
        told = "node-1 is free by 17:58 UTC (alice), node-2 by 2 Jan 03:00 UTC (bob)"
        assert words.describe(record(reason=told, reason_data=said), NOW).reason == (
            "node-1 is free by 12:58 (alice), node-2 by 22:00 (bob); "
            "the log says: 10:15:30 no answer at 10:15, 2 Jan 03:00"
        )
        assert words.describe(record(reason=told), NOW).reason == told, "of a service of an earlier version"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_queued_one_has_place_start_and_promise() -> None:
    view = words.describe(
        record(
            position=3,
            planned_start="2030-01-01T12:10:00Z",
            guaranteed_by="2030-01-01T13:00:00Z",
            reason="node-1 is free by 12:10 (bob)",
        ),
        NOW,
    )
    clock = words.clock(datetime(2030, 1, 1, 12, 10, tzinfo=UTC), NOW)
    assert view.title == "gpu-demo · 2 GPUs h100"
    assert view.headline == "place 3 in the queue"
    assert view.times[0] == f"starts about {clock} (in 2 h 10 min)"
    assert view.times[1].startswith("guaranteed by ")
    assert (view.can_extend, view.can_release) == (False, True)


def test_a_start_that_is_due_is_not_shown_as_past() -> None:
    view = words.describe(record(position=1, planned_start="2030-01-01T09:00:00Z"), NOW)
    assert view.times == ("starts about now",)


def test_a_blocked_one_has_no_place() -> None:
    view = words.describe(record(reason="blocked: node node-1 is down"), NOW)
    assert (view.headline, view.times, view.reason) == ("waiting", (), "blocked: node node-1 is down")


def test_a_ready_one_says_what_is_left() -> None:
    view = words.describe(
        record(
            state="ready", server="running", ends_at="2030-01-01T11:30:00Z", url="http://x/", nodes=2, gpus=8
        ),
        NOW,
    )
    assert view.title == "gpu-demo · 2 nodes × 8 GPUs h100"
    assert view.times[0].endswith("(1 h 30 min left)")
    assert view.can_extend
    assert view.url == "http://x/"


def test_a_stopped_server_is_not_called_ready() -> None:
    view = words.describe(record(state="ready", server="stopped"), NOW)
    assert (view.headline, view.tone) == ("yours, but its server is stopped", "starting")


def test_somebody_elses_cannot_be_released() -> None:
    view = words.describe(record(state="ready", server="running", mine=False), NOW)
    assert (view.can_extend, view.can_release) == (False, False)


@pytest.mark.parametrize(
    ("outcome", "tone"), [("node_lost", "failed"), ("failed", "failed"), ("expired", "over")]
)
def test_ended(outcome: str, tone: str) -> None:
    view = words.describe(
        record(state="ended", outcome=outcome, ended_at="2030-01-01T09:00:00Z", url="http://x"), NOW
    )
    assert (view.headline, view.tone, view.url) == (outcome.replace("_", " "), tone, None)
    assert view.times[0].endswith("(1 h ago)")


@pytest.mark.parametrize(
    ("kind", "simulated", "shown"),
    [("h100", False, "h100"), ("h100", True, "h100 (simulated)"), ("simulated", True, "simulated")],
)
def test_what_is_simulated_says_so_once(kind: str, simulated: bool, shown: str) -> None:
    assert words.marked(kind, simulated) == shown


@pytest.mark.parametrize(
    ("kind", "nodes", "shown"),
    [
        ("h100", 1, "2 GPUs h100 (simulated)"),
        ("simulated", 1, "2 simulated GPUs"),
        ("simulated", 2, "2 nodes × 2 simulated GPUs"),
    ],
)
def test_simulated_hardware_reads_well(kind: str, nodes: int, shown: str) -> None:
    assert words.hardware(record(gpu_type=kind, nodes=nodes, simulated=True)) == shown


def test_an_end_is_told_once() -> None:
    ended = {"state": "ended", "outcome": "released", "ended_at": "2030-01-01T09:00:00Z"}
    assert words.describe(record(**ended, reason="released"), NOW).reason == ""
    why = "failed: not ready within 1 min, 3 times"
    assert words.describe(record(**ended | {"outcome": "failed"}, reason=why), NOW).reason == why


@pytest.mark.parametrize(("zone", "said"), [("UTC", True), ("America/New_York", False)])
def test_html_says_where_times_are_not_in_the_zone_of_the_reader(
    zone: str, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers run in UTC, whatever the reader's zone."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        view = words.describe(record(state="ready", ends_at="2030-01-01T15:00:00Z"), NOW)
        assert ("times in UTC" in panels.html(view)) is said
        view = words.describe(record(state="stopping"), NOW)
        assert "UTC" not in panels.html(view)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_html_holds_no_markup_of_others() -> None:
    view = words.describe(
        record(reason="<script>alert(1)</script>", name="a&b", url='http://x/"><b>', state="ready"), NOW
    )
    text = panels.html(view, note="<i>")
    assert "<script" not in text
    assert "<i>" not in text
    assert '"><b>' not in text
    assert "gpu-a&amp;b" in text
