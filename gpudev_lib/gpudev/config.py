"""Where the hub is and who we are: arguments, then the environment, then ``~/.gpu-dev-config``.

The file is a JSON object, readable by its owner only. An earlier tool may have written keys into it; they
stay as they are. A file that cannot be parsed is an error and is never written to.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import secrets
import select
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gpudev.errors import ConfigError, InvalidRequest, NotLoggedIn
from gpudev.hours import EXAMPLES, read_hours

KEYS: dict[str, str] = {
    "url": "public address of the hub, for example http://127.0.0.1:8000",
    "token": "Hub token (written by: gpu-dev login)",
    "user": "name at the hub",
    "gpu_type": "GPU type when none is asked for",
    "hours": "hours when none are asked for",
}
"""The keys that are ours, each with what it means."""
PIPE_PATIENCE = 2.0
"""Seconds for which the first bytes of a pipe are waited for."""
_MOST_HOURS = 1e9
"""More than any hub allows, and more than `read_hours` reads."""


@dataclass(frozen=True)
class Settings:
    """What a client needs to know before its first request."""

    url: str
    """Public address of the hub, with its base path, without a slash at the end."""
    token: str
    gpu_type: str | None = None
    hours: float | None = None


def home() -> Path:
    """The user's home: ``HOME``, else as the account has it. Raises `ConfigError` where neither says."""
    named = os.environ.get("HOME", "")
    if named.startswith("/"):
        return Path(named)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise ConfigError(
            f"HOME is {named!r}, and account {os.getuid()} of this machine has no home folder.",
            hint="Set HOME to an absolute path.",
        ) from None


def path() -> Path:
    """The configuration file: ``GPUDEV_CONFIG``, else ``~/.gpu-dev-config``."""
    named = os.environ.get("GPUDEV_CONFIG")
    if not named:
        return home() / ".gpu-dev-config"
    if named == "~" or named.startswith("~/"):
        return home() / named[2:]
    try:
        return Path(named).expanduser()
    except RuntimeError as error:  # no such user
        raise ConfigError(
            f"There is no configuration file: {error}", hint="Name one in GPUDEV_CONFIG, or set HOME."
        ) from error


def load() -> dict[str, Any]:
    """The file's content; empty where there is no file. Raises `ConfigError`."""
    return _parse(path())


def _parse(file: Path) -> dict[str, Any]:
    try:
        text = _read(file).decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read: {error}", hint="Repair or remove it; it was left as it is."
        ) from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter for thousands of brackets
        raise ConfigError(
            f"{file} is not valid JSON: {error}", hint="Repair or remove it; it was left as it is."
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{file} holds {type(content).__name__} where a JSON object is expected.",
            hint="Repair or remove it; it was left as it is.",
        )
    return content


def _read(file: Path) -> bytes:
    """Bytes of a file, or of a pipe whose writer starts within `PIPE_PATIENCE`."""
    if file.is_char_device():  # some never come to an end
        raise OSError(errno.EINVAL, "it is a device")
    # A named pipe would hold up its opener until a writer comes.
    with open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
        if file.is_fifo() and not select.select([stream], [], [], PIPE_PATIENCE)[0]:
            raise OSError(errno.ETIMEDOUT, f"nothing came through this pipe for {PIPE_PATIENCE:g} s")
        os.set_blocking(stream.fileno(), True)
        return stream.read()


def update(change: Callable[[dict[str, Any]], None]) -> None:
    """Read the file, let `change` edit its content, write it back at once or not at all, mode 0600.

    Two programs that do this at the same time do not lose each other's change. Raises `ConfigError`.
    """
    file = Path(os.path.realpath(path()))
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(file.parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        content = _parse(file)
        change(content)
        data = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            os.fchmod(stream.fileno(), 0o600)  # whatever the umask takes away
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error}", hint="It was left as it is.") from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(folder)


def resolve(url: str | None = None, token: str | None = None) -> Settings:
    """Settings from arguments, environment and file, in this order.

    A token is only ever sent to the hub that it came with: the file's to the file's ``url``, a server's own
    (``JUPYTERHUB_API_TOKEN``) to the hub that started the server. Raises `ConfigError`, `NotLoggedIn` or, for
    an address that is none, `InvalidRequest`.
    """
    file = path()
    content = _parse(file)
    file_url = _url(content, file)
    env_url = hub_from_environment()
    chosen = clean_url(url) if url else env_url or file_url
    if chosen is None:
        raise NotLoggedIn(
            "No hub is configured.", hint="Log in with: gpu-dev login --url URL (or set GPUDEV_URL)."
        )
    found = token or os.environ.get("GPUDEV_TOKEN")
    if not found and chosen == env_url:
        found = os.environ.get("JUPYTERHUB_API_TOKEN")
    if not found and chosen == file_url:
        found = _text(content, "token", file)
    if not found:
        raise NotLoggedIn(
            f"There is no token for {chosen}.",
            hint=f"Log in with: gpu-dev login --url {chosen} (or set GPUDEV_TOKEN).",
        )
    if not found.isascii() or not found.isprintable() or " " in found:
        raise NotLoggedIn(
            f"The token for {chosen} has a space, a line break or another character that no token has.",
            hint="Is GPUDEV_TOKEN right? A new token: gpu-dev login",
        )
    hours = content.get("hours")
    if isinstance(hours, str):
        hours = read_hours(hours) or hours
    if hours is not None and (
        isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours < _MOST_HOURS
    ):
        raise ConfigError(
            f"hours in {file} is {hours!r}: a length of time is expected.", hint=f"Use {EXAMPLES}."
        )
    return Settings(chosen, found, _text(content, "gpu_type", file) or None, hours)


def settings_of(file: Path) -> Settings | None:
    """What one file alone says, whatever the environment; None where it names no hub or no token."""
    content = _parse(file)
    url, token = _url(content, file), _text(content, "token", file)
    return Settings(url, token) if url and token else None


def clean_url(url: str) -> str:
    """`url` without a slash, ``/hub`` or a page of the hub's at its end.

    Raises `InvalidRequest` for what is no address.
    """
    parts = urlsplit("")
    try:
        parts = urlsplit(url.strip())
        usable = (
            parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.username
        )
        parts.port  # noqa: B018  (raises where it is no number)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidRequest(
            f"{url!r} is not the address of a hub.", hint="It looks like https://hub.example.org"
        )
    base = parts.path.rstrip("/")
    for tail in ("/hub", "/hub/home", "/hub/login", "/hub/token"):
        base = base.removesuffix(tail)
    return f"{parts.scheme}://{parts.netloc}{base}"


def hub_from_environment() -> str | None:
    """``GPUDEV_URL``, else the hub that started the server we run in, where it knows its public address."""
    found = os.environ.get("GPUDEV_URL") or os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL")
    return clean_url(found) if found else None


def _url(content: dict[str, Any], file: Path) -> str | None:
    url = _text(content, "url", file)
    return clean_url(url) if url else None


def _text(content: dict[str, Any], key: str, file: Path) -> str:
    value = content.get(key) or ""
    if not isinstance(value, str):
        raise ConfigError(f"{key} in {file} is {value!r}: a string is expected.")
    return value
