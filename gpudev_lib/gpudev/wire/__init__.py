"""The JSON types of the API, version 1, used by the client and the service.

Times are RFC 3339 strings in UTC (``2026-11-23T14:10:00Z``). Durations are hours (float) unless the name says
otherwise. ``gpus`` is per node. Unknown fields in a request are refused. The OpenAPI document of the service
is made from these types. Each module has the types of one subject; the names of all of them are here.
"""

from __future__ import annotations

from gpudev.wire.base import API as API
from gpudev.wire.base import Error as Error
from gpudev.wire.base import ErrorBody as ErrorBody
from gpudev.wire.base import Reason as Reason
from gpudev.wire.base import RequestId as RequestId
from gpudev.wire.limits import Limit as Limit
from gpudev.wire.limits import LimitName as LimitName
from gpudev.wire.limits import LimitRule as LimitRule
from gpudev.wire.limits import LimitRules as LimitRules
from gpudev.wire.limits import Limits as Limits
from gpudev.wire.limits import LimitsChanged as LimitsChanged
from gpudev.wire.limits import LimitValues as LimitValues
from gpudev.wire.limits import Me as Me
from gpudev.wire.limits import SetLimitsRequest as SetLimitsRequest
from gpudev.wire.operating import Doctor as Doctor
from gpudev.wire.operating import DoctorFact as DoctorFact
from gpudev.wire.operating import GithubCheck as GithubCheck
from gpudev.wire.operating import GithubFact as GithubFact
from gpudev.wire.operating import NodeAction as NodeAction
from gpudev.wire.operating import NodeRequest as NodeRequest
from gpudev.wire.operating import People as People
from gpudev.wire.operating import Person as Person
from gpudev.wire.operating import RevocationsRequest as RevocationsRequest
from gpudev.wire.pools import Availability as Availability
from gpudev.wire.pools import PoolAvailability as PoolAvailability
from gpudev.wire.pools import SizeAvailability as SizeAvailability
from gpudev.wire.pools import Timeline as Timeline
from gpudev.wire.pools import TimelineBar as TimelineBar
from gpudev.wire.pools import TimelineNode as TimelineNode
from gpudev.wire.pools import TimelinePool as TimelinePool
from gpudev.wire.reservations import ExtendRequest as ExtendRequest
from gpudev.wire.reservations import Guest as Guest
from gpudev.wire.reservations import History as History
from gpudev.wire.reservations import HistoryItem as HistoryItem
from gpudev.wire.reservations import Logs as Logs
from gpudev.wire.reservations import NodeSlots as NodeSlots
from gpudev.wire.reservations import Outcome as Outcome
from gpudev.wire.reservations import Reservation as Reservation
from gpudev.wire.reservations import ReservationList as ReservationList
from gpudev.wire.reservations import ReserveRequest as ReserveRequest
from gpudev.wire.reservations import Server as Server
from gpudev.wire.reservations import State as State
from gpudev.wire.sentences import Sentence as Sentence
from gpudev.wire.sentences import told as told
from gpudev.wire.servers import AgentReport as AgentReport
from gpudev.wire.servers import Cut as Cut
from gpudev.wire.servers import Notice as Notice
from gpudev.wire.servers import Notices as Notices
from gpudev.wire.servers import ServerStatus as ServerStatus
from gpudev.wire.ssh import RefusedKey as RefusedKey
from gpudev.wire.ssh import SshAccess as SshAccess
from gpudev.wire.ssh import SshBastion as SshBastion
from gpudev.wire.ssh import SshClosed as SshClosed
from gpudev.wire.ssh import SshHost as SshHost
from gpudev.wire.usage import Usage as Usage
from gpudev.wire.usage import UsageBy as UsageBy
from gpudev.wire.usage import UsageOwner as UsageOwner
from gpudev.wire.usage import UsageRow as UsageRow
