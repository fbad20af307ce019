"""Checks of the types of the library's arguments."""

from __future__ import annotations

import operator
from numbers import Real
from typing import SupportsIndex

from gpudev.errors import InvalidRequest


def whole_number(name: str, value: SupportsIndex | None) -> int | None:
    """Return a whole number, which may be of another library. Raises `InvalidRequest` for other types."""
    if value is None:
        return None
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    quoted = isinstance(value, str) and value.isdecimal()
    raise _refused(name, value, "a whole number", f"Without quotes: {name}={value}." if quoted else "")


def text(name: str, value: str | None) -> str | None:
    """Return a string. Raises `InvalidRequest` for other types."""
    if value is None or isinstance(value, str):
        return value
    raise _refused(name, value, "a string")


def check_timeout(seconds: float | None) -> None:
    """Raise `InvalidRequest` for a negative number of seconds, NaN, or another type."""
    given: object = seconds
    if given is not None and not isinstance(given, Real):
        raise _refused("timeout", given, "a number of seconds")
    if seconds is not None and not seconds >= 0:
        raise InvalidRequest(
            f"The timeout is {seconds:g} seconds, which is not possible.",
            hint="Use 0 or more, or leave it out.",
        )


def _refused(name: str, value: object, wanted: str, hint: str = "") -> InvalidRequest:
    kind = type(value).__name__
    return InvalidRequest(f"{name} is {value!r}, of type {kind}; it must be {wanted}.", hint=hint)
