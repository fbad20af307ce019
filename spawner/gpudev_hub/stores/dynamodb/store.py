"""The store in one DynamoDB table (``docs/dynamodb.md``): every commit is one transaction."""

from __future__ import annotations

import logging
from typing import Any

from gpudev_hub.core.commit import Snapshot
from gpudev_hub.failpoints import Failpoint, nothing
from gpudev_hub.stores.items import SCHEMA, Head
from gpudev_hub.stores.log_store import LogStore

from .calls import Patience
from .table import DynamoTable
from .upgrade import remove_layout_1, upgrade

_READERS = 4

log = logging.getLogger(__name__)


class DynamoStore(LogStore):
    """A ``Store`` in the table ``table``, which must exist: a service may not make tables.

    There is no lock: who opens the store last takes it over, and every earlier one can write no more.
    """

    def __init__(
        self, table: str, client: Any, failpoint: Failpoint = nothing, patience: Patience | None = None
    ) -> None:
        """``client``: from ``calls.connect``."""
        super().__init__(DynamoTable(table, client, patience or Patience()), _READERS, failpoint)

    def _converted(self, head: Head) -> Head:
        if head.schema == SCHEMA:
            return head
        log.warning("%s has schema %d: it is converted", self._backend.name, head.schema)
        return self._whole(head, lambda: upgrade(self._backend, head))

    def _open(self) -> Snapshot:
        snapshot = super()._open()
        self._whole(self._ours(), lambda: remove_layout_1(self._backend, self._ours()))
        return snapshot
