"""Slots: aligned blocks where there are any, else the fewest blocks spoilt; judged by trying every choice."""

from itertools import combinations

import pytest

from gpudev_hub.core.planning.slots import choose_slots

FREE_SETS = [frozenset(slot for slot in range(8) if mask >> slot & 1) for mask in range(256)]


def aligned_blocks(free: frozenset[int]) -> list[frozenset[int]]:
    """All wholly free aligned blocks of 2, 4 and 8."""
    blocks = [frozenset(range(first, first + size)) for size in (2, 4, 8) for first in range(0, 8, size)]
    return [block for block in blocks if block <= free]


def spoilt(free: frozenset[int], taken: frozenset[int]) -> int:
    return sum(1 for block in aligned_blocks(free) if block & taken)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_aligned_if_one_is_free_else_the_fewest_spoilt(count: int) -> None:
    for free in FREE_SETS:
        if len(free) < count:
            continue
        chosen = choose_slots(free, count, 8)
        assert list(chosen) == sorted(set(chosen))
        assert len(chosen) == count
        taken = frozenset(chosen)
        assert taken <= free
        aligned = [block for block in aligned_blocks(free) if len(block) == count]
        choices = aligned or [frozenset(choice) for choice in combinations(free, count)]
        if count > 1 and aligned:
            assert taken in aligned
        assert spoilt(free, taken) == min(spoilt(free, choice) for choice in choices), (free, chosen)


@pytest.mark.parametrize(
    ("free", "count", "expected"),
    [
        (range(8), 2, (0, 1)),
        ([0, 1, 2, 3, 6, 7], 2, (6, 7)),
        ([1, 2, 3, 4, 5, 6, 7], 1, (1,)),
        ([0, 1, 2, 3, 5, 6, 7], 4, (0, 1, 2, 3)),
        ([1, 2, 4, 6, 7], 4, (1, 2, 4, 6)),
        (range(4), 4, (0, 1, 2, 3)),
    ],
)
def test_examples(free: list[int], count: int, expected: tuple[int, ...]) -> None:
    assert choose_slots(free, count, max(8, len(free))) == expected


def test_slots_that_the_node_does_not_have_are_not_taken() -> None:
    assert choose_slots([-1, 0, 1], 2, 2) == (0, 1)
    for free in ([-1, 0], [0, 2]):
        with pytest.raises(ValueError, match="2 slots wanted, 1 of 2 free"):
            choose_slots(free, 2, 2)


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_is_an_error(count: int) -> None:
    with pytest.raises(ValueError, match="slots wanted"):
        choose_slots([0, 1], count, 8)
