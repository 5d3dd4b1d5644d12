"""How much a site is sent at once: rules by pattern, those that Posthouse brings along and those of operators.

The former are data (``traffic_rules.csv``), each with the source of its figures.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Final

from shared.errors import ConfigurationError, ValidationFailed

_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_COLUMNS: Final = [
    "pattern",
    "connections",
    "messages_per_second",
    "messages_per_connection",
    "recipients_per_transaction",
    "source",
]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a site may be sent at once; None: nothing is said about it."""

    connections: int | None = None
    messages_per_second: float | None = None
    """Transactions, over all connections and processes."""
    messages_per_connection: int | None = None
    recipients_per_transaction: int | None = None

    def over(self, other: "Traffic") -> "Traffic":
        """Return this, and where it says nothing, what the other says."""
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return Traffic(**{name: getattr(other, name) if value is None else value for name, value in mine.items()})


NOTHING: Final = Traffic()
MOST: Final = Traffic(1_000, 10_000.0, 100_000, 1_000)
"""The largest values a rule may have."""
SLOWEST: Final = 0.01
"""Messages per second: one in 100 seconds."""


def check_pattern(pattern: str) -> None:
    """See to it that a pattern is one: a name, ``.suffix`` for all below a name, or ``*``.

    Raises:
        ValidationFailed: it is none.
    """
    if pattern != "*" and not _NAME.fullmatch(pattern.removeprefix(".")):
        raise ValidationFailed(
            f"{pattern[:100]!r} is no pattern: write a provider or domain (google.com), all below one (.example), or *, in lower case and as A-label",
            field="pattern",
        )


def patterns_of(name: str) -> list[str]:
    """Return the patterns that match a name, the most telling first."""
    labels = name.split(".")
    return [name, *("." + ".".join(labels[start:]) for start in range(1, len(labels))), "*"]


def traffic_of(name: str, own: Mapping[str, Traffic], defaults: Mapping[str, Traffic] | None = None) -> Traffic:
    """Return what holds for a site.

    For each figure the most telling rule that has it counts: an exact one before ``.suffix`` before ``*``, and of two with the
    same pattern the operator's.

    Args:
        name: of a provider, a recipient domain that is its own host, or a relay's host.
        own: the rules of operators by pattern.
        defaults: those that Posthouse brings along, unless given.
    """
    found = NOTHING
    for pattern in patterns_of(name):
        for rules in (own, DEFAULTS if defaults is None else defaults):
            found = found.over(rules.get(pattern, NOTHING))
    return found


def load_rules(lines: Iterable[str]) -> dict[str, Traffic]:
    """Read rules from the lines of a CSV.

    Raises:
        ConfigurationError: names the row and what is wrong with it.
    """
    rows = csv.reader(lines, strict=True)
    if next(rows, None) != _COLUMNS:
        raise ConfigurationError(f"traffic_rules.csv must begin with the line {','.join(_COLUMNS)}")
    rules: dict[str, Traffic] = {}
    for row in rows:
        where = f"traffic_rules.csv, line {rows.line_num}"
        try:
            pattern, connections, rate, messages, recipients, source = row
            check_pattern(pattern)
            rule = Traffic(
                int(connections) if connections else None,
                float(rate) if rate else None,
                int(messages) if messages else None,
                int(recipients) if recipients else None,
            )
        except (ValueError, ValidationFailed) as error:
            raise ConfigurationError(f"{where}: {error}") from error
        if pattern in rules or not source.strip() or rule == NOTHING:
            raise ConfigurationError(f"{where}: a pattern comes once, says something, and has a source")
        rules[pattern] = rule
    return rules


DEFAULTS: Final = load_rules(
    files("shared.mail").joinpath("traffic_rules.csv").read_text(encoding="utf-8").splitlines()
)
