"""The exceptions of this library, in one tree.

If the service refused the request, ``code`` is the service's stable code; otherwise it is the code of the
class. A hint says what to do next and is part of ``str(error)``. The two errors with ``.reservation`` are in
`gpudev.reservation`.
"""

from __future__ import annotations

from typing import ClassVar

_BY_CODE: dict[str, type[GpuDevError]] = {}
"""The errors that need only a message, by code. If two have the same code, the more specific error."""


class GpuDevError(Exception):
    """Base class of all errors of this library."""

    default_code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    """Exit code of the ``gpu-dev`` command."""

    def __init_subclass__(cls, *, code: str | None = None, exit_code: int | None = None) -> None:
        cls.default_code = code or cls.default_code
        cls.exit_code = exit_code or cls.exit_code
        if code and cls.__init__ is GpuDevError.__init__:
            _BY_CODE[code] = cls

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


class InvalidRequest(GpuDevError, code="invalid_request", exit_code=2):
    """The request is not valid and would be refused at any time."""


class InvalidShape(InvalidRequest, code="invalid_shape"):
    """No pool has this many GPUs or nodes."""


class InvalidHours(InvalidRequest, code="invalid_hours"):
    """The hours are not a valid length of time for a reservation."""


class InvalidName(InvalidRequest, code="invalid_name"):
    """The name is not valid for a reservation."""


class InvalidImage(InvalidRequest, code="invalid_image"):
    """The pool does not have this image."""


class UnknownGpuType(InvalidRequest, code="unknown_gpu_type"):
    """No pool has this GPU type."""


class NotFound(GpuDevError, code="not_found", exit_code=3):
    """There is no such reservation, or it is owned by another user."""


class RequestRefused(GpuDevError, code="refused", exit_code=4):
    """The request is valid but cannot be granted now."""


class NameTaken(RequestRefused, code="name_taken"):
    """One of your live reservations already has this name."""


class QuotaExceeded(RequestRefused, code="quota_exceeded"):
    """The request exceeds one of your limits."""


class ExtensionRefused(RequestRefused, code="extension_refused"):
    """The extension exceeds a limit, or someone waiting would miss their guaranteed start."""


class WrongState(RequestRefused, code="wrong_state"):
    """The state of the reservation does not allow this action."""


class AccessError(GpuDevError, code="forbidden", exit_code=5):
    """You are not logged in, or you are not allowed to do this."""


class NotLoggedIn(AccessError, code="unauthenticated"):
    """There is no token, or it is no longer valid."""


class Forbidden(AccessError, code="forbidden"):
    """The token is valid but does not allow this."""


class AccessRevoked(AccessError, code="access_revoked"):
    """You may no longer use this hub; the message says why."""


class NetworkError(GpuDevError, code="network", exit_code=6):
    """The hub did not answer. Requests that are safe to retry have already been retried."""

    retry_after: float = 0.0
    """Seconds that the service asks the client to wait before a retry."""


class Unavailable(NetworkError, code="unavailable"):
    """The service is not available now, or something other than the service answered."""


class RateLimited(Unavailable, code="rate_limited"):
    """Too many requests in a short time."""


class RemoteCommandFailed(GpuDevError, code="command_failed"):
    """A command on the server exited with a status other than 0 (255: ``ssh`` itself failed)."""

    def __init__(self, message: str, *, returncode: int, stdout: str, stderr: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode
        self.stdout = stdout
        """Captured output; empty if it was not captured."""
        self.stderr = stderr


class CommandTimeout(GpuDevError, TimeoutError, code="command_timeout", exit_code=7):
    """A command on the server did not finish before its timeout and was stopped."""

    def __init__(self, message: str, *, stdout: str, stderr: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stdout = stdout
        """Output captured before the timeout; empty if it was not captured."""
        self.stderr = stderr


class ConfigError(GpuDevError, code="config", exit_code=9):
    """The configuration file or an environment variable (proxy, certificates) cannot be used."""


class UnexpectedAnswer(GpuDevError, code="unexpected_answer"):
    """This version of the library does not understand the service's answer."""


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
