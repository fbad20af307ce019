"""No instant of an outage is accounted for twice, and none is forgotten."""

from __future__ import annotations

import pytest

from gpudev_hub.core.events import Outage
from gpudev_hub.service.outages import Outages


@pytest.fixture
def outages() -> Outages:
    return Outages(lambda: None)


def test_what_is_over_is_owed_until_it_is_durable(outages: Outages) -> None:
    assert outages.begin("hub", 100, "no answer")
    assert not outages.begin("hub", 200, "still none")
    assert outages.reasons() == ["hub: still none"]
    assert outages.take(300, due=False) == [], "what lasts is accounted for when it matters"
    assert outages.end("hub", 400)
    assert not outages.end("hub", 500)
    for _ in range(2):
        assert outages.take(600, due=False) == [Outage(100, 400, "hub")]
    outages.accounted()
    assert outages.take(700, due=True) == []
    assert outages.reasons() == []


def test_what_lasts_is_accounted_for_up_to_now_when_something_is_due(outages: Outages) -> None:
    outages.begin("hub", 100, "no answer")
    assert outages.take(300, due=True) == [Outage(100, 300, "hub", lasting=True)]
    # That commit failed, and nothing was due in the next turn, which worked.
    assert outages.take(310, due=False) == []
    outages.accounted()
    assert outages.take(350, due=True) == [Outage(100, 350, "hub", lasting=True)]
    outages.accounted()
    outages.end("hub", 400)
    assert outages.take(400, due=False) == [Outage(350, 400, "hub")]


def test_times_in_which_several_were_away_count_once(outages: Outages) -> None:
    outages.begin("cluster", 100, "")
    outages.begin("hub", 150, "")
    outages.end("cluster", 300)
    assert outages.take(400, due=False) == [
        Outage(100, 300, "cluster"),
        Outage(300, 400, "hub", lasting=True),
    ]
    outages.accounted()
    outages.was("store", 350, 390)
    outages.end("hub", 500)
    assert outages.take(600, due=False) == [Outage(400, 500, "hub")]


def test_who_accounts_is_woken(outages: Outages) -> None:
    woken: list[int] = []
    outages = Outages(lambda: woken.append(1))
    outages.begin("hub", 100, "")
    assert woken == []
    outages.end("hub", 200)
    assert woken == [1]
