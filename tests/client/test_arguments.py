"""Types of the library's arguments: what is accepted, and refusals in words of Python."""

from __future__ import annotations

import pytest

import gpudev


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
