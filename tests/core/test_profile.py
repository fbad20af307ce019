"""The profile against a plain list of loads per instant."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gpudev_hub.core.planning.resource_profile import FOREVER, Profile

SPAN = 24
intervals = st.lists(st.tuples(st.integers(0, SPAN), st.integers(0, SPAN), st.integers(1, 4)), max_size=12)
instants = st.integers(0, SPAN)
thorough = settings(max_examples=300)


def build(taken: list[tuple[int, int, int]]) -> tuple[Profile, list[int]]:
    """The profile, and the same as a list of loads; after SPAN nothing is taken."""
    profile, loads = Profile(), [0] * (3 * SPAN)
    for start, end, gpus in taken:
        profile.add(start, end, gpus)
        for at in range(start, end):
            loads[at] += gpus
    return profile, loads


def steps_of(profile: Profile, since: int) -> list[tuple[int, int]]:
    """(instant, GPUs taken from it on) since `since`; profiles that agree from then on give the same."""
    later = [step for step in zip(profile.times, profile.loads, strict=True) if step[0] > since]
    return [(since, profile.at(since)), *later]


@thorough
@given(intervals, instants)
def test_loads_are_those_of_every_instant(taken: list[tuple[int, int, int]], since: int) -> None:
    profile, loads = build(taken)
    assert [profile.at(at) for at in range(SPAN)] == loads[:SPAN]
    assert profile.times == sorted(set(profile.times))
    assert all(a != b for a, b in zip(profile.loads, profile.loads[1:], strict=False))
    steps = steps_of(profile, since)
    assert steps[0] == (since, loads[since])
    assert all(loads[at] == load for at, load in steps)


@thorough
@given(intervals, instants, instants, st.integers(0, 8))
def test_peak_and_first_and_last_above(
    taken: list[tuple[int, int, int]], start: int, end: int, most: int
) -> None:
    profile, loads = build(taken)
    above = [at for at in range(start, end) if loads[at] > most]
    assert profile.peak(start, end) == max(loads[start:end], default=0)
    assert profile.first_above(start, end, most) == (above[0] if above else None)
    assert profile.last_above(start, end, most) == (above[-1] + 1 if above else None)


@thorough
@given(intervals, instants, st.integers(1, SPAN), st.integers(0, 8), instants)
def test_earliest(taken: list[tuple[int, int, int]], start: int, length: int, most: int, stop: int) -> None:
    profile, loads = build(taken)
    expected = next(t for t in range(start, 2 * SPAN) if all(x <= most for x in loads[t : t + length]))
    assert profile.earliest(start, length, most, FOREVER) == expected
    found = profile.earliest(start, length, most, max(start, stop))
    if expected <= max(start, stop):
        assert found == expected
    else:
        assert max(start, stop) < found <= expected


@thorough
@given(intervals, instants)
def test_idle_from(taken: list[tuple[int, int, int]], start: int) -> None:
    profile, loads = build(taken)
    assert profile.idle_from(start) == next(t for t in range(start, 2 * SPAN) if loads[t] == 0)


@thorough
@given(intervals, st.data())
def test_what_is_given_back_leaves_no_trace_even_after_trimming(
    taken: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    profile, _ = build(taken)
    now = data.draw(instants)
    trimmed, _ = build(taken)
    trimmed.trim(now)
    assert steps_of(trimmed, now) == steps_of(profile, now)
    for start, end, gpus in data.draw(st.permutations(taken)):
        trimmed.add(start, end, -gpus)
    assert steps_of(trimmed, now) == [(now, 0)]


def test_an_unknown_end_lasts_for_ever() -> None:
    profile = Profile()
    profile.add(5, FOREVER, 3)
    assert profile.at(10**15) == 3
    assert profile.earliest(0, 6, 2, FOREVER - 1) == FOREVER
    assert profile.earliest(0, 5, 2, FOREVER - 1) == 0
    assert profile.idle_from(7) == FOREVER
    profile.add(5, FOREVER, -3)
    assert steps_of(profile, 0) == [(0, 0)]


def test_ends_are_half_open() -> None:
    profile = Profile()
    profile.add(0, 10, 8)
    assert profile.earliest(0, 5, 0, FOREVER) == 10
    profile.add(10, 20, 8)
    assert steps_of(profile, 0) == [(0, 8), (20, 0)]


@given(taken=intervals)
@thorough
def test_a_profile_made_in_one_sweep_is_the_one_that_adding_gives(taken: list[tuple[int, int, int]]) -> None:
    profile, _ = build(taken)
    profile.add(SPAN, FOREVER, 2)
    swept = Profile.of([*taken, (SPAN, FOREVER, 2)])
    assert (swept.times, swept.loads) == (profile.times, profile.loads)
