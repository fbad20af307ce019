"""Calls to DynamoDB: what each failure means, what is tried again and for how long."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from gpudev_hub.core.ports import OutcomeUnknown, StoreUnavailable

Answer = dict[str, Any]

#: DynamoDB did nothing because it has too much to do, or because another transaction holds an item.
_BUSY: Final = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ThrottlingException",
        "TransactionConflict",
        "TransactionConflictException",
    }
)
#: The request never left: nothing listens, or not in time.
_UNREACHED: Final = (ConnectTimeoutError, EndpointConnectionError)
#: The request was never made, and won't be.
_UNMADE: Final = (
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)
_ERRORS: Final = (ClientError, BotoCoreError, ResponseParserError)
_CONDITIONS: Final = frozenset({"ConditionalCheckFailedException", "TransactionCanceledException"})


#: Seconds for one answer; DynamoDB's own are in the tens of milliseconds.
ANSWER_S: Final = 1.5


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call is tried: with the time for each answer below 10 s in all, since people wait."""

    tries: int = 5
    pause: float = 0.1
    """Seconds before the second try at most; doubled from try to try, each a random part of it."""


class Unmet(Exception):
    """A condition of the call does not hold; nothing was changed."""

    def __init__(self, items: list[tuple[int, dict[str, Any]]]) -> None:
        """``items``: indices of the writes whose conditions failed, and what is there."""
        super().__init__(f"conditions failed: {items}")
        self.items = items


class Fault(Enum):
    """What an error says about the call."""

    REFUSED = "not done, and it won't be"
    BUSY = "not done; try again"
    UNKNOWN = "perhaps done"


def connect(*, region: str | None = None, endpoint_url: str | None = None, timeout: float = ANSWER_S) -> Any:
    """A client of DynamoDB, good for several threads; credentials by boto3's own chain.

    ``region`` and ``endpoint_url``: by that chain too where left out. Its retries are off: ``Calls`` knows
    which outcomes are unknown, and one try of ours is to be one request.
    """
    config = Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        retries={"total_max_attempts": 1, "mode": "standard"},
        tcp_keepalive=True,
    )
    return boto3.session.Session().client(
        "dynamodb", region_name=region, endpoint_url=endpoint_url, config=config
    )


def fault_of(error: Exception) -> Fault:
    """What the error says about the call it ended."""
    if isinstance(error, _UNREACHED):
        return Fault.BUSY
    if isinstance(error, _UNMADE):
        return Fault.REFUSED
    if not isinstance(error, ClientError):
        return Fault.UNKNOWN
    code = error.response.get("Error", {}).get("Code", "")
    if code in _BUSY:
        return Fault.BUSY
    if code == "TransactionCanceledException":
        reasons = {reason.get("Code") for reason in error.response.get("CancellationReasons", [])}
        return Fault.BUSY if reasons & _BUSY else Fault.REFUSED
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    if code == "TransactionInProgressException" or status >= 500:
        return Fault.UNKNOWN
    return Fault.REFUSED


class Calls:
    """Calls of one store, made in its threads; ``stop`` ends all waiting."""

    def __init__(self, where: str, patience: Patience) -> None:
        """``where``: the table, for messages."""
        self._where = where
        self._patience = patience
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Nothing is tried again from now on."""
        self._stopped.set()

    def read(self, call: Callable[[], Answer]) -> Answer:
        """What was asked for. Raises ``StoreUnavailable``."""
        return self._try(call, StoreUnavailable)

    def write(self, call: Callable[[], Answer]) -> Answer:
        """Do it, once, however often it is asked for: a call that can be repeated without harm.

        Raises ``Unmet``, ``StoreUnavailable`` (it was not done) or ``OutcomeUnknown``.
        """
        return self._try(call, OutcomeUnknown)

    def tries(self) -> Iterator[None]:
        """A turn for each try, with ever longer pauses in between; none more once ``stop`` was called."""
        pause = self._patience.pause
        for left in reversed(range(self._patience.tries)):
            yield
            if not left or self._stopped.wait(random.uniform(0, pause)):  # noqa: S311 (jitter)
                return
            pause *= 2

    def _try(self, call: Callable[[], Answer], unsure: type[StoreUnavailable]) -> Answer:
        failure: type[StoreUnavailable] = StoreUnavailable
        last: Exception | None = None
        for _ in self.tries():
            try:
                return call()
            except _ERRORS as error:
                last = error
                unmet = _unmet(error)
                if unmet is not None:
                    raise unmet from error
                fault = fault_of(error)
                if fault is Fault.UNKNOWN:
                    failure = unsure
                if fault is Fault.REFUSED:
                    break
        assert last is not None, "patience needs at least one try"
        raise failure(self._words(last, failure)) from last

    def _words(self, error: Exception, failure: type[StoreUnavailable]) -> str:
        what = "it is not known whether the last change was made" if failure is OutcomeUnknown else ""
        return f"DynamoDB table {self._where}: {error}" + (f"; {what}" if what else "")


def _unmet(error: Exception) -> Unmet | None:
    """The conditions that failed, if that is what ended the call."""
    if not isinstance(error, ClientError) or error.response.get("Error", {}).get("Code") not in _CONDITIONS:
        return None
    reasons = error.response.get("CancellationReasons")
    if reasons is None:
        return Unmet([(0, error.response.get("Item", {}))])
    failed = [
        (i, reason.get("Item", {}))
        for i, reason in enumerate(reasons)
        if reason.get("Code") == "ConditionalCheckFailed"
    ]
    return Unmet(failed) if failed else None
