"""Everything that can go wrong, in one tree.

::

    GpuDevError                      has .code, .message, .hint, .exit_code
    ├── InvalidRequest               the request can never be granted as it stands
    │   ├── InvalidShape             so many GPUs or nodes do not exist: the message names what does
    │   ├── InvalidHours
    │   ├── InvalidName
    │   ├── InvalidImage
    │   └── UnknownGpuType
    ├── NotFound                     no such reservation (or not yours)
    ├── RequestRefused               understood, and refused in the present state
    │   ├── NameTaken
    │   ├── QuotaExceeded
    │   ├── ExtensionRefused         the hint says the longest that would be granted
    │   └── WrongState
    ├── AccessError
    │   ├── NotLoggedIn              no token, or one that is no longer valid
    │   └── Forbidden
    ├── NetworkError                 no answer; the library has retried already
    │   └── Unavailable              something answered, but not (or not yet) the service
    │       └── RateLimited
    ├── WaitTimeout                  also a TimeoutError; has .reservation
    ├── ReservationEnded             it ended (or failed) while waited for; has .reservation
    ├── RemoteCommandFailed          run(check=True): has .returncode, .stdout, .stderr
    ├── CommandTimeout               run(timeout=…): also a TimeoutError; has .stdout, .stderr
    ├── ConfigError                  the configuration file, or a variable of the environment
    └── UnexpectedAnswer             the service and this library do not understand each other

``code`` is the service's own stable code where the service refused, and the class's otherwise. A hint says
what to do next and is part of ``str(error)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from gpudev.reservation import Reservation


class GpuDevError(Exception):
    """Base of all errors of this library."""

    default_code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    """What the ``gpu-dev`` command exits with."""

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        """What happened, to which object."""
        self.hint = hint
        """What to do next; may be empty."""
        self.code = code or self.default_code
        """Stable, for programs."""

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidRequest(GpuDevError):
    """The request can never be granted as it stands."""

    default_code = "invalid_request"
    exit_code = 2


class InvalidShape(InvalidRequest):
    """So many GPUs or nodes do not exist in any pool."""

    default_code = "invalid_shape"


class InvalidHours(InvalidRequest):
    """Not a number of hours that anybody may have."""

    default_code = "invalid_hours"


class InvalidName(InvalidRequest):
    """Not a name for a reservation."""

    default_code = "invalid_name"


class InvalidImage(InvalidRequest):
    """Not an image of the pool."""

    default_code = "invalid_image"


class UnknownGpuType(InvalidRequest):
    """No pool has this GPU type."""

    default_code = "unknown_gpu_type"


class NotFound(GpuDevError):
    """No such reservation, or somebody else's."""

    default_code = "not_found"
    exit_code = 3


class RequestRefused(GpuDevError):
    """Understood, and refused in the present state."""

    default_code = "refused"
    exit_code = 4


class NameTaken(RequestRefused):
    """A live reservation of yours has this name."""

    default_code = "name_taken"


class QuotaExceeded(RequestRefused):
    """More than you may hold, queue or ask for."""

    default_code = "quota_exceeded"


class ExtensionRefused(RequestRefused):
    """The extension would break a promise made to somebody else, or a limit."""

    default_code = "extension_refused"


class WrongState(RequestRefused):
    """The reservation is not in a state in which this is possible."""

    default_code = "wrong_state"


class AccessError(GpuDevError):
    """Who you are, or what your token may do, is not enough."""

    default_code = "forbidden"
    exit_code = 5


class NotLoggedIn(AccessError):
    """There is no token, or it is no longer valid."""

    default_code = "unauthenticated"


class Forbidden(AccessError):
    """The token is valid and does not allow this."""

    default_code = "forbidden"


class NetworkError(GpuDevError):
    """No answer. Requests that may be repeated have been repeated before this is raised."""

    default_code = "network"
    exit_code = 6
    retry_after: float = 0.0
    """Seconds that the service asked us to wait."""


class Unavailable(NetworkError):
    """Something answered, but not the service, or the service says that it cannot just now."""

    default_code = "unavailable"


class RateLimited(Unavailable):
    """Too many requests in a short time."""

    default_code = "rate_limited"


class WaitTimeout(GpuDevError, TimeoutError):
    """The reservation is not ready in the time that was given."""

    default_code = "wait_timeout"
    exit_code = 7

    def __init__(self, message: str, reservation: Reservation, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reservation = reservation


class ReservationEnded(GpuDevError):
    """The reservation has ended: cancelled elsewhere, failed, its node lost."""

    default_code = "reservation_ended"
    exit_code = 8

    def __init__(self, message: str, reservation: Reservation, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reservation = reservation


class RemoteCommandFailed(GpuDevError):
    """A command on the server ended with another status than 0 (255: ``ssh`` itself failed)."""

    default_code = "command_failed"

    def __init__(self, message: str, *, returncode: int, stdout: str, stderr: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode
        self.stdout = stdout
        """What it wrote, where it was captured; else empty."""
        self.stderr = stderr


class CommandTimeout(GpuDevError, TimeoutError):
    """A command on the server took longer than it was given; it was ended there."""

    default_code = "command_timeout"
    exit_code = 7

    def __init__(self, message: str, *, stdout: str, stderr: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stdout = stdout
        """What it had written, where it was captured; else empty."""
        self.stderr = stderr


class ConfigError(GpuDevError):
    """The configuration file, or a variable of the environment (a proxy, certificates), cannot be used."""

    default_code = "config"
    exit_code = 9


class UnexpectedAnswer(GpuDevError):
    """The service answered what this version of the library does not understand."""

    default_code = "unexpected_answer"


_BY_CODE: dict[str, type[GpuDevError]] = {
    cls.default_code: cls
    for cls in (
        InvalidRequest,
        InvalidShape,
        InvalidHours,
        InvalidName,
        InvalidImage,
        UnknownGpuType,
        NotFound,
        NameTaken,
        QuotaExceeded,
        ExtensionRefused,
        WrongState,
        NotLoggedIn,
        Forbidden,
        RateLimited,
        Unavailable,
    )
}

_BY_STATUS: dict[int, type[GpuDevError]] = {
    401: NotLoggedIn,
    403: Forbidden,
    404: NotFound,
    409: RequestRefused,
    429: RateLimited,
}


def from_answer(status: int, code: str, message: str, hint: str) -> GpuDevError:
    """The error for a refusal of the service's: by its code, else by the HTTP status."""
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None:
        kind = Unavailable if status >= 500 else InvalidRequest
    if kind is NotLoggedIn and not hint:
        hint = "Log in with: gpu-dev login"
    return kind(message, hint=hint, code=code)
