"""Numbers outside their range are refused with the field, the value and what is allowed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from web_site import Running

OPERATE = ("custom:gpudev:reserve", "custom:gpudev:operate")
SET = "The body is not valid for set_limits: "


def message(answer: httpx.Response) -> str:
    assert answer.status_code == 400
    return str(answer.json()["error"]["message"])


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (
            {"hours_per_request": 0},
            "hours_per_request is 0; it must be a number greater than 0 and at most 8784.",
        ),
        (
            {"hours_with_extensions": -2.5},
            "hours_with_extensions is -2.5; it must be a number greater than 0",
        ),
        ({"running_gpus": -1}, "running_gpus is -1; it must be a whole number from 0 to 1000000."),
        (
            {"gpu_hours_week": 10**18},
            f"gpu_hours_week is {10**18}; it must be a whole number from 0 to 1000000.",
        ),
        ({"running_gpus": "4"}, "Expected `int | null`, got `str` - at `$.limits.running_gpus`."),
    ],
)
async def test_numbers_in_a_body(run: Running, limits: dict[str, Any], words: str) -> None:
    run.hub.person("operators", "olga", scopes=OPERATE)
    async with run.client("operators") as olga:
        said = message(await olga.put("api/v1/limits", json={"scope": "default", "limits": limits}))
        assert said.startswith(SET)
        assert words in said
        assert "$.limits" in words or said.startswith(f"{SET}limits.")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("wait=999", "wait is 999; it must be a number from 0 to 60."),
        ("wait=nan", "wait is nan; it must be a number from 0 to 60."),
        ("version=-1", "version is -1; it must be a whole number of at least 0."),
        ("version=" + "9" * 400, None),
        ("version=x", "version is 'x': Expected `int`, got `str`."),
    ],
)
async def test_numbers_in_a_query(run: Running, query: str, words: str | None) -> None:
    async with run.client("alices") as alice:
        made = (await alice.post("api/v1/reservations", json={"gpus": 1})).json()
        answer = await alice.get(f"api/v1/reservations/{made['id']}?{query}")
        if words is None:
            assert answer.status_code == 200
        else:
            assert message(answer) == f"The query parameter {words}"


async def test_a_number_of_gpus_that_no_pool_has_is_refused_by_the_pool(run: Running) -> None:
    async with run.client("alices") as alice:
        answer = await alice.post("api/v1/reservations", json={"gpus": 5000})
        assert answer.json()["error"]["code"] == "invalid_shape"
        assert message(answer).startswith("5000 GPUs cannot be reserved: a node of pool simulated has")


async def test_a_body_that_breaks_off_is_no_json(run: Running) -> None:
    """Also after a number outside its range."""
    async with run.client("alices") as alice:
        answer = await alice.post(
            "api/v1/reservations",
            content=b'{"gpus": 10000000, "no',
            headers={"Content-Type": "application/json"},
        )
        assert message(answer).startswith("The body is not JSON: ")
