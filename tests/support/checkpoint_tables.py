"""Tables with checkpoints, and tables of the version before checkpoints."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynamodb_local import DynamoDBLocal
from gpudev_hub.core.model import Outcome, Reservation, State
from gpudev_hub.core.ports import Store
from gpudev_hub.stores.log_store import LogStore

LAYOUT_1 = Path(__file__).parent / "layout_1.json"
"""Nine commits in a table of the version before checkpoints: a0 and a1 have ended, a0 still holds slots."""


def save(store: LogStore, *, fails: bool = False) -> None:
    """Write a checkpoint now. A service that cannot write one only logs that, so it is checked here."""
    store._writer.submit(store._save).result()
    head = store._ours()
    assert (head.checkpoint_n == head.n == store._folded.saved) is not fails


def ended(record: Reservation, at: int) -> Reservation:
    return replace(record, state=State.ENDED, outcome=Outcome.RELEASED, ended_at=at)


async def all_ended(store: Store, subject: str | None) -> list[str]:
    found: list[str] = []
    before = None
    while True:
        page, before = await store.ended(subject, before, 2)
        found += [record.id for record in page]
        if before is None:
            return found


def item_of(client: Any, table: str, pk: str, sk: str) -> dict[str, Any] | None:
    key = {"pk": {"S": pk}, "sk": {"S": sk}}
    found: dict[str, Any] | None = client.get_item(TableName=table, Key=key).get("Item")
    return found


def names(client: Any, table: str, pk: str) -> list[str]:
    query = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": pk}}}
    return [item["sk"]["S"] for item in client.query(TableName=table, **query)["Items"]]


def layout_1(dynamodb: DynamoDBLocal, client: Any) -> tuple[str, list[dict[str, Any]]]:
    """Create a table of the version before checkpoints; return its items, too."""
    table = dynamodb.table()
    found = json.loads(LAYOUT_1.read_text())
    for item in found:
        for value in item.values():
            if "B" in value:
                value["B"] = base64.b64decode(value["B"])
        client.put_item(TableName=table, Item=item)
    return table, found
