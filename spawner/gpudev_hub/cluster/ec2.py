"""Asks EC2 regularly when capacity blocks end: a block that is extended keeps its id.

Only blocks that labels of nodes name are looked up; without any, EC2 is never called. While EC2 does not
answer, the last known end of a block stays in use. Calls run in a thread, and nothing waits for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from gpudev_hub.clock import Clock
from gpudev_hub.core.model import MINUTE, Millis

from .capacity import UNKNOWN_ID, BlockSight, sights_of, trouble_of

PERIOD: Final[Millis] = 5 * MINUTE
AFTER_TROUBLE: Final[Millis] = 1 * MINUTE
"""Milliseconds until the next request if an end could not be read."""
ANSWER_S: Final = 4.0
"""Timeout of one answer, in seconds."""
TRIES: Final = 3
"""Attempts by botocore, with pauses in between. A service that stops waits for them, up to about 15 s."""

log = logging.getLogger(__name__)


def connect(region: str, endpoint_url: str | None, *, timeout: float = ANSWER_S, tries: int = TRIES) -> Any:
    """Return a client of EC2 with credentials from boto3's chain. Takes a second: EC2's API is large."""
    config = Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        retries={"total_max_attempts": tries, "mode": "standard"},
    )
    return boto3.session.Session().client("ec2", region_name=region, endpoint_url=endpoint_url, config=config)


class CapacityBlocks:
    """Keeps the ends of the wanted blocks (``want``) up to date while ``run`` runs."""

    def __init__(self, connect: Callable[[], Any], region: str, clock: Clock) -> None:
        """Do not connect yet: ``connect`` is called when the first block is wanted."""
        self.on_change: Callable[[], None] = lambda: None
        """Callback for changes of ``sights``."""
        self.sights: Mapping[str, BlockSight] = {}
        """The last answer about each block."""
        self._connect = connect
        self._client: Any = None
        self._region = region
        self._clock = clock
        self._wanted: AbstractSet[str] = frozenset()
        self._wake = asyncio.Event()

    def want(self, ids: AbstractSet[str]) -> None:
        """Look up these blocks from now on, and new ones immediately."""
        if ids - self._wanted:
            self._wake.set()
        self._wanted = ids

    async def run(self) -> None:
        """Ask EC2 every five minutes, or a minute after a failure, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._look(sorted(self._wanted))
            except Exception:
                # An unexpected answer must not end the requests.
                log.exception("reading the ends of capacity blocks failed")
            trouble = any(sight.trouble for sight in self.sights.values())
            await self._clock.wait(self._wake, self._clock.now() + (AFTER_TROUBLE if trouble else PERIOD))

    async def _look(self, ids: Sequence[str]) -> None:
        found = await asyncio.to_thread(self._ask, ids) if ids else {}
        sights = {}
        for name, sight in found.items():
            before = self.sights.get(name, BlockSight())
            sights[name] = replace(before, trouble=sight.trouble) if sight.trouble else sight
            if sight.trouble and sight.trouble != before.trouble:
                log.warning("the end of capacity block %s cannot be read: %s", name, sight.trouble)
            elif before.trouble and not sight.trouble:
                log.warning("the end of capacity block %s can be read again", name)
        if sights != self.sights:
            self.sights = sights
            self.on_change()

    def _ask(self, ids: Sequence[str]) -> dict[str, BlockSight]:
        """Read all pages for all blocks. If EC2 refuses an unknown id, ask for each block alone."""
        try:
            if self._client is None:
                self._client = self._connect()
            paginator = self._client.get_paginator("describe_capacity_reservations")
            pages = paginator.paginate(CapacityReservationIds=ids)
            found = [reservation for page in pages for reservation in page["CapacityReservations"]]
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in UNKNOWN_ID and len(ids) > 1:
                return {name: sight for one in ids for name, sight in self._ask([one]).items()}
            return self._failed(ids, code, error)
        except (BotoCoreError, ResponseParserError) as error:
            return self._failed(ids, type(error).__name__, error)
        return sights_of(found, ids, self._region)

    def _failed(self, ids: Sequence[str], code: str, error: Exception) -> dict[str, BlockSight]:
        log.info("EC2 does not say when %s end: %s", " and ".join(ids), error)
        return dict.fromkeys(ids, BlockSight(trouble=trouble_of(code, self._region)))
