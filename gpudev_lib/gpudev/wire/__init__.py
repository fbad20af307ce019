"""The JSON types of the API, version 1, used by the client and the service.

Times are RFC 3339 strings in UTC (``2026-11-23T14:10:00Z``). Durations are hours (float) unless the name says
otherwise. ``gpus`` is per node. Unknown fields in a request are refused. The OpenAPI document of the service
is made from these types. Each module has the types of one subject; the names of all of them are here.
"""

from __future__ import annotations

from gpudev.wire.base import API, Error, ErrorBody, Reason, RequestId
from gpudev.wire.limits import (
    Limit,
    LimitName,
    LimitRule,
    LimitRules,
    Limits,
    LimitsChanged,
    LimitValues,
    Me,
    SetLimitsRequest,
)
from gpudev.wire.operating import (
    Doctor,
    DoctorFact,
    GithubCheck,
    GithubFact,
    NodeAction,
    NodeRequest,
    People,
    Person,
    RevocationsRequest,
)
from gpudev.wire.pools import (
    Availability,
    PoolAvailability,
    SizeAvailability,
    Timeline,
    TimelineBar,
    TimelineNode,
    TimelinePool,
)
from gpudev.wire.reservations import (
    ExtendRequest,
    Guest,
    History,
    HistoryItem,
    Logs,
    NodeSlots,
    Outcome,
    Reservation,
    ReservationList,
    ReserveRequest,
    Server,
    State,
)
from gpudev.wire.sentences import Sentence, told
from gpudev.wire.servers import AgentReport, Cut, Notice, Notices, ServerStatus
from gpudev.wire.ssh import RefusedKey, SshAccess, SshBastion, SshClosed, SshHost
from gpudev.wire.usage import Usage, UsageBy, UsageOwner, UsageRow

__all__ = [
    "API",
    "AgentReport",
    "Availability",
    "Cut",
    "Doctor",
    "DoctorFact",
    "Error",
    "ErrorBody",
    "ExtendRequest",
    "GithubCheck",
    "GithubFact",
    "Guest",
    "History",
    "HistoryItem",
    "Limit",
    "LimitName",
    "LimitRule",
    "LimitRules",
    "LimitValues",
    "Limits",
    "LimitsChanged",
    "Logs",
    "Me",
    "NodeAction",
    "NodeRequest",
    "NodeSlots",
    "Notice",
    "Notices",
    "Outcome",
    "People",
    "Person",
    "PoolAvailability",
    "Reason",
    "RefusedKey",
    "RequestId",
    "Reservation",
    "ReservationList",
    "ReserveRequest",
    "RevocationsRequest",
    "Sentence",
    "Server",
    "ServerStatus",
    "SetLimitsRequest",
    "SizeAvailability",
    "SshAccess",
    "SshBastion",
    "SshClosed",
    "SshHost",
    "State",
    "Timeline",
    "TimelineBar",
    "TimelineNode",
    "TimelinePool",
    "Usage",
    "UsageBy",
    "UsageOwner",
    "UsageRow",
    "told",
]
