"""Which limits hold for whom, what counts towards them, and what a changed limit does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from coreworld import HOUR, MINUTE, NOON, TEARDOWN, Driver, owner, policy, pool
from gpudev_hub.core.access_model import Access, LimitRule, Person, Spending
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.decisions.recovery import rebuild
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import ClearLimits, Extend, SetLimits
from gpudev_hub.core.limits.budgets import charged, use_of
from gpudev_hub.core.limits.periods import Period
from gpudev_hub.core.limits.rules import Rules, Source, effective
from gpudev_hub.core.model import SECOND, Millis, Reservation, State
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.views.limits import exceeded, in_words, standings

TWO_POOLS = policy(
    pools=(pool("h100"), pool("t4", gpus=4)),
    allowances=Allowances(running_gpus=8, gpu_hours_week=100),
    personal={"local:eve": LimitRule("person:local:eve", None, "policy file", 0, running_gpus=3)},
)


def rules(*given: tuple[str, str | None, dict[str, int]]) -> Rules:
    made = [LimitRule(scope, where, "local:root", 0, **values) for scope, where, values in given]  # type: ignore[arg-type]
    return {(rule.scope, rule.pool): rule for rule in made}


def at(text: str) -> Millis:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


RULES = rules(
    ("default", None, {"running_gpus": 10}),
    ("default", "t4", {"running_gpus": 2}),
    ("team:o/big", None, {"running_gpus": 32}),
    ("team:o/small", None, {"running_gpus": 4}),
    ("team:o/small", "t4", {"running_gpus": 40}),
    ("person:local:ann", None, {"running_gpus": 6}),
    ("person:local:eve", "t4", {"running_gpus": 1}),
)


@pytest.mark.parametrize(
    ("given", "teams", "who", "where", "value", "source"),
    [
        ({}, (), "bob", "h100", 8, Source("default")),
        (RULES, (), "bob", "h100", 10, Source("default")),
        (RULES, (), "bob", "t4", 2, Source("default", "t4")),
        (RULES, ("o/small",), "bob", "h100", 4, Source("team:o/small")),
        (RULES, ("o/small",), "bob", "t4", 40, Source("team:o/small", "t4")),
        (RULES, ("o/small", "o/big"), "bob", "h100", 32, Source("team:o/big")),
        (RULES, ("o/small", "o/big"), "bob", "t4", 40, Source("team:o/small", "t4")),
        (RULES, ("o/unknown",), "bob", "h100", 10, Source("default")),
        (RULES, ("o/big",), "ann", "h100", 6, Source("person:local:ann")),
        (RULES, ("o/big",), "ann", "t4", 6, Source("person:local:ann")),
        ({}, (), "eve", "h100", 3, Source("person:local:eve")),
        (RULES, ("o/big",), "eve", "h100", 3, Source("person:local:eve")),
        (RULES, ("o/big",), "eve", "t4", 1, Source("person:local:eve", "t4")),
    ],
)
def test_a_person_comes_before_teams_and_those_before_the_default(
    given: Rules, teams: tuple[str, ...], who: str, where: str, value: int, source: Source
) -> None:
    found = effective(TWO_POOLS, given, teams, f"local:{who}", where)
    assert found.values.running_gpus == value
    assert found.sources["running_gpus"] == source
    assert found.values.gpu_hours_week == 100, "what no rule says stays"


@pytest.mark.parametrize(
    ("when", "week", "next_week", "month", "next_month"),
    [
        ("2026-11-29T23:59:59", "2026-11-23", "2026-11-30", "2026-11-01", "2026-12-01"),
        ("2026-11-30T00:00:00", "2026-11-30", "2026-12-07", "2026-11-01", "2026-12-01"),
        ("2026-12-31T23:00:00", "2026-12-28", "2027-01-04", "2026-12-01", "2027-01-01"),
        ("2028-02-29T12:00:00", "2028-02-28", "2028-03-06", "2028-02-01", "2028-03-01"),
        # Clocks in Europe and America change in these weeks; those in UTC do not.
        ("2026-10-25T00:30:00", "2026-10-19", "2026-10-26", "2026-10-01", "2026-11-01"),
        ("2026-11-01T07:00:00", "2026-10-26", "2026-11-02", "2026-11-01", "2026-12-01"),
    ],
)
def test_weeks_begin_on_monday_and_months_on_the_first_in_utc(
    when: str, week: str, next_week: str, month: str, next_month: str
) -> None:
    now = at(when)
    assert (Period.WEEK.start(now), Period.WEEK.end(now)) == (at(week), at(next_week))
    assert (Period.MONTH.start(now), Period.MONTH.end(now)) == (at(month), at(next_month))


def held(ready: Millis, end: Millis) -> Reservation:
    d = Driver()
    record = d.submit("ann", gpus=2)
    return replace(record, ready_at=ready, hard_end=end + record.teardown, state=State.ENDED)


@pytest.mark.parametrize(
    ("ready", "end", "now", "week", "month"),
    [
        ("2026-11-24T10:00:00", "2026-11-24T12:30:00", "2026-11-24T12:30:00", 5.0, 5.0),
        # Across the turn of a week, of a month, and of both; the server went a while after its end.
        ("2026-11-22T22:00:00", "2026-11-23T01:00:00", "2026-11-23T01:00:30", 2.0, 6.0),
        ("2026-09-30T22:00:00", "2026-10-01T01:00:00", "2026-10-01T02:00:00", 6.0, 2.0),
        ("2026-11-29T20:00:00", "2026-11-29T23:59:00", "2026-11-30T00:00:10", 0.0, 7 + 58 / 60),
        ("2027-01-31T22:00:00", "2027-02-01T01:00:00", "2027-02-01T01:00:00", 2.0, 2.0),
    ],
)
def test_hold_time_is_charged_to_the_week_and_month_in_which_it_was_held(
    ready: str, end: str, now: str, week: float, month: float
) -> None:
    found = charged(None, held(at(ready), at(end)), at(now))
    assert found is not None
    assert (found.week_gpu_ms / HOUR, found.month_gpu_ms / HOUR) == pytest.approx((week, month))
    before = Spending("local:ann", "h100", found.week, 7, found.month, 11)
    again = charged(before, held(at(ready), at(end)), at(now))
    assert again is not None
    assert (again.week_gpu_ms, again.month_gpu_ms) == (found.week_gpu_ms + 7, found.month_gpu_ms + 11)
    stale = Spending("local:ann", "h100", found.week - 1, 7, found.month - 1, 11)
    assert charged(stale, held(at(ready), at(end)), at(now)) == found, "the last week does not count"


def refused(d: Driver, *args: object, **fields: object) -> Refused:
    with pytest.raises(Refused) as caught:
        d.submit(*args, **fields)  # type: ignore[arg-type]
    assert caught.value.code is Code.QUOTA_EXCEEDED
    return caught.value


def test_a_budget_counts_held_and_reserved_time_and_the_new_request() -> None:
    d = Driver(policy(allowances=Allowances(gpu_hours_week=40)))
    first = d.submit("ann", gpus=4, hours=4)
    d.ready(first.id)
    d.go(d.now + 2 * HOUR)
    d.end(first.id)
    d.see(first.id)
    d.submit("ann", gpus=8, hours=3)  # 8 + 24 of 40
    why = refused(d, "ann", gpus=4, hours=2.5)
    assert why.message == (
        "You asked for 10 GPU-hours. Of your 40 GPU-hours for this week, 8 are used and 24 are reserved: "
        "8 are left."
    )
    assert why.hint == (
        "Ask for 4 GPUs for at most 2 h, release a reservation, or wait until 30 Nov 00:00 UTC, when the "
        "budget renews."
    )
    d.submit("ann", gpus=4, hours=2)
    assert "0 are left" in refused(d, "ann", gpus=1, hours=0.1).message
    d.submit("bob", gpus=8, hours=4)


def test_failed_starts_and_cancelled_requests_cost_nothing() -> None:
    d = Driver(policy(allowances=Allowances(gpu_hours_month=8)))
    first = d.submit("ann", gpus=8, hours=1)
    d.go(d.now + 10 * MINUTE)
    d.end(first.id)
    d.see(first.id)
    assert not d.world.spending
    second = d.submit("ann", gpus=8, hours=1)
    d.ready(second.id)
    d.go(d.now + HOUR + TEARDOWN + 30 * SECOND)
    d.see(second.id)
    spending = d.world.spending["local:ann", "h100"]
    assert spending.month_gpu_ms == 8 * HOUR, "an end that took long costs no more than the hold time"


def test_a_budget_renews_and_what_runs_across_counts_in_the_new_week() -> None:
    d = Driver(policy(allowances=Allowances(gpu_hours_week=16)))
    d.now = at("2026-11-29T23:00:00")
    first = d.submit("ann", gpus=8, hours=2)
    d.ready(first.id)
    refused(d, "ann", gpus=1, hours=1)
    d.go(at("2026-11-30T00:00:00"))
    live = d.world.of_owner("local:ann")
    use = use_of(d.world, "local:ann", ("h100",), live, Period.WEEK, d.now)
    assert (use.held, use.reserved) == (0, 8 * HOUR)
    assert "8 are left" in refused(d, "ann", gpus=1, hours=9).message
    d.submit("ann", gpus=1, hours=8)


@pytest.mark.parametrize("name", ["gpu_hours", "gpu_hours_week", "gpu_hours_month"])
def test_the_longest_extension_within_a_budget_is_granted(name: str) -> None:
    d = Driver(policy(allowances=Allowances(**{name: 21})))
    first = d.submit("ann", gpus=4, hours=3)
    d.ready(first.id)
    other = d.submit("ann", gpus=2, hours=1.5)
    d.ready(other.id)
    d.go(d.now + 40 * MINUTE)
    with pytest.raises(Refused) as caught:
        d.extend(first.id, 2)
    assert caught.value.code is Code.EXTENSION_REFUSED
    assert "21 GPU-hours" in caught.value.message
    longest = caught.value.longest_hours
    assert longest == 1.5
    assert d.extend(first.id, longest).extended == 1.5 * HOUR
    with pytest.raises(Refused, match="No extension is possible now"):
        d.extend(first.id, 0.25)


def test_a_limit_of_one_pool_counts_that_pool_alone() -> None:
    d = Driver(TWO_POOLS)
    d.do(SetLimits("default", "t4", {"queued_requests": 1, "gpu_hours_week": 4}, "local:root"))
    found = {(s.name, s.pool): s for s in standings(TWO_POOLS, d.world, "local:ann", d.now)}
    assert found["gpu_hours_week", "t4"].limit == 4 * HOUR
    assert found["gpu_hours_week", None].limit == 100 * HOUR
    assert found["running_gpus", "t4"].limit == found["running_gpus", "h100"].limit == 8
    d.submit("ann", gpus=8, hours=4)
    found = {(s.name, s.pool): s for s in standings(TWO_POOLS, d.world, "local:ann", d.now)}
    assert found["gpu_hours_week", "t4"].left == 4 * HOUR
    assert found["gpu_hours_week", None].left == 68 * HOUR
    assert in_words(found["gpu_hours_week", None]) == "GPU-hours this week: 32 of 100, 68 left"
    assert in_words(found["running_gpus", "h100"]) == "GPUs at once (h100): 8 of 8, 0 left"


def test_a_raised_limit_starts_who_waits_and_a_lowered_one_moves_nobody() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=4)))
    first = d.submit("ann", gpus=4, hours=4)
    second = d.submit("ann", gpus=4, hours=1)
    third = d.submit("ann", gpus=4, hours=1)
    assert second.place is not None
    assert second.place.start > d.now
    d.do(SetLimits("default", None, {"running_gpus": 8}, "local:root", "quiet week"))
    d.settle()
    assert d.get(second.id).state is State.STARTING
    waiting = d.get(third.id)
    assert waiting.cap == 8
    assert waiting.place is not None
    assert waiting.place.start < first.place.end if first.place else True
    d.do(SetLimits("person:local:ann", None, {"running_gpus": 1}, "local:root"))
    d.settle()
    assert d.get(third.id).place == waiting.place, "a lowered limit is for what is asked for from now on"
    assert d.get(second.id).state is State.STARTING, "a lowered limit ends nothing"
    assert "your limit is 1 GPU at once" in refused(d, "ann", gpus=2, hours=1).message
    told = exceeded(d.policy, d.world, ["running_gpus"], {"local:ann": "ann"}, d.now)
    assert told == ["ann holds 8 GPUs in h100; the limit is now 1."]


def test_a_raised_limit_moves_what_had_nothing_earlier_before() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=4)))
    d.submit("ann", gpus=4, hours=4)
    second = d.submit("ann", gpus=4, hours=2)
    third = d.submit("ann", gpus=4, hours=2)
    other = d.submit("bob", gpus=4, hours=1)
    d.end(other.id)
    d.see(other.id)
    d.settle()
    assert d.get(second.id).place == second.place, "all were looked at for what bob gave back"
    d.do(SetLimits("person:local:ann", None, {"running_gpus": 8}, "local:root"))
    d.settle()
    started, waiting = d.get(second.id), d.get(third.id)
    assert started.state is State.STARTING
    assert waiting.place is not None
    assert waiting.place.start == started.hard_end, "the cap of an older request delays it no longer"


def test_a_raised_limit_wakes_what_waits_also_after_a_restart_in_between() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=4)))
    d.submit("ann", gpus=4, hours=4)
    second = d.submit("ann", gpus=4, hours=1)
    rule = LimitRule("default", None, "local:root", d.now, running_gpus=8)
    d.folded.snapshot.limits["default", None] = rule
    d.world = rebuild(d.policy, d.folded.snapshot, d.now)
    assert not d.world.settled()
    d.settle()
    assert d.get(second.id).state is State.STARTING


def test_rules_are_kept_with_who_set_them_and_go_when_they_say_nothing() -> None:
    d = Driver()
    d.do(SetLimits("default", None, {"running_gpus": 8}, "local:root", "first"))
    d.do(SetLimits("default", None, {"gpu_hours_week": 50}, "local:olga", "second"))
    rule = d.world.limits["default", None]
    assert (rule.running_gpus, rule.gpu_hours_week) == (8, 50)
    assert (rule.set_by, rule.set_at, rule.reason) == ("local:olga", NOON, "second")
    before = len(d.folded.history)
    d.do(SetLimits("default", None, {"gpu_hours_week": 50}, "local:root", "again"))
    assert len(d.folded.history) == before, "the same limits again are no change"
    d.restart()
    assert d.world.limits == {("default", None): rule}
    d.do(ClearLimits("default", None, "local:root", ("running_gpus",)))
    assert d.world.limits["default", None].running_gpus is None
    d.do(ClearLimits("default", None, "local:root", reason="done"))
    assert not d.world.limits
    changes = [c for _, _, c in d.folded.history if isinstance(c.record, LimitRule)]
    assert [(c.cause, c.detail, c.actor, c.gone) for c in changes] == [
        ("limits_set", "first", "local:root", False),
        ("limits_set", "second", "local:olga", False),
        ("limits_cleared", "", "local:root", False),
        ("limits_cleared", "done", "local:root", True),
    ]


@pytest.mark.parametrize(
    ("scope", "where", "words"),
    [
        ("default", "a100", "no GPU type 'a100'"),
        ("team:o/none", None, "no team 'o/none'"),
        ("person:github:7", None, "subject 'github:7'"),
        ("person:", None, "subject ''"),
        ("everyone", None, "cannot be set for 'everyone'"),
    ],
)
def test_unknown_scopes_are_refused(scope: str, where: str | None, words: str) -> None:
    d = Driver(policy(teams=("o/big",)))
    for event in (
        SetLimits(scope, where, {"running_gpus": 1}, "local:root"),
        ClearLimits(scope, where, "local:root"),
    ):
        with pytest.raises(Refused, match=words):
            d.do(event)
    d.do(SetLimits("team:o/big", "h100", {"running_gpus": 1}, "local:root"))
    with pytest.raises(Refused, match="No limit was given"):
        d.do(SetLimits("default", None, {}, "local:root"))


def test_a_team_has_its_limits_in_the_plan() -> None:
    d = Driver()
    d.do(SetLimits("default", None, {"running_gpus": 4}, "local:root"))
    ann = Person("local:ann", "ann", "ann", ("o/big",), False, Access.ALLOWED, "", 0, 0)
    d.world.put(ann, Cause.ACCESS_GRANTED)
    d.do(SetLimits("team:o/big", None, {"running_gpus": 16}, "local:root"))
    assert d.submit("ann", gpus=8, hours=1).cap == 16
    assert "your limit is 4 GPUs at once" in refused(d, "bob", gpus=8, hours=1).message


def test_a_repeated_extension_within_a_full_budget_is_not_counted_twice() -> None:
    d = Driver(policy(allowances=Allowances(gpu_hours_week=8)))
    first = d.submit("ann", gpus=4, hours=1)
    d.ready(first.id)
    event = Extend(first.id, owner("ann").subject, HOUR, "request-1")
    for _ in range(2):
        after = d.do(event).reservation
        assert after is not None
        assert after.extended == HOUR
