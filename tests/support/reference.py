"""The reference pages, made from the code; ``python tests/support/reference.py`` writes them anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

import gpudev
from gpudev.cli.app import gpu_dev
from gpudev_hub.core.errors import STATUS
from gpudev_hub.web.app import public_routes
from gpudev_hub.web.settings import WebSettings

DOCS = Path(__file__).resolve().parents[2] / "docs"

API_HEAD = """\
# API

JSON over HTTP below `/services/gpudev/`, with a Hub token (`Authorization: token …`) that has the scope
`custom:gpudev:reserve`; `gpu-dev login` makes one. The OpenAPI document at
`/services/gpudev/api/v1/openapi.json` has every field; the types are those of `gpudev/wire.py`. Unknown
fields and parameters are refused. Times are RFC 3339 in UTC, `gpus` is per node. A `request_id` of your own
makes a repeated `POST reservations` safe. `?wait=20&version=7` answers when the version is no longer 7, or
after 20 seconds.

| method | path | what |
|---|---|---|
"""
API_MIDDLE = """
## Errors

Every answer that is not 2xx is `{"error": {"code", "message", "hint"}}`; codes are stable.

| code | HTTP status |
|---|---|
"""
CLI_HEAD = """\
# Command line

`gpu-dev COMMAND --help` says all of it. Names are a reservation's name or id. Shell completion is click's:
`eval "$(_GPU_DEV_COMPLETE=bash_source gpu-dev)"`.

Exit codes: 0 done, 1 unexpected, 2 bad usage or input, 3 no such reservation, 4 refused, 5 not logged in or
not allowed, 6 cannot be reached, 7 timed out, 8 ended while waited for, 9 configuration file, 130
interrupted.

The configuration is `~/.gpu-dev-config` (mode 0600, a JSON object; `GPUDEV_CONFIG` names another file).
Keys that are not gpu-dev's own stay as they are; a file that can't be parsed is an error and is left
untouched.

| command | what | options |
|---|---|---|
"""
LIBRARY_HEAD = """\
# Library

```python
import gpudev

with gpudev.reserve(2, hours=1, name="demo") as box:  # waits for its turn; released at the end
    print(box.ssh_command, box.ends_at)
    box.run("nvidia-smi")
```

Settings come from arguments, then `GPUDEV_URL` and `GPUDEV_TOKEN`, then (in a notebook on a spawned server)
the Hub's own variables, then the configuration file. A lost answer never makes two reservations. The tree
of errors is drawn in `gpudev/errors.py`; every error has `.code`, `.message` and `.hint`.

| name | what |
|---|---|
"""


def api_page() -> str:
    """``docs/reference-api.md``."""
    routes = public_routes(WebSettings(public_url="http://127.0.0.1:8000/"))
    rows = "".join(
        f"| {route.method} | `{route.path}` | {route.summary.splitlines()[0]} |\n" for route in routes
    )
    codes = "".join(f"| `{code}` | {status} |\n" for code, status in STATUS.items())
    return API_HEAD + rows + API_MIDDLE + codes


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that is not hidden, with its full name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        elif not command.hidden:
            yield f"{prefix}{name}", command


def cli_page() -> str:
    """``docs/reference-cli.md``."""
    rows = ""
    for name, command in commands(gpu_dev):
        options = " ".join(
            f"`{'/'.join([*parameter.opts, *parameter.secondary_opts])}`"
            for parameter in command.params
            if isinstance(parameter, click.Option)
        )
        about = command.get_short_help_str(200)
        rows += f"| `gpu-dev {name}` | {about} | {options} |\n"
    return CLI_HEAD + rows


def library_page() -> str:
    """``docs/reference-library.md``."""
    rows = ""
    for name in sorted(gpudev.__all__):
        about = (getattr(gpudev, name).__doc__ or "").strip().splitlines()
        rows += f"| `gpudev.{name}` | {about[0] if about else ''} |\n"
    members = sorted(n for n in vars(gpudev.Reservation) if not n.startswith("_"))
    return LIBRARY_HEAD + rows + "\nOf a `Reservation`: " + ", ".join(f"`{n}`" for n in members) + ".\n"


PAGES = {
    "reference-api.md": api_page,
    "reference-cli.md": cli_page,
    "reference-library.md": library_page,
}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (DOCS / page).write_text(make())
        sys.stdout.write(f"{DOCS / page}\n")
