"""One table of DynamoDB: read by key or by a range of keys, page by page, and written with conditions."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from botocore.exceptions import ClientError

from gpudev_hub.core.ports import OutcomeUnknown, StoreUnavailable
from gpudev_hub.stores.backend import FIRST, LAST, Action, Backend, Item, Key, Unmet, Write, reading

from .calls import ERRORS, Fault, Patience, fault_of

BY_SUBJECT: Final = "ended-by-subject"
"""The index of ended reservations by owner."""
_KINDS: Final = {str: "S", int: "N", bytes: "B"}
_TYPES: Final = {kind: type_ for type_, kind in _KINDS.items()}
_READ_AT_ONCE: Final = 100
"""Items of a BatchGetItem, by DynamoDB's limit."""


class DynamoTable(Backend):
    """A ``Backend`` in a table, good for several threads."""

    item_bytes = 400_000
    """DynamoDB takes 409,600 bytes, with keys and names of attributes."""
    delays_writes = True

    def __init__(self, table: str, client: Any, patience: Patience) -> None:
        self.name = f"table {table}"
        self._table = table
        self._client = client
        self._patience = patience
        self._stopped = threading.Event()

    def get(self, key: Key) -> Item | None:
        answer = self._call(
            self._client.get_item, TableName=self._table, Key=typed_key(key), ConsistentRead=True
        )
        return plain(answer["Item"]) if "Item" in answer else None

    def get_all(self, keys: Sequence[Key]) -> list[Item]:
        found: list[Item] = []
        left = [typed_key(key) for key in keys]
        while left:
            some, left = left[:_READ_AT_ONCE], left[_READ_AT_ONCE:]
            asked = {self._table: {"Keys": some, "ConsistentRead": True}}
            answer = self._call(self._client.batch_get_item, RequestItems=asked)
            found += [plain(item) for item in answer["Responses"].get(self._table, [])]
            left += answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
        return found

    def query(
        self, pk: str, first: str = FIRST, last: str = LAST, *, page: int | None = None, latest: bool = False
    ) -> Iterator[Item]:
        return self._query(
            "pk = :pk AND sk BETWEEN :first AND :last",
            {":pk": pk, ":first": first, ":last": last},
            page,
            ConsistentRead=True,
            ScanIndexForward=not latest,
        )

    def ended_of(self, subject: str, before: int, page: int) -> Iterator[Item]:
        """Yield ended reservations of an owner, from an index that is usually less than a second behind."""
        return self._query(
            "subject = :subject AND #position < :before",
            {":subject": subject, ":before": before},
            page,
            ScanIndexForward=False,
            IndexName=BY_SUBJECT,
            ExpressionAttributeNames={"#position": "position"},
        )

    def _query(self, condition: str, values: Item, page: int | None, **more: Any) -> Iterator[Item]:
        arguments: Item = {
            "TableName": self._table,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": typed(values),
            **({} if page is None else {"Limit": page}),
            **more,
        }
        while True:
            answer = self._call(self._client.query, **arguments)
            yield from map(plain, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def write(self, writes: Sequence[Write]) -> None:
        """Make these writes in one transaction, which its token makes happen once, or one by itself."""
        requests = [self._request(write) for write in writes]
        if len(writes) == 1:
            alone = {
                Action.PUT: self._client.put_item,
                Action.UPDATE: self._client.update_item,
                Action.DELETE: self._client.delete_item,
            }
            self._call(alone[writes[0].action], write=True, **requests[0])
        else:
            self._call(
                self._client.transact_write_items,
                write=True,
                TransactItems=[{one.action.value: made} for one, made in zip(writes, requests, strict=True)],
                ClientRequestToken=secrets.token_hex(16),
            )

    def stop(self) -> None:
        self._stopped.set()

    def tries(self) -> Iterator[None]:
        """Yield once for each try, with ever longer pauses in between; no more once ``stop`` was called."""
        pause = self._patience.pause
        for left in reversed(range(self._patience.tries)):
            yield
            if not left or self._stopped.wait(random.uniform(0, pause)):  # noqa: S311 (jitter)
                return
            pause *= 2

    def _call(self, call: Callable[..., Item], write: bool = False, **arguments: Any) -> Item:
        """Make a call, which has the same effect however often it is made; ``write``: it changes something.

        Raises ``StoreUnavailable`` (it was not carried out), ``OutcomeUnknown``, or ``Unmet``.
        """
        failure: type[StoreUnavailable] = StoreUnavailable
        last: Exception | None = None
        for _ in self.tries():
            try:
                return call(**arguments)
            except ERRORS as error:
                last = error
                unmet = _unmet(error)
                if unmet is not None:
                    raise unmet from error
                fault = fault_of(error)
                if fault is Fault.UNKNOWN and write:
                    failure = OutcomeUnknown
                if fault is Fault.REFUSED:
                    break
        unsaid = "; it is not known whether the last change was made" if failure is OutcomeUnknown else ""
        raise failure(f"DynamoDB table {self._table}: {last}{unsaid}") from last

    def _request(self, write: Write) -> Item:
        request: Item = {"TableName": self._table}
        if write.action is Action.PUT:
            values = {name: value for name, value in write.values.items() if value is not None}
            request["Item"] = typed_key(write.key) | typed(values)
        else:
            request["Key"] = typed_key(write.key)
        changed = write.values if write.action is Action.UPDATE else {}
        short = {name: f"#{i}" for i, name in enumerate({**changed, **write.where})}
        sets = {name: f":s{short[name][1:]}" for name, value in changed.items() if value is not None}
        removes = [short[name] for name, value in changed.items() if value is None]
        same = {name: f":w{short[name][1:]}" for name, value in write.where.items() if value is not None}
        conditions = [f"{short[name]} = {value}" for name, value in same.items()]
        conditions += [f"attribute_not_exists({short[name]})" for name in write.where if name not in same]
        update = (
            [f"SET {', '.join(f'{short[name]} = {value}' for name, value in sets.items())}"] if sets else []
        )
        update += [f"REMOVE {', '.join(removes)}"] if removes else []
        values = {value: write.values[name] for name, value in sets.items()}
        values |= {value: write.where[name] for name, value in same.items()}
        if update:
            request["UpdateExpression"] = " ".join(update)
        if conditions:
            request["ConditionExpression"] = " AND ".join(conditions)
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        if short:
            request["ExpressionAttributeNames"] = {value: name for name, value in short.items()}
        if values:
            request["ExpressionAttributeValues"] = typed(values)
        return request


def _unmet(error: Exception) -> Unmet | None:
    """Return the condition that failed, if that is what ended the call."""
    if not isinstance(error, ClientError):
        return None
    if error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
        return Unmet(0, plain(error.response.get("Item", {})))
    for i, reason in enumerate(error.response.get("CancellationReasons", [])):
        if reason.get("Code") == "ConditionalCheckFailed":
            return Unmet(i, plain(reason.get("Item", {})))
    return None


def typed(values: Mapping[str, Any]) -> Item:
    """Return plain values as the API takes them."""
    return {name: _typed(value) for name, value in values.items()}


def typed_key(key: Key) -> Item:
    """Return the attributes of a key."""
    return typed({"pk": key[0], "sk": key[1]})


def plain(item: Item) -> Item:
    """Return an item of the API with plain values. Raises ``Unreadable``."""
    with reading((item.get("pk", {}).get("S", ""), item.get("sk", {}).get("S", ""))):
        return {name: _plain(value) for name, value in item.items()}


def _typed(value: Any) -> Item:
    if isinstance(value, list):
        return {"L": [_typed(one) for one in value]}
    return {_KINDS[type(value)]: str(value) if isinstance(value, int) else value}


def _plain(typed: Item) -> Any:
    ((kind, value),) = typed.items()
    if kind not in ("L", *_TYPES):
        raise ValueError(f"no store writes values of the type {kind}")
    return [_plain(one) for one in value] if kind == "L" else _TYPES[kind](value)
