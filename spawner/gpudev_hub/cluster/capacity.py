"""Reads EC2's answers about capacity blocks. Pure: reservations and error codes in, records and texts out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gpudev_hub.core.model import SECOND, Millis

from .labels import CAPACITY_RESERVATION

RIGHT: Final = "ec2:DescribeCapacityReservations"
UNKNOWN_ID: Final = ("InvalidCapacityReservationId.NotFound", "InvalidCapacityReservationId.Malformed")
"""Error codes with which EC2 refuses a whole request because of one id in it."""
_GOOD: Final = frozenset({"active", "scheduled", "pending", "payment-pending", "assessing", "delayed"})
"""States of a reservation that runs or will run. All others are final, or unknown to this version."""
_DENIED: Final = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})
_CREDENTIALS: Final = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
    }
)


@dataclass(frozen=True, slots=True)
class BlockSight:
    """EC2's answer about one capacity block."""

    ends_at: Millis | None = None
    """``None`` while the end is not known."""
    over: str = ""
    """Why nothing new may start on its nodes, although its end is known."""
    trouble: str = ""
    """Why its end cannot be read now."""


def sights_of(
    reservations: Iterable[Mapping[str, Any]], ids: Collection[str], region: str
) -> dict[str, BlockSight]:
    """Return what an answer says about each requested block."""
    found = {one["CapacityReservationId"]: _sight(one) for one in reservations}
    unknown = BlockSight(trouble=trouble_of(UNKNOWN_ID[0], region))
    return {name: found.get(name, unknown) for name in ids}


def _sight(reservation: Mapping[str, Any]) -> BlockSight:
    end = reservation.get("EndDate")
    if end is None:
        return BlockSight(
            trouble="EC2 gives no end for it, so it is not a capacity block. Remove the label "
            f"{CAPACITY_RESERVATION} from its nodes"
        )
    state = reservation.get("State", "in no known state")
    name = reservation["CapacityReservationId"]
    over = "" if state in _GOOD else f"capacity block {name} is {state}"
    return BlockSight(round(end.timestamp() * SECOND), over)


def trouble_of(code: str, region: str) -> str:
    """Return a text that says why an end cannot be read, and what to do.

    ``code`` is EC2's error code, or the name of the exception.
    """
    if code in _DENIED:
        return f"give the role of the service the right {RIGHT}"
    if code in UNKNOWN_ID:
        return (
            f"EC2 does not know it in {region}. Correct the label {CAPACITY_RESERVATION} of its nodes, or "
            "ec2.region in the settings"
        )
    if code in _CREDENTIALS:
        return f"the service has no valid AWS credentials ({code}). Check the role of its service account"
    return f"EC2 does not answer ({code})"
