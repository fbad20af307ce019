"""The client of DynamoDB, and what its errors say about a call."""

from __future__ import annotations

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
ERRORS: Final = (ClientError, BotoCoreError, ResponseParserError)

#: Seconds for one answer; DynamoDB's own are in the tens of milliseconds.
ANSWER_S: Final = 1.5


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a call is tried. With the time for each answer it is below 10 s in all, since users wait."""

    tries: int = 5
    pause: float = 0.1
    """Most seconds before the second try, doubled from try to try; each pause is a random part of it."""


class Fault(Enum):
    """What an error says about the call."""

    REFUSED = "not done, and it won't be"
    BUSY = "not done; try again"
    UNKNOWN = "perhaps done"


def connect(*, region: str | None = None, endpoint_url: str | None = None, timeout: float = ANSWER_S) -> Any:
    """Return a client of DynamoDB, good for several threads; credentials by boto3's own chain.

    ``region`` and ``endpoint_url``: if left out, by that chain too. Its retries are off: the table
    knows which outcomes are unknown, and one of its tries is one request.
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
    """Return what the error says about the call it ended."""
    match error:
        case ConnectTimeoutError() | EndpointConnectionError():
            return Fault.BUSY  # nothing listens, or not in time
        case NoCredentialsError() | PartialCredentialsError() | CredentialRetrievalError():
            return Fault.REFUSED
        case NoRegionError() | ParamValidationError():
            return Fault.REFUSED
        case ClientError():
            code = error.response.get("Error", {}).get("Code", "")
            reasons = {reason.get("Code") for reason in error.response.get("CancellationReasons", [])}
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            if code in _BUSY or reasons & _BUSY:
                return Fault.BUSY
            if code == "TransactionCanceledException":
                return Fault.REFUSED
            return (
                Fault.UNKNOWN if code == "TransactionInProgressException" or status >= 500 else Fault.REFUSED
            )
        case _:
            return Fault.UNKNOWN
