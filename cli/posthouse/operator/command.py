"""What all the operator commands share: the options that say where, the client, the form of the output.

A command is a function of an :class:`Operator` and its own arguments and options; :func:`command` adds the rest::

    @command(group, "show")
    def show(operator: Operator, account: AccountArgument) -> None: ...
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from posthouse.operator.client import Client, Document
from posthouse.operator.place import find_place
from posthouse.operator.show import Output, note
from shared.errors import ConfigurationError

_EVERYTHING = 100_000
_LONGEST_PASSWORD = 1024

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id, or its name.")]
LimitOption = Annotated[int, typer.Option(min=1, max=_EVERYTHING, help="Show so many at most.")]


@dataclass(frozen=True, slots=True)
class Operator:
    """A person, or a program, with an operator's key at an installation."""

    client: Client
    output: Output

    def account(self, given: str) -> str:
        """Return the path of an account that was given by id or name.

        Raises:
            ConfigurationError: no account has this name, or several have.
            Refused: the installation did not answer.
        """
        return f"/v1/accounts/{self.find('/v1/accounts', given, ('name',), 'account')}"

    def find(self, path: str, given: str, fields: tuple[str, ...], what: str) -> str:
        """Return the id of one item of a list, given by its id or by what one of ``fields`` holds; raises as :meth:`account`."""
        if given.isascii() and given.isdecimal() and len(given) <= 19:
            return given
        wanted = given.lower()
        items = self.client.listed(path, _EVERYTHING).items
        found = [item for item in items if any(str(item.get(field)).lower() == wanted for field in fields)]
        if not found:
            raise ConfigurationError(f"there is no {what} {given!r}; `list` shows them with their ids")
        if len(found) > 1:
            ids = ", ".join(str(item.get("id")) for item in found)
            raise ConfigurationError(f"{len(found)} are called {given!r}: give one of the ids {ids}")
        return str(found[0].get("id"))

    @staticmethod
    def number(given: str, what: str) -> str:
        """Return an id that was given.

        Raises:
            ConfigurationError: it is no number, and would be another path.
        """
        if not (given.isascii() and given.isdecimal() and len(given) <= 19):
            raise ConfigurationError(f"{given!r} is no id of an {what}; `list` shows them")
        return given

    @staticmethod
    def word(given: str, what: str) -> str:
        """Return a name that was given, as part of a path.

        Raises:
            ConfigurationError: it has characters that no such name has.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", given):
            raise ConfigurationError(f"{given!r} is no name of a {what}: those have a-z, 0-9, - and _")
        return given


def new_group(name: str, about: str) -> typer.Typer:
    """Return a group of commands."""
    return typer.Typer(name=name, help=about, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def command(group_of_commands: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function to a group as a command that also takes ``--url``, ``--key``, ``--local`` and ``--json``.

    A parameter whose type is a dataclass stands for an option per field.
    """

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(run, include_extras=True)
        groups: dict[str, Any] = {of: hint for of, hint in hints.items() if is_dataclass(hint) and hint is not Operator}
        own = [*inspect.signature(run).parameters.values()][1:]
        common = [*inspect.signature(_where).parameters.values()]
        shown = [option for parameter in own for option in _options(parameter, groups.get(parameter.name))]

        def wrapped(**values: object) -> None:
            where: dict[str, Any] = {parameter.name: values.pop(parameter.name) for parameter in common}
            for of, group in groups.items():
                values[of] = group(**{field.name: values.pop(field.name) for field in fields(group)})
            with contextmanager(_where)(**where) as operator:
                run(operator, **values)

        wrapped.__name__, wrapped.__doc__ = run.__name__, run.__doc__
        wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in (*shown, *common)}
        wrapped.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what inspect.signature() returns
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*shown, *common)]
        )
        group_of_commands.command(name)(wrapped)
        return run

    return decorate


def _options(parameter: inspect.Parameter, group: Any) -> list[inspect.Parameter]:  # noqa: ANN401 - a dataclass, or None
    """Return the parameters that stand for one: itself, or the fields of its dataclass."""
    if group is None:
        return [parameter]
    hints = get_type_hints(group, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name])
        for field in fields(group)
    ]


def _where(
    *,
    place_url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="The installation, else POSTHOUSE_URL.", show_default=False),
    ] = None,
    place_key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="An operator's key, else POSTHOUSE_KEY, which `ps` does not show.",
            show_default=False,
        ),
    ] = None,
    place_local: Annotated[
        Path | None,
        typer.Option(
            "--local", metavar="DATA_DIR", help="A running `posthouse local`, by its data folder.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> Iterator[Operator]:
    """Yield who works where; its parameters are options of every command."""
    place = find_place(place_url, place_key, place_local)
    if place.is_exposed:
        note("warning: the key travels in the clear over http; use https off this machine")
    with Client(place) as client:
        yield Operator(client, Output(as_json=as_json))


def given(**fields: object) -> Document:
    """Return the fields that were given; the installation's defaults hold for the others."""
    return {name: value for name, value in fields.items() if value is not None}


def read_password() -> str:
    """Return the first line of standard input.

    Raises:
        ConfigurationError: it holds none, or too much.
    """
    line = sys.stdin.readline(_LONGEST_PASSWORD + 2).rstrip("\r\n")
    if not line or len(line) > _LONGEST_PASSWORD:
        raise ConfigurationError(
            f"standard input holds no password of 1 to {_LONGEST_PASSWORD} characters in its first line"
        )
    return line
