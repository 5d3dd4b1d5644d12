"""Commands whose options are the fields of a dataclass: each setting is declared once, with its default and its meaning."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


def option(meaning: str, *, variable: str | None = None, **more: Any) -> Any:  # noqa: ANN401 - typer's own types
    """Describe a field's option; its name is the field's, with dashes.

    Args:
        meaning: for ``--help``.
        variable: environment variable that is read where the option is not given.
        more: further arguments of :func:`typer.Option`.
    """
    return typer.Option(help=meaning, envvar=variable, show_envvar=False, **more)


def settings_command(settings: type[S]) -> Callable[[Callable[[S], None]], Callable[..., None]]:
    """Turn a function of a settings dataclass into one that typer reads as taking each field as an option."""
    hints = get_type_hints(settings, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(settings)
    ]

    def decorate(run: Callable[[S], None]) -> Callable[..., None]:
        def command(**values: object) -> None:
            run(settings(**values))

        command.__name__, command.__doc__ = run.__name__, run.__doc__
        command.__annotations__ = hints
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect.signature() returns
        return command

    return decorate
