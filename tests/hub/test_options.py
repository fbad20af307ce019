from __future__ import annotations

import pytest

from gpudev_hub.cluster.gpus import SimulatedGpus, local_policy
from gpudev_hub.hub.options import InvalidOptions, options_from_form, profile_list
from gpudev_hub.settings import Settings

POLICY = local_policy(SimulatedGpus(2, 8), Settings.read({}))
PROFILES = profile_list(POLICY)
PAIR = {"gpus": 8, "nodes": 2, "gpu_type": "simulated"}


def test_sizes_that_the_pool_can_hold_and_no_others() -> None:
    shapes = [(profile["gpudev"]["nodes"], profile["gpudev"]["gpus"]) for profile in PROFILES]
    assert shapes == [(1, 1), (1, 2), (1, 4), (1, 8), (2, 8)]
    alone = profile_list(local_policy(SimulatedGpus(1, 8), Settings.read({})))
    assert [profile["gpudev"]["nodes"] for profile in alone] == [1, 1, 1, 1]
    assert [profile["default"] for profile in PROFILES] == [True, False, False, False, False]


def test_hours_end_at_the_limit() -> None:
    choices = PROFILES[0]["profile_options"]["hours"]["choices"]
    assert list(choices) == ["1", "2", "4", "8", "12", "24"]
    assert [key for key, choice in choices.items() if choice["default"]] == ["4"]


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ({"profile": ["simulated-2x8"]}, PAIR),
        (
            {"profile": ["simulated-2x8"], "hours": ["2.5"], "name": [" x "]},
            PAIR | {"hours": 2.5, "name": "x"},
        ),
        (
            {"profile": ["simulated-2x8"], "profile-option-simulated-2x8--hours": ["8"]},
            PAIR | {"hours": 8.0},
        ),
        (
            {
                "profile": ["simulated-2x8"],
                "profile-option-simulated-2x8--hours": ["8"],
                "profile-option-simulated-2x8--hours--unlisted-choice": ["9"],
                "profile-option-simulated-1x1--hours": ["1"],
            },
            PAIR | {"hours": 9.0},
        ),
        # What the profile stands for wins over fields that say otherwise.
        ({"profile": ["simulated-2x8"], "gpus": ["1"], "nodes": ["1"], "gpu_type": ["h200"]}, PAIR),
        ({"hours": ["90m"]}, {"hours": 1.5}),
        ({"gpus": ["4"], "nodes": ["1"], "hours": ["1"]}, {"gpus": 4, "nodes": 1, "hours": 1.0}),
        ({}, {}),
        ({"hours": [""], "name": [" "]}, {}),
    ],
)
def test_a_form_becomes_canonical_options(form: dict[str, list[str]], options: dict[str, object]) -> None:
    nothing = dict.fromkeys(("gpus", "nodes", "hours", "gpu_type", "name", "image"))
    assert options_from_form(form, PROFILES) == nothing | options


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"profile": ["h200-1x8"]}, "no size 'h200-1x8'"),
        ({"profile": ["simulated-1x1"], "hours": ["many"]}, "use a length of time such as"),
        ({"profile": ["simulated-1x1"], "hours": ["nan"]}, "use a length of time such as"),
        ({"profile": ["simulated-1x1"], "hours": ["inf"]}, "use a length of time such as"),
        ({"gpus": ["2.5"]}, "whole number"),
        ({"gpus": ["-1"]}, "whole number"),
        ({"nodes": ["9" * 40]}, "whole number"),
    ],
)
def test_a_form_that_cannot_be_understood_is_a_400(form: dict[str, list[str]], words: str) -> None:
    with pytest.raises(InvalidOptions, match=words) as caught:
        options_from_form(form, PROFILES)
    assert caught.value.status_code == 400
    assert words in caught.value.jupyterhub_message
