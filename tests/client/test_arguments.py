"""Arguments of the library: what is accepted, and refusals in words of Python."""

from __future__ import annotations

import json

import pytest

import gpudev
from gpudev.cli.app import main
from live_service import LiveService


class Scalar:
    """A whole number of another library, such as NumPy."""

    def __index__(self) -> int:
        return 2


@pytest.mark.parametrize("gpus", [2, Scalar()])
def test_whole_numbers_of_other_types_are_accepted(client: gpudev.Client, gpus: int) -> None:
    assert client.reserve(gpus, wait=False).gpus == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gpus": "2"}, "gpus is '2', of type str; it must be a whole number.\nWithout quotes: gpus=2."),
        ({"gpus": "two"}, "gpus is 'two', of type str; it must be a whole number."),
        ({"gpus": 2.0}, "gpus is 2.0, of type float; it must be a whole number."),
        ({"nodes": True}, "nodes is True, of type bool; it must be a whole number."),
        ({"nodes": [1]}, "nodes is [1], of type list; it must be a whole number."),
        ({"name": 5}, "name is 5, of type int; it must be a string."),
        ({"gpu_type": 5}, "gpu_type is 5, of type int; it must be a string."),
        ({"image": b"x"}, "image is b'x', of type bytes; it must be a string."),
        ({"timeout": "5"}, "timeout is '5', of type str; it must be a number of seconds."),
        ({"hours": True}, "True is not a length of time."),
    ],
)
def test_arguments_of_other_types_are_named(
    client: gpudev.Client, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(gpudev.InvalidRequest) as caught:
        client.reserve(wait=False, **arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(words)
    assert client.reservations() == []


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"gpus": 3}, "Use gpus=4."),
        ({"gpus": 4, "nodes": 2}, "Use gpus=8, nodes=2, or leave gpus out."),
        ({"nodes": 0}, "Leave nodes out to get one node."),
        ({"hours": 0}, "Use a positive number, for example 4 or 0.5."),
        ({"hours": 0.001}, "Use hours=0.02 or more."),
        ({"gpu_type": "x"}, "Available: h100. Leave gpu_type out to get h100."),
        ({"image": "x"}, "Available: default. Leave image out to get default."),
    ],
)
def test_hints_name_arguments(client: gpudev.Client, arguments: dict[str, object], hint: str) -> None:
    with pytest.raises(gpudev.InvalidRequest) as caught:
        client.reserve(wait=False, **arguments)  # type: ignore[arg-type]
    assert caught.value.hint == hint


def test_hints_that_are_commands_stay(client: gpudev.Client) -> None:
    client.reserve(1, name="demo", wait=False)
    with pytest.raises(gpudev.NameTaken, match="release that reservation with `gpu-dev cancel demo`"):
        client.reserve(1, name="demo", wait=False)


def test_hints_of_the_command_line_name_options(
    configured: LiveService, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["reserve", "--gpus", "3", "--json"]) == 2
    out, err = capfd.readouterr()
    assert json.loads(out)["error"]["hint"] == "Use --gpus 4."
    assert "Use --gpus 4." in err
