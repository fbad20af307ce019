"""The exceptions of this library, in one tree.

::

    GpuDevError                      has .code, .message, .hint, .exit_code
    ├── InvalidRequest               the request is not valid
    │   ├── InvalidShape             no pool has this many GPUs or nodes; the hint names the sizes
    │   ├── InvalidHours
    │   ├── InvalidName
    │   ├── InvalidImage
    │   └── UnknownGpuType
    ├── NotFound                     no such reservation, or it is owned by another user
    ├── RequestRefused               the request is valid but cannot be granted now
    │   ├── NameTaken
    │   ├── QuotaExceeded
    │   ├── ExtensionRefused         the hint gives the longest extension available
    │   └── WrongState
    ├── AccessError
    │   ├── NotLoggedIn              no token, or the token is no longer valid
    │   ├── Forbidden
    │   └── AccessRevoked
    ├── NetworkError                 no answer; the library has already retried
    │   └── Unavailable              the service is not available, or something else answered
    │       └── RateLimited
    ├── WaitTimeout                  also a TimeoutError; has .reservation
    ├── ReservationEnded             it ended or failed while you waited; has .reservation
    ├── RemoteCommandFailed          run(check=True): has .returncode, .stdout, .stderr
    ├── CommandTimeout               run(timeout=…): also a TimeoutError; has .stdout, .stderr
    ├── ConfigError                  the configuration file or an environment variable cannot be used
    └── UnexpectedAnswer             the library does not understand the service's answer

If the service refused the request, ``code`` is the service's stable code; otherwise it is the code of the
class. A hint says what to do next and is part of ``str(error)``. The two errors that have a reservation are
beside it, in `gpudev.reservation`.
"""

from __future__ import annotations

from typing import ClassVar


class GpuDevError(Exception):
    """Base class of all errors of this library."""

    default_code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    """Exit code of the ``gpu-dev`` command."""

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        """What happened, and to which object."""
        self.hint = hint
        """What to do next; may be empty."""
        self.code = code or self.default_code
        """A stable code for programs."""

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidRequest(GpuDevError):
    """The request is not valid and would be refused at any time."""

    default_code = "invalid_request"
    exit_code = 2


class InvalidShape(InvalidRequest):
    """No pool has this many GPUs or nodes."""

    default_code = "invalid_shape"


class InvalidHours(InvalidRequest):
    """The hours are not a valid length of time for a reservation."""

    default_code = "invalid_hours"


class InvalidName(InvalidRequest):
    """The name is not valid for a reservation."""

    default_code = "invalid_name"


class InvalidImage(InvalidRequest):
    """The pool does not have this image."""

    default_code = "invalid_image"


class UnknownGpuType(InvalidRequest):
    """No pool has this GPU type."""

    default_code = "unknown_gpu_type"


class NotFound(GpuDevError):
    """There is no such reservation, or it is owned by another user."""

    default_code = "not_found"
    exit_code = 3


class RequestRefused(GpuDevError):
    """The request is valid but cannot be granted now."""

    default_code = "refused"
    exit_code = 4


class NameTaken(RequestRefused):
    """One of your live reservations already has this name."""

    default_code = "name_taken"


class QuotaExceeded(RequestRefused):
    """The request exceeds one of your limits."""

    default_code = "quota_exceeded"


class ExtensionRefused(RequestRefused):
    """The extension exceeds a limit, or someone waiting would miss their guaranteed start."""

    default_code = "extension_refused"


class WrongState(RequestRefused):
    """The state of the reservation does not allow this action."""

    default_code = "wrong_state"


class AccessError(GpuDevError):
    """You are not logged in, or you are not allowed to do this."""

    default_code = "forbidden"
    exit_code = 5


class NotLoggedIn(AccessError):
    """There is no token, or it is no longer valid."""

    default_code = "unauthenticated"


class Forbidden(AccessError):
    """The token is valid but does not allow this."""

    default_code = "forbidden"


class AccessRevoked(AccessError):
    """You may no longer use this hub; the message says why."""

    default_code = "access_revoked"


class NetworkError(GpuDevError):
    """The hub did not answer. Requests that are safe to retry have already been retried."""

    default_code = "network"
    exit_code = 6
    retry_after: float = 0.0
    """Seconds that the service asks the client to wait before a retry."""


class Unavailable(NetworkError):
    """The service is not available now, or something other than the service answered."""

    default_code = "unavailable"


class RateLimited(Unavailable):
    """Too many requests in a short time."""

    default_code = "rate_limited"


class RemoteCommandFailed(GpuDevError):
    """A command on the server exited with a status other than 0 (255: ``ssh`` itself failed)."""

    default_code = "command_failed"

    def __init__(self, message: str, *, returncode: int, stdout: str, stderr: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode
        self.stdout = stdout
        """Captured output; empty if it was not captured."""
        self.stderr = stderr


class CommandTimeout(GpuDevError, TimeoutError):
    """A command on the server did not finish before its timeout and was stopped."""

    default_code = "command_timeout"
    exit_code = 7

    def __init__(self, message: str, *, stdout: str, stderr: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stdout = stdout
        """Output captured before the timeout; empty if it was not captured."""
        self.stderr = stderr


class ConfigError(GpuDevError):
    """The configuration file or an environment variable (proxy, certificates) cannot be used."""

    default_code = "config"
    exit_code = 9


class UnexpectedAnswer(GpuDevError):
    """This version of the library does not understand the service's answer."""

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
        AccessRevoked,
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
    """Return the error for a refusal by the service, chosen by its code, else by the HTTP status."""
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None:
        kind = Unavailable if status >= 500 else InvalidRequest
    if kind is NotLoggedIn and not hint:
        hint = "Log in with: gpu-dev login"
    return kind(message, hint=hint, code=code)


def cause(error: Exception) -> str:
    """Return the text of an error for a message that names the file: without its number and file name."""
    return str((isinstance(error, OSError) and error.strerror) or error)
