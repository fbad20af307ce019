"""The list of connections to end: numbers, long polls, and readers that missed something."""

from __future__ import annotations

import asyncio

from gpudev_hub.service import cuts as module
from gpudev_hub.service.cuts import Cuts

BOB = "github:2"


def list_after(commit: int) -> Cuts:
    cuts = Cuts()
    cuts.begin(commit)
    return cuts


async def test_a_reader_gets_each_entry_once() -> None:
    cuts = list_after(7)
    start = cuts.after(0)
    assert start.missed
    assert not start.cuts
    cuts.let_in(BOB, "SHA256:one")
    cuts.add(8, BOB, "r-1", 5)
    cuts.add(8, "github:3", None, 5)
    first = cuts.after(start.latest)
    assert [(c.subject, c.fingerprints, c.reservation) for c in first.cuts] == [
        (BOB, ("SHA256:one",), "r-1"),
        ("github:3", (), None),
    ]
    assert not first.missed
    assert cuts.after(first.latest) == module.NewCuts((), first.latest, missed=False)


async def test_a_server_gets_only_what_concerns_it() -> None:
    cuts = list_after(1)
    start = cuts.after(0).latest
    cuts.add(2, BOB, "r-1", 5)
    cuts.add(3, BOB, None, 5)
    assert [c.reservation for c in cuts.after(start, "r-1").cuts] == ["r-1", None]
    assert [c.reservation for c in cuts.after(start, "r-2").cuts] == [None]


async def test_a_waiting_reader_is_woken() -> None:
    cuts = list_after(1)
    start = cuts.after(0).latest
    waiting = asyncio.create_task(cuts.wait(start, 60, "r-1"))
    await asyncio.sleep(0)
    cuts.add(2, BOB, "r-2", 5)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done(), "an entry for another server must not end the wait"
    cuts.add(3, BOB, "r-1", 5)
    assert [c.reservation for c in (await waiting).cuts] == ["r-1"]
    assert not (await cuts.wait(cuts.after(0).latest, 0.01)).cuts


async def test_after_a_restart_a_reader_must_check_its_connections() -> None:
    """Also one whose last entry came with the very last commit."""
    before = list_after(3)
    before.add(4, BOB, None, 5)
    known = before.after(0).latest
    again = list_after(4)
    found = await again.wait(known, 60)
    assert found.missed
    assert found.latest > known
    assert not again.after(found.latest).missed
    # A number that this list never handed out, for example from a database that was put back.
    assert again.after(found.latest + 1).missed


async def test_a_reader_too_far_behind_is_told_so() -> None:
    cuts = list_after(1)
    start = cuts.after(0).latest
    for _ in range(module.KEPT):
        cuts.add(2, BOB, None, 5)
    assert not cuts.after(start).missed
    cuts.add(3, BOB, None, 5)
    assert cuts.after(start).missed


async def test_the_latest_keys_of_a_person_are_remembered() -> None:
    cuts = list_after(1)
    for number in range(module.FINGERPRINTS + 1):
        cuts.let_in(BOB, f"SHA256:{number}")
    cuts.let_in(BOB, "SHA256:1")
    cuts.add(2, BOB, None, 5)
    (cut,) = cuts.after(cuts.after(0).latest - 1).cuts
    assert len(cut.fingerprints) == module.FINGERPRINTS
    assert "SHA256:0" not in cut.fingerprints
    assert cut.fingerprints[-1] == "SHA256:1"
