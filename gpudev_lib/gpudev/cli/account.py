"""``login``, ``logout``, ``whoami`` and ``config``."""

from __future__ import annotations

import getpass
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from gpudev import config
from gpudev.cli.browser import browser_here, open_page
from gpudev.cli.output import echo, emit, json_option, say
from gpudev.errors import GpuDevError, InvalidRequest, NotLoggedIn, UnexpectedAnswer
from gpudev.hours import EXAMPLES, read_hours


@click.command()
@click.option("--url", help="Address of the hub. Default: the configured hub.")
@click.option("--no-browser", is_flag=True, help="Show a code to type in a browser on any machine.")
@click.option("--ssh", "by_ssh", is_flag=True, help="Log in with an SSH key that the hub knows.")
@click.option(
    "--key", type=click.Path(path_type=Path), help="SSH key for --ssh. Default: keys in the agent or ~/.ssh."
)
@click.option(
    "--user",
    help="Log in with a password, as this user. With --ssh: your name at the hub. Default: the configured"
    " name, or your local account.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option(
    "--token-stdin", is_flag=True, help="Read a token from standard input. Create it at URL/hub/token."
)
def login_command(
    url: str | None,
    no_browser: bool,
    by_ssh: bool,
    key: Path | None,
    user: str | None,
    password_stdin: bool,
    token_stdin: bool,
) -> None:
    """Log in: get a token from the hub and save it.

    Opens a page of the hub in your browser, where you confirm the login. Without a browser on this machine,
    shows a code to type on that page from any browser.

    The token is valid for 30 days. Commands renew it, up to 90 days after the login; then log in again. The
    token can only manage your reservations and open your servers. It is saved in the keyring of the system if
    gpudev[keyring] is installed, else in the configuration file.
    """
    from gpudev import login

    ways = {
        "--password-stdin": password_stdin,
        "--token-stdin": token_stdin,
        "--ssh": by_ssh,
        "--no-browser": no_browser,
    }
    chosen = [name for name, given in ways.items() if given]
    if len(chosen) > 1:
        raise click.UsageError(f"Use either {chosen[0]} or {chosen[1]}, not both.")
    if key is not None and not by_ssh:
        raise click.UsageError("--key needs --ssh.")
    if user is not None and no_browser:
        raise click.UsageError("--no-browser does not need --user: you log in on the page.")
    content = config.load()
    hub = config.clean_url(url or config.hub_from_environment() or content.get("url") or _ask_url())
    if token_stdin:
        token = _line_of_input().strip()
        if not token:
            raise click.UsageError(
                "Standard input contains no token. Paste a token, or leave out --token-stdin."
            )
    elif password_stdin or (user is not None and not by_ssh):
        name = user or content.get("user") or _own_name()
        if password_stdin:
            password = _line_of_input()
        else:
            password = click.prompt(f"Password of {name} at {hub}", hide_input=True, err=True)
        token = login.by_password(hub, name, password, tell=say)
    else:
        account = (user or content.get("user") or _own_name()) if by_ssh else None
        token = _by_flow(hub, account, key, no_browser=no_browser)
    login_, place, expires_at = login.store(hub, token, tell=say)
    until = "" if expires_at is None else f" It is valid until {expires_at[:10]}."
    echo(f"Logged in to {hub} as {login_}. The token is saved in {place}.{until}")
    if os.environ.get("GPUDEV_TOKEN"):
        say("GPUDEV_TOKEN is set, and is used instead of the saved token. To use the saved token, unset it.")


def _by_flow(hub: str, account: str | None, key: Path | None, *, no_browser: bool) -> str:
    """Return a token for the SSH key of an account; without an account, after a login in a browser."""
    from gpudev.login_flows import Login

    flow = Login(hub, say)
    if account is not None:
        result = flow.by_key(account, key)
    elif no_browser or not browser_here():
        result = flow.by_code()
    else:
        result = flow.in_browser(open_page)
    if result.token is None:
        raise UnexpectedAnswer("The hub confirmed the login without a token.")
    return result.token


@click.command()
def logout_command() -> None:
    """Log out: delete the token at the hub and on this machine."""
    from gpudev.login_api import LoginApi

    settings = config.resolve()
    if not settings.stored:
        raise InvalidRequest(
            "The token does not come from gpu-dev login: GPUDEV_TOKEN or this server's environment has it.",
            hint="Unset GPUDEV_TOKEN, or delete the token on the Tokens page of the hub.",
        )
    problem: GpuDevError | None = None
    try:
        with closing(LoginApi(settings.url, settings.token, tell=say)) as api:
            api.delete_token()
    except NotLoggedIn:
        pass  # the hub no longer knows the token
    except GpuDevError as error:
        problem = error
    config.forget_token()
    if problem is not None:
        problem.message = f"The token was deleted on this machine, but not at the hub: {problem.message}"
        problem.hint = f"Revoke it at {settings.url}/hub/token."
        raise problem
    echo(f"Logged out of {settings.url}. The token was deleted there and on this machine.")


@click.command()
@json_option
def whoami_command(as_json: bool) -> None:
    """Show your account, the hub, and what your token may do.

    Exits with 5 if you are not logged in.
    """
    from gpudev.login_api import LoginApi
    from gpudev.renewal import StoredToken

    settings = config.resolve()
    keeper = StoredToken(settings) if settings.stored else None
    with closing(LoginApi(settings.url, settings.token, tell=say, keeper=keeper)) as api:
        me, info = api.me(), api.token_info()
    place = config.token_place() if settings.stored else "the environment"
    account = me.user if info is None else info.account
    scopes = [] if info is None else info.scopes
    expires = None if info is None else info.expires_at
    if as_json:
        emit(
            {
                "user": me.user,
                "account": account,
                "subject": me.subject,
                "operator": me.operator,
                "hub": settings.url,
                "scopes": scopes,
                "expires_at": expires,
                "stored_in": place,
            }
        )
        return
    until = "unknown to this hub" if info is None else "no expiry" if expires is None else expires[:10]
    echo(f"{me.user} at {settings.url}")
    echo(f"  account      {account} ({me.subject}){', operator' if me.operator else ''}")
    echo(f"  token        in {place}")
    echo(f"  valid until  {until}")
    for index, scope in enumerate(scopes):
        echo(f"  {'' if index else 'scopes':<11}  {scope}")


def _line_of_input() -> str:
    """Read one line from standard input."""
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest("Standard input is not UTF-8 text.") from error


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise click.UsageError(
            "Your account on this machine has no name. Give your name at the hub with --user."
        ) from error


def _ask_url() -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("No hub is configured. Give its address with --url.")
    url: str = click.prompt("Address of the hub", err=True)
    return url


@click.group()
def config_command() -> None:
    """Read and change the configuration file.

    The file is ~/.gpu-dev-config, or the file named by GPUDEV_CONFIG. Keys of other tools are not changed.

    Settings: url (the hub), user, gpu_type and hours (defaults for `reserve`), and token (from `gpu-dev
    login`).
    """


@config_command.command("get")
@click.argument("key")
def get(key: str) -> None:
    """Print one setting. Exits with 1 if it is not set."""
    content = config.load()
    if key == "token" and (token := config.stored_token()):
        echo(token)
        return
    if key not in content:
        if key not in config.KEYS:
            raise _no_setting(key)
        how = "gpu-dev login" if key in config.WRITTEN else f"gpu-dev config set {key} VALUE"
        step = "Log in" if key in config.WRITTEN else "Set it"
        raise GpuDevError(f"{key} is not set in {config.path()}.", hint=f"{step} with: {how}", code="not_set")
    value = content[key]
    if isinstance(value, str):
        echo(value)
    else:
        emit(value)


@config_command.command("set")
@click.argument("key")
@click.argument("value")
def set_(key: str, value: str) -> None:
    """Change one setting: url, user, gpu_type or hours.

    An empty value removes the setting. Another url also removes the token, which is for one hub only.
    """
    checked = _checked(key, value)
    if key == "url" and checked != (old := config.load().get("url")) and config.stored_token():
        config.forget_token()
        say(f"The token for {old or 'the previous hub'} was removed from this machine.")
        say(f"Log in with: gpu-dev login{'' if checked else ' --url URL'}")

    def change(content: dict[str, Any]) -> None:
        if checked is None:
            content.pop(key, None)
        else:
            content[key] = checked

    config.update(change)


@config_command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Print all settings, with the token masked."""
    content = config.load()
    if content.get("token"):
        token = str(content["token"])
        content["token"] = f"{token[:4]}…" if len(token) > 12 else "…"
    if as_json:
        emit(content)
        return
    for key, value in content.items():
        echo(f"{key} = {value}")


def _checked(key: str, value: str) -> str | float | None:
    if key in config.WRITTEN:
        raise InvalidRequest(
            "The token was not saved: other users of this machine can see command lines.",
            hint="Paste it to: gpu-dev login --token-stdin",
        )
    if key not in config.KEYS:
        raise _no_setting(key)
    if value == "":
        return None
    if key == "url":
        return config.clean_url(value)
    if key == "hours":
        number = read_hours(value)
        if number is None or number <= 0:
            raise InvalidRequest(
                f"{value!r} is not a length of time.", hint=f"Use a value such as {EXAMPLES}."
            )
        return number
    return value


def _no_setting(key: str) -> InvalidRequest:
    known = ", ".join(key for key in config.KEYS if key not in config.WRITTEN[1:])
    return InvalidRequest(f"gpu-dev has no setting {key!r}.", hint=f"Settings: {known}.")
