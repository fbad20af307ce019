from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpudev import wire
from gpudev.hours import read_hours
from gpudev_hub.core.words import sentence
from gpudev_hub.web.drawing import WIDTH, Box, draw
from gpudev_hub.web.page_view import (
    Shown,
    happenings,
    hours_field,
    left,
    ordinal,
    size,
    slots,
    span,
    told,
    when,
)

NOW = "2026-11-23T14:00:00Z"


def at(minutes: float) -> str:
    moment = datetime.fromisoformat(NOW) + timedelta(minutes=minutes)
    return moment.isoformat().replace("+00:00", "Z")


def bar(id: str, gpus: int, start: float, end: float, state: wire.State = "ready") -> wire.TimelineBar:
    return wire.TimelineBar(
        id=id,
        name=None,
        owner="bob",
        mine=False,
        gpus=gpus,
        nodes=1,
        state=state,
        start=at(start),
        end=at(end),
    )


def pool(bars: list[wire.TimelineBar], gpus: int = 8) -> wire.TimelinePool:
    node = wire.TimelineNode(name="node-1", status="up", gpus=gpus, bars=bars)
    return wire.TimelinePool(gpu_type="p", label="", simulated=True, nodes=[node], waiting=[])


def overlap(a: Box, b: Box) -> bool:
    beside = a.x + a.width <= b.x + 0.05 or b.x + b.width <= a.x + 0.05
    return not beside and not (a.y + a.height <= b.y or b.y + b.height <= a.y)


@st.composite
def stays(draw: st.DrawFn) -> list[wire.TimelineBar]:
    """Stays that a node of 8 can hold: what would not fit is left out."""
    found: list[tuple[int, int, int]] = []
    for gpus, start, length in draw(
        st.lists(
            st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(0, 600), st.integers(30, 600)), max_size=12
        )
    ):
        end = start + length
        points = {start, *(s for _, s, _ in found if start <= s < end)}
        if all(gpus + sum(g for g, s, e in found if s <= point < e) <= 8 for point in points):
            found.append((gpus, start, end))
    return [bar(f"r{n}", g, s, e, "ready" if s == 0 else "queued") for n, (g, s, e) in enumerate(found)]


@given(stays())
def test_bars_never_lie_on_each_other_and_have_all_their_gpus(bars: list[wire.TimelineBar]) -> None:
    drawing = draw(pool(bars), NOW)
    (node,) = drawing.nodes
    boxes = [(b.bar.id, box) for b in node.bars for box in b.boxes]
    for n, (one, first) in enumerate(boxes):
        assert 0 <= first.x < first.x + first.width <= WIDTH + 0.3
        for other, second in boxes[n + 1 :]:
            assert one == other or not overlap(first, second), (one, other)
    for b in node.bars:
        assert sum(round((box.height + 2) / drawing.lane) for box in b.boxes) == b.bar.gpus


def test_what_ends_beyond_the_picture_is_cut_at_its_edge() -> None:
    drawing = draw(pool([bar("long", 2, 0, 60 * 90)]), NOW)
    (found,) = drawing.nodes[0].bars
    assert found.boxes[0].x + found.boxes[0].width == WIDTH


@given(stays(), st.integers(0, 300))
def test_the_line_of_now_runs_through_no_name(bars: list[wire.TimelineBar], minutes: int) -> None:
    drawing = draw(pool(bars), at(minutes))
    for b in drawing.nodes[0].bars:
        tallest, label = max(b.boxes, key=lambda box: box.height), b.label
        assert tallest.x <= label.x
        assert label.x + label.width <= tallest.x + tallest.width + 0.01
        assert not label.x < drawing.now_x < label.x + label.width
        assert tallest.y <= label.y <= label.y + label.height <= tallest.y + tallest.height
    for node in drawing.nodes:
        assert node.y >= drawing.head + 20, "its name is above the lines"


def reservation(**changes: object) -> wire.Reservation:
    fields: dict[str, object] = {
        "id": "abc",
        "name": None,
        "owner": "bob",
        "state": "queued",
        "server": None,
        "gpus": 2,
        "nodes": 1,
        "total_gpus": 2,
        "gpu_type": "p",
        "image": "default",
        "hours": 1.0,
        "position": 2,
        "planned_start": at(10),
        "guaranteed_by": at(12),
        "likely_start": None,
        "reason": "waiting for 2 GPUs",
        "created_at": at(-5),
        "starts_at": None,
        "ends_at": None,
        "outcome": None,
        "ended_at": None,
        "url": None,
        "ssh_command": None,
        "vscode_url": None,
        "allocation": [],
        "version": 1,
        "mine": True,
        "simulated": True,
    }
    return wire.Reservation(**(fields | changes))  # type: ignore[arg-type]


def said(*pieces: str) -> wire.Sentence:
    """A text from pieces; those that are times on the wire are instants."""
    named = {f"t{n}": piece for n, piece in enumerate(pieces)}
    return wire.Sentence(
        code="test",
        template="".join(f"{{{name}}}" for name in named),
        params={name: piece for name, piece in named.items() if not piece.endswith("Z")},
        instants={name: piece for name, piece in named.items() if piece.endswith("Z")},
    )


def shown(stopped: bool = False, warn_minutes: tuple[int, ...] = (), **changes: object) -> Shown:
    return Shown(reservation(**changes), NOW, stopped, warn_minutes)


def test_states_in_words() -> None:
    assert shown().pill == ("Waiting", "wait")
    assert "Starts about" in shown().statement
    assert shown(planned_start=None, guaranteed_by=None, position=None).pill[0] == "Blocked"
    assert shown(planned_start=at(-1)).statement == "About to start"
    running: dict[str, Any] = {"state": "ready", "starts_at": at(-30), "ends_at": at(30)}
    assert "30 min" in shown(**running).statement
    assert shown(stopped=True, **running).pill == ("Stopped", "wait")
    failed = shown(state="ended", outcome="failed", reason_data=said("no sshd"), ended_at=NOW)
    assert (failed.statement, failed.explanation) == ("Failed", "No sshd.")
    expired = shown(state="ended", outcome="expired", reason_data=None, ended_at=NOW)
    assert (expired.statement, expired.explanation) == ("Expired", ""), "said once"
    assert failed.steps[-1].state == "failed"


def test_warnings_go_by_their_thresholds() -> None:
    for minutes, threshold in ((31, None), (30, 30), (16, 30), (15, 15), (5, 5), (1, 5), (0, None)):
        ready = shown(state="ready", ends_at=at(minutes), warn_minutes=(30, 15, 5))
        words = f"Less than {threshold} minutes left. Save your work, or extend."
        assert ready.warning == (None if threshold is None else words), minutes
    assert shown(state="ready", ends_at=at(0.5), warn_minutes=(1,)).warning == (
        "Less than 1 minute left. Save your work, or extend."
    )


def test_a_warning_is_for_its_owner_and_information_for_an_operator() -> None:
    others = shown(state="ready", ends_at=at(10), mine=False, warn_minutes=(15,))
    assert others.warning == "bob's reservation ends in less than 15 minutes."
    assert shown(state="ready", ends_at=at(10), mine=False).warning is None


def test_the_link_to_jupyterlab_is_a_path_while_it_can_be_opened() -> None:
    url = "http://hub.example:8000/base/user/bob/abc/lab"
    assert shown(state="ready", url=url).lab == "/base/user/bob/abc/lab"
    assert shown(state="starting", url=url).lab is None
    assert shown(stopped=True, state="ready", url=url).lab is None
    assert shown(state="ready").lab is None


def test_words() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]
    )
    assert [span(s) for s in (-5, 119, 120, 3599, 3600, 5400)] == (
        ["0 s", "119 s", "2 min", "59 min", "1 h", "1 h 30 min"]
    )
    assert [size(1, 1), size(8, 1), size(8, 2)] == ["1 GPU", "8 GPUs", "2 × 8 GPUs"]
    assert sentence("it failed") == "It failed."
    assert sentence("Nothing: was changed.") == "Nothing: was changed."
    assert sentence("node-1 is down") == "node-1 is down.", "a name stays as it is"
    assert slots([wire.NodeSlots(node="n", slots=[0, 1, 2, 5])]) == ["n, GPUs 0–2, 5"]
    assert "24 Nov 00:10 UTC" in when("2026-11-24T00:10:00Z", NOW)
    assert "2 h" in left(at(120), NOW)


def test_only_instants_are_times_on_a_page() -> None:
    waits = shown(reason_data=said("node-1 is free by ", at(10), " (bob)"))
    assert waits.explanation == f"node-1 is free by {when(at(10), NOW)} (bob)."
    quoted = shown(state="starting", reason_data=said("starting on node-1: 10:15:30 <b> at 10:15"))
    assert quoted.explanation == "Starting on node-1: 10:15:30 &lt;b&gt; at 10:15."
    assert told(said("by ", at(10)), NOW).endswith("</time>.")
    assert told(None, NOW) == ""
    ended = shown(state="ended", outcome="failed", reason_data=said("late, by ", at(10)))
    assert ended.explanation == f"Late, by {when(at(10), NOW)}."


def test_history_leaves_out_what_only_machines_care_for() -> None:
    def item(cause: str, actor: str = "service", detail: str = "") -> wire.HistoryItem:
        return wire.HistoryItem(
            at=NOW,
            cause=cause,
            cause_code=cause.partition(": ")[0],
            cause_data=said(cause.partition(": ")[2]) if ": " in cause else None,
            actor=actor,
            state="ready",
            planned_start=None,
            guaranteed_by=None,
            ends_at=None,
            detail=detail,
            detail_data=said(detail) if detail else None,
        )

    items = [
        item("requested", "local:bob"),
        item("server_seen"),
        item("extended: the demo runs late", "local:root"),
        item("operator: ended_by_operator", "github:101", "node-1 is repaired"),
    ]
    found = happenings(items, "local:bob", NOW, {"github:101": "olga"})
    assert [(h.what, h.about, h.by) for h in found] == [
        ("Ended by an operator", "node-1 is repaired.", "olga"),
        ("Extended", "The demo runs late.", "root"),
        ("Requested", "", ""),
    ]


def test_events_within_a_minute_are_told_apart_by_seconds() -> None:
    def item(seconds: float) -> wire.HistoryItem:
        return wire.HistoryItem(
            at=at(seconds / 60),
            cause="extended",
            cause_code="extended",
            actor="service",
            state="ready",
            planned_start=None,
            guaranteed_by=None,
            ends_at=None,
            detail="",
        )

    found = happenings([item(-61), item(1), item(2), item(59), item(60)], "local:bob", NOW, {})
    assert [h.seconds for h in found] == [False, True, True, True, False]
    assert "14:00:59 UTC<" in when(found[1].at, NOW, found[1].seconds)
    assert "14:01 UTC<" in when(found[0].at, NOW, found[0].seconds)


def test_the_form_shows_hours_as_people_write_them() -> None:
    shown = [hours_field(hours) for hours in (4.0, 1.5, 16 / 60, 45.7333)]
    assert shown == ["4", "1.5", "16 min", "45 h 43 min"]
    assert all(read_hours(text) for text in shown)
