"""Writes ``docs/settings.md`` from the fields that the services read: ``python -m posthouse.docs [--check]``.

The services are loaded by name, because the command line does not depend on them; one that cannot be loaded is an error.
"""

import argparse
import difflib
import importlib
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from shared.config import ServiceSettings

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
SERVICES = (("api", "api"), ("delivery", "delivery"), ("hooks", "hooks"), ("dsn-ingest", "dsn_ingest"))

INTRODUCTION = """\
# Settings

Every service reads its settings from the environment. A setting that is missing or wrong stops the process with one line that
names it. This page is made from the code by `python -m posthouse.docs`; change the field, not the page.
"""

_WORDS: dict[object, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret",
    IPv4Network: "network",
    IPv6Network: "network",
}


def document(common: type[BaseSettings], services: Iterable[tuple[str, type[BaseSettings]]]) -> str:
    """Return the whole page: the settings of all services, then what each adds or changes."""
    parts = [INTRODUCTION, "\n## All services\n\n", *_table(common, common.model_fields)]
    for name, settings in services:
        own = {
            field: info
            for field, info in settings.model_fields.items()
            if field not in common.model_fields or not _same(info, common.model_fields[field])
        }
        parts.append(f"\n## {name}\n\n")
        parts.extend(_table(settings, own) if own else ["Nothing beyond the settings of all services.\n"])
    return "".join(parts)


def load_services() -> list[tuple[str, type[BaseSettings]]]:
    """Return the settings class of each service.

    Raises:
        ImportError: a service is not installed or broken.
        TypeError: its ``config`` has no class ``Settings``.
    """
    loaded = []
    for name, package in SERVICES:
        settings = getattr(importlib.import_module(f"{package}.config"), "Settings", None)
        if not (isinstance(settings, type) and issubclass(settings, BaseSettings)):
            message = f"{package}.config has no settings class named Settings"
            raise TypeError(message)
        loaded.append((name, settings))
    return loaded


def _same(one: FieldInfo, other: FieldInfo) -> bool:
    return (one.annotation, one.default, one.description, one.metadata) == (
        other.annotation,
        other.default,
        other.description,
        other.metadata,
    )


def _table(settings: type[BaseSettings], fields: dict[str, FieldInfo]) -> Iterator[str]:
    prefix = str(settings.model_config.get("env_prefix", ""))
    yield "| Setting | Values | Default | Meaning |\n|---|---|---|---|\n"
    for name, info in fields.items():
        if not info.description:
            message = f"{settings.__module__}.{settings.__qualname__}.{name} has no description"
            raise ValueError(message)
        cells = (f"`{prefix}{name.upper()}`", _values(info), _default(info), info.description)
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=False)
    # A secret has no default anywhere: an empty list of secrets stops the process as much as a missing one.
    if info.is_required() or (not value and SecretStr in _types(info.annotation)):
        return "**required**"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:.15g}`"
    if isinstance(value, (tuple, frozenset)):
        value = ",".join(str(item) for item in sorted(value))
    return "none" if value is None or value == "" else f"`{value}`"


def _values(info: FieldInfo) -> str:
    alternatives = [kind for kind in _types(info.annotation) if kind is not type(None)]
    literals = [item for kind in alternatives if get_origin(kind) is Literal for item in get_args(kind)]
    if literals:
        return ", ".join(f"`{item}`" for item in literals)
    listed = any(get_origin(kind) in {tuple, frozenset, list, set} for kind in _flat(info.annotation))
    words = list(dict.fromkeys(_WORDS.get(kind, getattr(kind, "__name__", str(kind))) for kind in alternatives))
    text = " or ".join(words)
    return f"{text}, several by commas" if listed else text + _bounds(info.metadata)


def _bounds(metadata: Sequence[Any]) -> str:
    words = {Ge: "from", Gt: "above", Le: "up to", Lt: "below"}
    values = {
        kind: getattr(item, kind.__name__.lower()) for item in metadata for kind in words if isinstance(item, kind)
    }
    return "".join(f" {word} {values[kind]:.15g}" for kind, word in words.items() if kind in values)


def _flat(annotation: object) -> Iterator[object]:
    """Yield an annotation and everything it is made of but the members of a Literal."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _flat(part)


def _types(annotation: object) -> list[object]:
    """Return the plain types and Literals that a value, or an item of a list of values, may have."""
    containers = (tuple, frozenset, list, set, Union, types.UnionType)
    return [part for part in _flat(annotation) if part is not ... and get_origin(part) not in containers]


def main() -> int:
    """Write the page, or with ``--check`` say how it differs; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m posthouse.docs", description="Writes docs/settings.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is out of date")
    check = parser.parse_args().check
    wanted = document(ServiceSettings, load_services())
    found = OUTPUT.read_text() if OUTPUT.exists() else ""
    if wanted == found:
        return 0
    if not check:
        OUTPUT.parent.mkdir(exist_ok=True)
        OUTPUT.write_text(wanted)
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(
            found.splitlines(keepends=True),
            wanted.splitlines(keepends=True),
            "docs/settings.md",
            "made from the code",
        )
    )
    sys.stderr.write("docs/settings.md is out of date; run `python -m posthouse.docs`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
