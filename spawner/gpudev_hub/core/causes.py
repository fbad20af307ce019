"""Why records change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .sentences import Text


class Cause(StrEnum):
    """Why a record changed; the history keeps it with every change."""

    REQUESTED = "requested"
    PLANNED = "planned"
    ADMITTED = "admitted"
    READY = "ready"
    RELEASED = "released"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    EXTENDED = "extended"
    MOVED_FOR_EXTENSION = "moved_for_extension"
    YIELDED = "yielded"
    WARNED = "warned"
    SERVER_GONE = "server_gone"
    SERVER_SEEN = "server_seen"
    STOPPED_BY_USER = "stopped_by_user"
    RESTARTED = "restarted"
    START_FAILED = "start_failed"
    NODE_CHANGED = "node_changed"
    NODE_LOST = "node_lost"
    NODE_DRAINED = "node_drained"
    STOP_OVERRAN = "stop_overran"
    OWNER_UNKNOWN = "owner_unknown"
    OWNER_KNOWN = "owner_known"
    OUTAGE = "outage"
    OPERATOR = "operator"
    SHARED = "shared"
    UNSHARED = "unshared"
    MINTED = "minted"
    USED = "used"
    LIMITS_SET = "limits_set"
    LIMITS_CLEARED = "limits_cleared"
    ACCESS_GRANTED = "access_granted"
    ACCESS_REVOKED = "access_revoked"
    PERSON_CHANGED = "person_changed"
    SWEPT = "swept"

    @property
    def cause(self) -> Cause:
        """This cause, which is also a reason without details."""
        return self

    @property
    def detail(self) -> Text:
        """No details."""
        return ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a record changes, with details for people."""

    cause: Cause
    detail: Text


Why = Cause | Reason
