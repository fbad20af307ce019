"""What the picker's cards say before any script has run."""

from __future__ import annotations

import pytest

from gpudev_hub.core.gate import PickerAnswer, SizeNow
from gpudev_hub.core.model import HOUR, MINUTE, Millis
from gpudev_hub.hub.picker import render_picker

NOON = 20_000 * 24 * HOUR + 12 * HOUR
PROFILE = {
    "slug": "h100-1x8",
    "display_name": "8 GPUs",
    "description": "a whole node",
    "gpudev": {"gpu_type": "h100", "gpus": 8, "nodes": 1},
    "gpudev_pool": "8 × H100",
    "profile_options": {
        "hours": {"choices": {"4": {"default": True}}},
        "image": {"choices": {"default": {}}},
    },
}


@pytest.mark.parametrize(
    ("free", "earliest", "longest", "said"),
    [
        (2, NOON, None, ">2 free now<"),
        (0, NOON + HOUR, None, ">about 13:00 UTC<"),
        (0, NOON + 2 * HOUR, 110 * MINUTE, ">about 14:00 UTC, or now for up to 1\xa0h\xa050\xa0min<"),
        (0, None, None, ">no node is up<"),
    ],
)
def test_a_card_says_what_is_free(
    free: int, earliest: Millis | None, longest: Millis | None, said: str
) -> None:
    answer = PickerAnswer(NOON, (SizeNow("h100", 8, 1, free, earliest, longest),))
    assert said in render_picker([PROFILE], answer, {})
