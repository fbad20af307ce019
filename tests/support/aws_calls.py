"""Calls to AWS that our code makes, as IAM sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, order=True)
class Call:
    """One kind of call to the service's table."""

    action: str
    """As IAM names it: ``dynamodb:Query``."""
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
"""What the reservation service asks of its table: ``tests/infra/test_recorded_calls.py`` records it."""

LOOKS: Final = frozenset({"dynamodb:DescribeContinuousBackups", "ec2:DescribeCapacityReservations"})
"""What else the service asks AWS: whether the table can be restored, and when capacity blocks end."""

_IN_TRANSACTIONS: Final = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}


def of_dynamodb(operation: str, parameters: Mapping[str, Any]) -> Iterator[Call]:
    """Yield what IAM is asked about one request. A transaction is no action: each of its items is."""
    if operation == "TransactWriteItems":
        for item in parameters["TransactItems"]:
            for kind in item:
                yield Call(f"dynamodb:{_IN_TRANSACTIONS[kind]}")
    else:
        yield Call(f"dynamodb:{operation}", parameters.get("IndexName", ""))
