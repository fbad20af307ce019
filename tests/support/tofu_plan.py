"""Reads a plan in the format of ``tofu show -json``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tofu import Json


@dataclass(frozen=True)
class Planned:
    """A planned resource or data source. Values that only AWS knows are missing in ``values``."""

    address: str
    type: str
    values: dict[str, Any]


def planned(plan: Json, *types: str) -> Iterator[Planned]:
    """Yield the resources and data sources of these types, of every module."""
    for change in plan["resource_changes"]:
        if change["type"] in types:
            yield Planned(change["address"], change["type"], change["change"]["after"] or {})
    yield from _read(plan.get("prior_state", {}).get("values", {}).get("root_module", {}), types)


def _read(module: Json, types: tuple[str, ...]) -> Iterator[Planned]:
    """Yield the data sources that were read before the plan was made."""
    for found in module.get("resources", ()):
        if found["mode"] == "data" and found["type"] in types:
            yield Planned(found["address"], found["type"], found["values"])
    for child in module.get("child_modules", ()):
        yield from _read(child, types)


@dataclass(frozen=True)
class Statement:
    """One statement of an ``aws_iam_policy_document``."""

    address: str
    sid: str | None
    allows: bool
    actions: frozenset[str]
    not_actions: frozenset[str]
    resources: frozenset[str]
    """Those that are known before AWS has made something."""
    conditions: tuple[Json, ...]
    principals: tuple[Json, ...]


def statements(plan: Json) -> Iterator[Statement]:
    """Yield every statement of every policy document."""
    for document in planned(plan, "aws_iam_policy_document"):
        for each in document.values.get("statement") or ():
            yield Statement(
                document.address,
                each.get("sid"),
                each.get("effect") in (None, "", "Allow"),
                frozenset(each.get("actions") or ()),
                frozenset(each.get("not_actions") or ()),
                frozenset(resource for resource in each.get("resources") or () if resource),
                tuple(each.get("condition") or ()),
                tuple(each.get("principals") or ()),
            )
