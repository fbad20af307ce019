"""``login`` and ``config``."""

from __future__ import annotations

import getpass
import sys
from typing import Any

import click

from gpudev import config
from gpudev.cli.output import echo, emit, json_option, say
from gpudev.errors import InvalidRequest, NotFound
from gpudev.hours import EXAMPLES, read_hours


@click.command()
@click.option("--url", help="Address of the hub. Left out: the configured one.")
@click.option("--user", help="Name at the hub. Left out: the configured one, or yours on this machine.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--token-stdin", is_flag=True, help="Read a token from standard input (made at URL/hub/token).")
def login_command(url: str | None, user: str | None, password_stdin: bool, token_stdin: bool) -> None:
    """Get a token of the hub's and store it in the configuration file.

    It is good for 30 days and may reserve, and open your servers, and nothing else.
    """
    from gpudev import login

    if password_stdin and token_stdin:
        raise click.UsageError("--password-stdin and --token-stdin exclude each other.")
    content = config.load()
    hub = config.clean_url(url or config.hub_from_environment() or content.get("url") or _ask_url())
    if token_stdin:
        token = _line_of_input().strip()
        if not token:
            raise click.UsageError("There is no token on standard input.")
    else:
        name = user or content.get("user") or _own_name()
        if password_stdin:
            password = _line_of_input()
        else:
            password = click.prompt(f"Password of {name} at {hub}", hide_input=True, err=True)
        token = login.by_password(hub, name, password, tell=say)
    who = login.store(hub, token, tell=say)
    echo(f"You are {who} at {hub}; the token is in {config.path()}.")


def _line_of_input() -> str:
    """One line of standard input."""
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest("What is on standard input is not UTF-8 text.") from error


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise click.UsageError("Your account has no name here: give yours at the hub with --user.") from error


def _ask_url() -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("No hub is configured: give its address with --url.")
    url: str = click.prompt("Address of the hub", err=True)
    return url


@click.group()
def config_command() -> None:
    """Read and change the configuration file.

    It is ~/.gpu-dev-config, or the file that GPUDEV_CONFIG names. Keys that are not gpu-dev's own stay as
    they are.
    """


@config_command.command("get")
@click.argument("key")
def get(key: str) -> None:
    """Print one value."""
    content = config.load()
    if key not in content:
        raise NotFound(f"{key} is not set in {config.path()}.", hint=_known())
    value = content[key]
    if isinstance(value, str):
        echo(value)
    else:
        emit(value)


@config_command.command("set")
@click.argument("key")
@click.argument("value")
def set_(key: str, value: str) -> None:
    """Set one value; an empty one removes it."""
    checked = _checked(key, value)

    def change(content: dict[str, Any]) -> None:
        if checked is None:
            content.pop(key, None)
        else:
            content[key] = checked

    config.update(change)


@config_command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Print all values, the token masked."""
    content = config.load()
    if content.get("token"):
        content["token"] = _masked(str(content["token"]))
    if as_json:
        emit(content)
        return
    for key, value in content.items():
        echo(f"{key} = {value}")


def _checked(key: str, value: str) -> str | float | None:
    if key == "token":
        raise InvalidRequest(
            "A token does not belong on a command line, where others see it.",
            hint="Paste it to: gpu-dev login --token-stdin",
        )
    if key not in config.KEYS:
        raise InvalidRequest(f"{key!r} is no setting of gpu-dev.", hint=_known())
    if value == "":
        return None
    if key == "url":
        return config.clean_url(value)
    if key == "hours":
        number = read_hours(value)
        if number is None or number <= 0:
            raise InvalidRequest(f"{value!r} is not a length of time.", hint=f"Use {EXAMPLES}.")
        return number
    return value


def _known() -> str:
    return "There are: " + ", ".join(config.KEYS)


def _masked(token: str) -> str:
    return f"{token[:4]}…" if len(token) > 12 else "…"
