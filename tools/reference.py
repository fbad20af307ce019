"""Generate the reference pages from the code: ``python tools/reference.py`` writes them."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import click
import msgspec

import gpudev
from gpudev import config, wire
from gpudev.cli.app import gpu_dev
from gpudev_hub.core.errors import STATUS
from gpudev_hub.web.app import PUBLIC
from gpudev_hub.web.routes import Route, Text
from reference_texts import (
    API_ERRORS,
    API_HEAD,
    API_TYPES,
    CLI_EXITS,
    CLI_HEAD,
    CLI_NETWORK,
    LIBRARY_ERRORS,
    LIBRARY_HEAD,
    MEANINGS,
    TITLES,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"


def api_page() -> str:
    """``docs/reference-api.md``."""
    page = API_HEAD
    for access, title in TITLES.items():
        page += f"\n## {title}\n"
        for route in PUBLIC:
            if route.access is access:
                page += "\n" + _route(route)
    page += API_TYPES
    for kind in _types(PUBLIC):
        page += f"\n### {kind.__name__}\n\n{_first(kind.__doc__)}\n\n{_fields(kind)}"
    codes = "".join(f"| `{code}` | {status} | {MEANINGS[code]} |\n" for code, status in STATUS.items())
    return page + API_ERRORS + codes


def _route(route: Route) -> str:
    text = f"### {route.method} `{route.path}`\n\n{route.summary}\n\n"
    for param in route.query:
        default = "" if param.required or param.default is None else f" (default {_json(param.default)})"
        text += f"- `?{param.name}=` {param.description}{default}\n"
    if route.takes is not None:
        text += f"- takes {_linked(route.takes)}\n"
    text += f"- answers {route.success}"
    if route.answers is Text:
        text += " with text"
    elif isinstance(route.answers, type) and issubclass(route.answers, msgspec.Struct):
        text += f" with {_linked(route.answers)}"
    elif route.answers is not None:
        text += " with JSON"
    text += "\n"
    codes = [code for code in STATUS if code in route.all_codes]
    return text + (f"- errors: {', '.join(f'`{code}`' for code in codes)}\n" if codes else "")


def _types(routes: list[Route]) -> list[type[msgspec.Struct]]:
    """Return all types of requests and answers, and the types inside them, in the order of first use."""
    found: dict[type[msgspec.Struct], None] = {}

    def add(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            if kind not in found:
                found[kind] = None
                for inner in get_type_hints(kind).values():
                    add(inner)
        else:
            for inner in get_args(kind):
                add(inner)

    for route in routes:
        add(route.takes)
        add(route.answers)
    add(wire.ErrorBody)
    return list(found)


def _fields(kind: type[msgspec.Struct]) -> str:
    rows = "| field | type | |\n|---|---|---|\n"
    about = _docstrings(kind)
    for field in msgspec.structs.fields(kind):
        made = field.default_factory is not msgspec.NODEFAULT
        value = field.default_factory() if made else field.default
        default = "" if field.required else " (optional)" if value is msgspec.UNSET else f" = {_json(value)}"
        rows += f"| `{field.name}` | {_named(field.type)}{default} | {about.get(field.name, '')} |\n"
    return rows


def _docstrings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstring below each field in the source."""
    body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]).body
    return {
        field.target.id: " ".join(str(said.value.value).replace("``", "`").split())
        for field, said in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(said, ast.Expr)
        and isinstance(said.value, ast.Constant)
    }


def _named(kind: Any) -> str:
    """Return a type in words."""
    arguments = get_args(kind)
    origin = get_origin(kind)
    if kind is NoneType:
        return "null"
    if origin is Annotated:
        return _named(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (UnionType, Union):
        return " or ".join(_named(part) for part in arguments if part is not msgspec.UnsetType)
    if origin is list:
        return f"list of {_named(arguments[0])}"
    if origin is dict:
        return f"object of {_named(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _linked(kind)
    return {str: "string", int: "integer", float: "number", bool: "boolean"}[kind]


def _linked(kind: type) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def _json(value: object) -> str:
    return f"`{msgspec.json.encode(value).decode()}`"


def _first(text: str | None) -> str:
    return (text or "").strip().splitlines()[0].replace("``", "`")


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Return every command that is not hidden, with its full name."""
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
    page = CLI_HEAD
    for name, command in commands(gpu_dev):
        context = click.Context(command, info_name=f"gpu-dev {name}")
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        about = inspect.cleandoc(command.help or "")
        page += f"\n## gpu-dev {name}\n\n`{usage}`\n\n{about}\n"
        rows = [
            record
            for parameter in command.params
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
        ]
        if rows:
            page += "\n| option | |\n|---|---|\n"
            page += "".join(f"| `{option}` | {text} |\n" for option, text in rows)
    keys = "".join(f"| `{key}` | {text} |\n" for key, text in config.KEYS.items())
    return page + CLI_EXITS + keys + CLI_NETWORK


def library_page() -> str:
    """``docs/reference-library.md``."""
    page = LIBRARY_HEAD
    names = sorted(gpudev.__all__)
    for name in names:
        value = getattr(gpudev, name)
        if inspect.isfunction(value):
            page += f"\n### gpudev.{name}\n\n{_signature(name, value)}\n{_body(value)}\n"
    for kind in (gpudev.Reservation, gpudev.Client, gpudev.Progress):
        page += f"\n## gpudev.{kind.__name__}\n\n{_body(kind)}\n\n| | |\n|---|---|\n"
        for member, value in vars(kind).items():
            if not member.startswith("_"):
                called = "" if isinstance(value, property) else _parameters(value)
                page += f"| `{member}{called}` | {_line(value)} |\n"
    page += LIBRARY_ERRORS
    for name in names:
        value = getattr(gpudev, name)
        if inspect.isclass(value) and issubclass(value, gpudev.GpuDevError):
            base = value.__bases__[0].__name__
            below = "" if base == "Exception" else base
            page += f"| `{name}` | {below} | {value.exit_code} | {_line(value)} |\n"
    return page


def _signature(name: str, function: Callable[..., object]) -> str:
    return f"```python\n{name}{_parameters(function)}\n```\n"


def _parameters(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    kept = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    return str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty))


def _body(value: object) -> str:
    """Return a docstring as Markdown. Its arguments become a list."""
    text = inspect.getdoc(value) or ""
    text = re.sub(r"\n +(\w+): ", r"\n- `\1`: ", text).replace("Args:\n", "\n").replace("``", "`")
    return re.sub(r"\n +", "\n  ", text).replace("\n\n\n", "\n\n")


def _line(value: object) -> str:
    paragraph = (inspect.getdoc(value) or "").split("\n\n")[0]
    return " ".join(paragraph.replace("``", "`").split())


PAGES = {
    "reference-api.md": api_page,
    "reference-cli.md": cli_page,
    "reference-library.md": library_page,
}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (DOCS / page).write_text(make())
        sys.stdout.write(f"{DOCS / page}\n")
