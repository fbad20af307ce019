"""The list of calls that the roles are tested with is what the service really asks of its table."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name

import gpudev_hub
import gpudev_hub.stores
from aws_calls import LOOKS, SERVICE, Call, of_dynamodb
from dynamodb_local import DynamoDBLocal
from gpudev_hub.stores import checkpoint
from gpudev_hub.stores.dynamodb.store import DynamoStore
from web_site import running


class Recorder:
    """A client of the table that notes each request."""

    def __init__(self, dynamodb: DynamoDBLocal) -> None:
        self.client = dynamodb.client()
        self.calls: set[Call] = set()
        self.operations: set[str] = set()
        self.client.meta.events.register("provide-client-params.dynamodb", self.note)

    def note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        """Called by botocore before each request."""
        self.operations.add(xform_name(model.name))
        self.calls |= set(of_dynamodb(model.name, params))


def operations(*paths: Path, clients: tuple[str, ...]) -> set[str]:
    """Return the methods of AWS's clients that code names, also for pages of answers."""
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    found = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr in clients
    }
    pages = {
        ast.literal_eval(node.args[0])
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get_paginator"
    }
    return (found | pages) - {"get_paginator"}


def test_what_else_the_service_asks_aws_is_on_the_list() -> None:
    """By name alone: nothing here stands in for EC2 and for the state of backups."""
    code = Path(gpudev_hub.__file__).parent
    users = [
        path
        for path in code.rglob("*.py")
        if "stores" not in path.relative_to(code).parts and "boto" in path.read_text()
    ]
    assert {path.name for path in users} == {"cluster_doctor.py", "ec2.py"}
    found = operations(*users, clients=("_client", "table_client"))
    assert found == {xform_name(action.partition(":")[2]) for action in LOOKS}


@pytest.mark.dynamodb
async def test_the_service_calls_what_the_list_says_and_nothing_else(
    dynamodb: DynamoDBLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A checkpoint after each commit; each removes the one before.
    monkeypatch.setattr(checkpoint, "is_due", lambda folded: True)
    recorder, table = Recorder(dynamodb), dynamodb.table()
    async with running(store=DynamoStore(table, recorder.client)) as run, run.client("alices") as alice:
        run.hub.person("alices", "alice")
        asked = {"gpus": 8, "nodes": 2, "hours": 1}
        made = [(await alice.post("api/v1/reservations", json=asked)).json()["id"] for _ in range(2)]
        await run.make_ready(made[0])
        for one in made:
            await alice.delete(f"api/v1/reservations/{one}")
            await run.gone(one)
    # A table with a history.
    async with running(store=DynamoStore(table, recorder.client)) as run, run.client("alices") as alice:
        run.hub.person("alices", "alice")
        for path in ("reservations?ended=true", f"reservations/{made[0]}/history", "usage"):
            answer = await alice.get(f"api/v1/{path}")
            assert answer.status_code == 200, answer.text
    assert recorder.calls == SERVICE
    stores = Path(gpudev_hub.stores.__file__).parent
    assert recorder.operations == operations(*stores.glob("dynamodb/*.py"), clients=("_client",))
