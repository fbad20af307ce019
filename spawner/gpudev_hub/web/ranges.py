"""Messages for numbers outside their range. Those of msgspec name only the bound that was exceeded."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_OUTSIDE = re.compile(r"Expected `(?:int|float)` [<>]=? \S+(?: - at `\$((?:\.\w+|\[\d+\])*)`)?")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_SHOWN = 64
"""Most characters shown of a value."""


def outside(error: msgspec.ValidationError, type: Any, value: Any) -> tuple[str, str] | None:
    """Return the path of the number in ``value`` that is outside its range, and what is wrong.

    The path is empty for ``value`` itself. Returns None for other errors. ``type``: the type of ``value``.
    """
    found = _OUTSIDE.fullmatch(str(error))
    if found is None:
        return None
    where, info = found[1] or "", msgspec.inspect.type_info(type)
    for name, index in _STEP.findall(where):
        info = _inside(info, name)
        value = value[name] if name else value[int(index)]
    return where.removeprefix("."), f"{str(value)[:_SHOWN]}; it must be {_range(_number(info))}"


def _inside(info: msgspec.inspect.Type, name: str) -> msgspec.inspect.Type:
    """Return the type of a field, or of the items if there is no name."""
    for one in _choices(info):
        if name and isinstance(one, msgspec.inspect.StructType):
            return next(field.type for field in one.fields if field.encode_name == name)
        if not name and isinstance(one, msgspec.inspect.ListType):
            return one.item_type
    raise AssertionError(f"{info} has no {name or 'items'}")


def _number(info: msgspec.inspect.Type) -> msgspec.inspect.IntType | msgspec.inspect.FloatType:
    return next(
        one for one in _choices(info) if isinstance(one, msgspec.inspect.IntType | msgspec.inspect.FloatType)
    )


def _choices(info: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    if isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    return info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)


def _range(info: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    kind = "a whole number" if isinstance(info, msgspec.inspect.IntType) else "a number"
    if info.ge is not None and info.le is not None:
        return f"{kind} from {info.ge:.12g} to {info.le:.12g}"
    bounds = {"greater than": info.gt, "at least": info.ge, "less than": info.lt, "at most": info.le}
    words = [f"{word} {bound:.12g}" for word, bound in bounds.items() if bound is not None]
    return f"{kind}{' of' if words[0].startswith('at') else ''} {' and '.join(words)}"
