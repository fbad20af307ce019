"""A DynamoDB that can be made to fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamodb_local import DynamoDBLocal
from dynamodb_proxy import FaultProxy


@pytest.fixture
def proxy(dynamodb: DynamoDBLocal) -> Iterator[FaultProxy]:
    proxy = FaultProxy(dynamodb.url)
    yield proxy
    proxy.close()
