"""Calls of gpudev to AWS, as IAM sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, order=True)
class Call:
    """One kind of call to the service's table."""

    action: str
    """IAM's name of the action: ``dynamodb:Query``."""
    index: str = ""
    """Index of the table; empty: the table itself."""


SERVICE: Final = frozenset(
    {
        Call("dynamodb:GetItem"),
        Call("dynamodb:BatchGetItem"),
        Call("dynamodb:Query"),
        Call("dynamodb:Query", "ended-by-subject"),
        Call("dynamodb:PutItem"),
        Call("dynamodb:UpdateItem"),
        Call("dynamodb:DeleteItem"),
        Call("dynamodb:ConditionCheckItem"),
    }
)
"""Calls of the reservation service to its table; ``tests/infra/test_recorded_calls.py`` records them."""

LOOKS: Final = frozenset({"dynamodb:DescribeContinuousBackups", "ec2:DescribeCapacityReservations"})
"""Other calls of the service to AWS: whether the table can be restored, and when capacity blocks end."""

_IN_TRANSACTIONS: Final = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}


def of_dynamodb(operation: str, parameters: Mapping[str, Any]) -> Iterator[Call]:
    """Yield the actions that IAM checks for one request. For a transaction, it checks each item instead."""
    if operation == "TransactWriteItems":
        for item in parameters["TransactItems"]:
            for kind in item:
                yield Call(f"dynamodb:{_IN_TRANSACTIONS[kind]}")
    else:
        yield Call(f"dynamodb:{operation}", parameters.get("IndexName", ""))
