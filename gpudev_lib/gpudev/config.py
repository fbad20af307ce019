"""Settings of the client: from arguments, then the environment, then ``~/.gpu-dev-config``.

The file is a JSON object that only its owner can read. Keys of other tools are kept. A file that cannot be
parsed is an error and is never overwritten.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import select
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gpudev.errors import ConfigError, InvalidRequest, NotLoggedIn, cause
from gpudev.files import replace_file
from gpudev.hours import EXAMPLES, read_hours

KEYS: dict[str, str] = {
    "url": "public address of the hub, for example http://127.0.0.1:8000",
    "token": "token for the hub (written by: gpu-dev login); not in the file if a keyring has it",
    "token_store": "`keyring` if the token is in the keyring of the system",
    "token_created": "when the token was made",
    "token_expires": "when the token expires",
    "token_last": "whether the token can no longer be renewed",
    "user": "your name at the hub",
    "gpu_type": "default GPU type",
    "hours": "default hold time in hours",
}
"""The keys of gpudev, each with its meaning."""
WRITTEN = ("token", "token_store", "token_created", "token_expires", "token_last")
"""Keys that only logins write."""
PIPE_PATIENCE = 2.0
"""Seconds to wait for the first bytes of a pipe."""
KEYRING = "keyring"
"""Value of ``token_store`` if the token is in the keyring."""
_MOST_HOURS = 1e9
"""More than any hub allows, and more than `read_hours` returns."""


@dataclass(frozen=True)
class Settings:
    """What a client needs for its first request."""

    url: str
    """Public address of the hub, with its base path, without a final slash."""
    token: str
    gpu_type: str | None = None
    hours: float | None = None
    stored: bool = False
    """Whether the token comes from the configuration, and not from an argument or the environment."""
    created_at: str | None = None
    """When the stored token was made, if that is known."""
    expires_at: str | None = None
    last: bool = False
    """Whether the stored token cannot be renewed."""


def home() -> Path:
    """Return the user's home: ``HOME``, else that of the account. Raises `ConfigError` if there is none."""
    named = os.environ.get("HOME", "")
    if named.startswith("/"):
        return Path(named)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise ConfigError(
            f"Your home folder is unknown: HOME is {named!r}, and user id {os.getuid()} has no account here.",
            hint="Set HOME to an absolute path.",
        ) from None


def path() -> Path:
    """Return the path of the configuration file: ``GPUDEV_CONFIG``, else ``~/.gpu-dev-config``."""
    named = os.environ.get("GPUDEV_CONFIG")
    if not named:
        return home() / ".gpu-dev-config"
    if named == "~" or named.startswith("~/"):
        return home() / named[2:]
    try:
        return Path(named).expanduser()
    except RuntimeError as error:  # no such user
        raise ConfigError(
            f"GPUDEV_CONFIG is {named!r}, but this machine has no such user.",
            hint="Set GPUDEV_CONFIG to an absolute path, or unset it.",
        ) from error


def load() -> dict[str, Any]:
    """Return the content of the file; empty if there is no file. Raises `ConfigError`."""
    return _parse(path())


def _parse(file: Path) -> dict[str, Any]:
    def broken(problem: str) -> ConfigError:
        hint = "Repair or remove the file. gpu-dev did not change it."
        return ConfigError(f"The configuration file {file} {problem}.", hint=hint)

    try:
        text = _read(file).decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise broken(f"cannot be read: {cause(error)}") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter for thousands of brackets
        raise broken(f"is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise broken(f"contains a {type(content).__name__}, not a JSON object")
    return content


def _read(file: Path) -> bytes:
    """Return the bytes of a file, or of a pipe whose writer starts within `PIPE_PATIENCE`."""
    if file.is_char_device():  # some devices never end
        raise OSError(errno.EINVAL, "it is a device")
    # Opening a named pipe would block until a writer opens it.
    with open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
        if file.is_fifo() and not select.select([stream], [], [], PIPE_PATIENCE)[0]:
            raise OSError(errno.ETIMEDOUT, f"the pipe was empty for {PIPE_PATIENCE:g} s")
        os.set_blocking(stream.fileno(), True)
        return stream.read()


def update(change: Callable[[dict[str, Any]], None]) -> None:
    """Read the file, let `change` edit its content, and replace the file atomically with mode 0600.

    Changes by two programs at the same time are both kept. Raises `ConfigError`.
    """
    file = Path(os.path.realpath(path()))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(file.parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"The configuration file {file} cannot be written: {cause(error)}.") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        content = _parse(file)
        change(content)
        data = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
        replace_file(file, data)
    except OSError as error:
        raise ConfigError(
            f"The configuration file {file} cannot be written: {cause(error)}.",
            hint="The file was not changed.",
        ) from error
    finally:
        os.close(folder)


def resolve(url: str | None = None, token: str | None = None) -> Settings:
    """Return settings from arguments, the environment and the file, in this order.

    A token is only sent to the hub that it belongs to: the token in the file to the ``url`` in the file, and
    the token of a server (``JUPYTERHUB_API_TOKEN``) to the hub that started the server. Raises `ConfigError`,
    `NotLoggedIn`, and `InvalidRequest` for an invalid address.
    """
    file = path()
    content = _parse(file)
    file_url = _url(content, file)
    env_url = hub_from_environment()
    chosen = clean_url(url) if url else env_url or file_url
    if chosen is None:
        raise NotLoggedIn(
            f"No hub is configured in {file}.",
            hint="Log in with: gpu-dev login --url URL\nOr set GPUDEV_URL and GPUDEV_TOKEN.",
        )
    found = token or os.environ.get("GPUDEV_TOKEN")
    if not found and chosen == _hub_of_server():
        found = os.environ.get("JUPYTERHUB_API_TOKEN")
    stored = not found and chosen == file_url
    if stored:
        found = _token(content, file)
    if not found:
        raise NotLoggedIn(
            f"There is no token for {chosen}.",
            hint=f"Log in with: gpu-dev login --url {chosen}\nOr set GPUDEV_TOKEN.",
        )
    if not found.isascii() or not found.isprintable() or " " in found:
        raise NotLoggedIn(
            f"The token for {chosen} is not valid: it contains a space, a line break or a special character.",
            hint="Check GPUDEV_TOKEN, or get a new token with: gpu-dev login",
        )
    hours = content.get("hours")
    if isinstance(hours, str):
        hours = read_hours(hours) or hours
    if hours is not None and (
        isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours < _MOST_HOURS
    ):
        raise ConfigError(
            f"hours in {file} is {hours!r}, which is not a length of time.",
            hint=f"Use a value such as {EXAMPLES}.",
        )
    times = (_time(content, "token_created"), _time(content, "token_expires")) if stored else (None, None)
    last = stored and content.get("token_last") is True
    return Settings(chosen, found, _text(content, "gpu_type", file) or None, hours, stored, *times, last)


def settings_of(file: Path) -> Settings | None:
    """Return the settings of one file, without the environment; None if the hub or the token is missing."""
    content = _parse(file)
    url, token = _url(content, file), _token(content, file)
    return Settings(url, token) if url and token else None


def stored_token() -> str | None:
    """Return the token of the configuration, from the file or the keyring; None if there is none."""
    file = path()
    return _token(_parse(file), file) or None


def save_token(
    url: str,
    token: str,
    *,
    user: str | None = None,
    created_at: str | None = None,
    expires_at: str | None = None,
    last: bool = False,
) -> str:
    """Save a token for the hub at `url`, and return where: the keyring of the system, or the file.

    `user`: name at the hub; None leaves it as it is. `last`: it cannot be renewed. Raises `ConfigError`.
    """
    from gpudev import keyring_store

    file = path()
    entry = _entry(url, file)
    in_keyring = keyring_store.put(entry, token)
    before = _parse(file)

    def change(content: dict[str, Any]) -> None:
        _clear(content)
        content["url"] = url
        if user is not None:
            content["user"] = user
        content |= {"token_store": KEYRING} if in_keyring else {"token": token}
        content |= {"token_created": created_at, "token_expires": expires_at} if expires_at else {}
        content |= {"token_last": True} if last else {}

    update(change)
    if before.get("token_store") == KEYRING and not (in_keyring and before.get("url") == url):
        keyring_store.delete(_entry(str(before.get("url")), file))
    return "the keyring of this machine" if in_keyring else str(file)


def note_token_times(url: str, created_at: str, expires_at: str, *, last: bool) -> None:
    """Write down the times of the stored token of the hub at `url`, and whether it cannot be renewed."""

    def change(content: dict[str, Any]) -> None:
        if content.get("url") == url:
            content.update(token_created=created_at, token_expires=expires_at, token_last=last)

    update(change)


def forget_token() -> None:
    """Remove the stored token from the file and the keyring."""
    file = path()
    before = _parse(file)
    if before.get("token_store") == KEYRING:
        from gpudev import keyring_store

        keyring_store.delete(_entry(str(before.get("url")), file))

    if any(key in before for key in WRITTEN):
        update(_clear)


def _clear(content: dict[str, Any]) -> None:
    for key in WRITTEN:
        content.pop(key, None)


def token_place() -> str:
    """Return where the stored token is."""
    file = path()
    return "the keyring of this machine" if _in_keyring(_parse(file)) else str(file)


def _in_keyring(content: dict[str, Any]) -> bool:
    """A token in the file is newer: the program that wrote it knows of no keyring."""
    return content.get("token_store") == KEYRING and not content.get("token")


def _token(content: dict[str, Any], file: Path) -> str:
    if _in_keyring(content):
        from gpudev import keyring_store

        return keyring_store.get(_entry(_url(content, file) or "", file))
    return _text(content, "token", file)


def _entry(url: str, file: Path) -> str:
    """Return the name of the entry in the keyring: each configuration file can have a user of its own."""
    return f"{url} {file.absolute()}"


def _time(content: dict[str, Any], key: str) -> str | None:
    value = content.get(key)
    return value if isinstance(value, str) else None


def clean_url(url: str) -> str:
    """Return `url` without a final slash, ``/hub`` or page of the hub.

    Raises `InvalidRequest` for an invalid address.
    """
    parts = urlsplit("")
    try:
        parts = urlsplit(url.strip())
        usable = (
            parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.username
        )
        parts.port  # noqa: B018  (raises if it is not a number)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidRequest(
            f"{url!r} is not the address of a hub.", hint="Use an address such as https://hub.example.org"
        )
    base = parts.path.rstrip("/")
    for tail in ("/hub", "/hub/home", "/hub/login", "/hub/token"):
        base = base.removesuffix(tail)
    return f"{parts.scheme}://{parts.netloc}{base}"


def hub_from_environment() -> str | None:
    """Return ``GPUDEV_URL``, else the public address of the hub that started this server, else None."""
    found = os.environ.get("GPUDEV_URL") or os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL")
    return clean_url(found) if found else None


def _hub_of_server() -> str | None:
    """Return the hub that started this server, whatever ``GPUDEV_URL`` was changed to; None elsewhere."""
    found = os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL")
    return clean_url(found) if found else hub_from_environment()


def _url(content: dict[str, Any], file: Path) -> str | None:
    url = _text(content, "url", file)
    return clean_url(url) if url else None


def _text(content: dict[str, Any], key: str, file: Path) -> str:
    value = content.get(key) or ""
    if not isinstance(value, str):
        raise ConfigError(
            f"{key} in {file} is {value!r}, which is not a string.",
            hint="Log in with: gpu-dev login"
            if key == "token"
            else f"Set it with: gpu-dev config set {key} VALUE",
        )
    return value
