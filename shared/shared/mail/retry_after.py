"""How long a server wants us to wait, read from the text of its temporary refusal.

No RFC gives that a place in a reply, so servers write it as they like; the rules are data (``retry_rules.csv``): a pattern, and the
reply that taught it with the seconds it asks for. ``{wait}`` in a pattern stands for an amount of time as people write it ("5
minutes", "4 min 30 s", "an hour", "00:04:30"), ``{seconds}`` for a bare number.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Final

from shared.errors import ConfigurationError
from shared.mail.classify import without_addresses
from shared.mail.status import clean_text

_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_UNIT: Final = r"(?:s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|days?)\b"
_NUMBER: Final = r"[0-9]{1,6}"
_WAIT: Final = (
    r"(?:about |around |approximately |at least |another |the next |~ ?){0,2}"
    r"(?:(?P<clock>[0-9]{1,3}:[0-5][0-9]:[0-5][0-9])(?![0-9:])"
    rf"|(?P<number>{_NUMBER}|an?\b|one\b)[ -]?(?:more |further )?(?P<unit>{_UNIT})"
    rf"(?:,? (?:and )?(?P<rest>{_NUMBER}) ?(?P<rest_unit>{_UNIT}))?)"
)
_SECONDS: Final = rf"(?P<seconds>{_NUMBER})(?![\w.:]| ?\w)"
# A repetition without an end is what makes a pattern take for ever on a text that was written for it.
_ENDLESS: Final = re.compile(r"(?<!\\)(?:[*+]|\{\d{0,6},\})")


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of ``retry_rules.csv``: how one kind of server asks us to wait."""

    pattern: re.Pattern[str]
    seconds: int
    """What the reply that taught it asks for."""
    reply: str


def asked_wait(text: str) -> timedelta | None:
    """Return how long a temporary refusal asks us to wait, by the first rule that reads it; None where none does.

    The answer may be of any length, from nothing to a century: whoever uses it has bounds.
    """
    words = _words(text)
    if not any(character.isdigit() for character in words) and " a" not in words and " one " not in words:
        return None  # most refusals say "later"; looking costs more than this
    return next((wait for rule in RULES if (wait := _read(rule.pattern, words)) is not None), None)


_LOOKED_AT: Final = 1000  # characters; what is asked of us stands in front, and looking costs
_LINE_CODE: Final = re.compile(r"^[45]\.\d{1,3}\.\d{1,3}\s", re.MULTILINE)


def _words(text: str) -> str:
    """Return a text as rules see it: lower case, one line, without addresses, and without the enhanced codes in front of its lines."""
    # Reply codes stay: nothing tells `450` in front of a line from `450 seconds` behind a line break.
    return " ".join(_LINE_CODE.sub("", without_addresses(clean_text(text).lower())).split())[:_LOOKED_AT]


def _read(pattern: re.Pattern[str], words: str) -> timedelta | None:
    found = pattern.search(words)
    if found is None:
        return None
    groups = found.groupdict()
    if groups.get("seconds"):
        return timedelta(seconds=int(groups["seconds"]))
    if groups.get("clock"):
        hours, minutes, seconds = map(int, groups["clock"].split(":"))
        return timedelta(hours=hours, minutes=minutes, seconds=seconds)
    wait = _amount(groups["number"], groups["unit"])
    return wait + _amount(groups["rest"], groups["rest_unit"]) if groups.get("rest") else wait


def _amount(number: str, unit: str) -> timedelta:
    return timedelta(seconds=(int(number) if number.isdigit() else 1) * _UNIT_SECONDS[unit[0]])


# Loading the rules, once.


def load_rules(lines: Iterable[str]) -> tuple[Rule, ...]:
    """Read rules from the lines of a CSV with the columns pattern, seconds and reply.

    Each rule must be the first that reads the reply that taught it, and read its seconds.

    Raises:
        ConfigurationError: names the row and what is wrong with it.
    """
    rules: list[Rule] = []
    rows = csv.reader(lines, strict=True)
    try:
        if next(rows, None) != ["pattern", "seconds", "reply"]:
            raise ConfigurationError("retry_rules.csv must begin with the line pattern,seconds,reply")
        for row in rows:
            where = f"retry_rules.csv, line {rows.line_num}"
            rules.append(_rule(row, where))
            words = _words(rules[-1].reply)
            first = next((rule for rule in rules if _read(rule.pattern, words) is not None), None)
            if first is not rules[-1]:
                instead = "no rule" if first is None else f"the earlier rule {first.reply!r}"
                raise ConfigurationError(f"{where}: {instead} reads its reply; change the pattern or the order")
            if (wait := _read(first.pattern, words)) != timedelta(seconds=first.seconds):
                raise ConfigurationError(f"{where}: it reads {wait} in its reply, not {first.seconds} seconds")
    except csv.Error as error:
        raise ConfigurationError(f"retry_rules.csv, line {rows.line_num}: {error}") from error
    return tuple(rules)


def _rule(row: list[str], where: str) -> Rule:
    if len(row) != 3:
        raise ConfigurationError(f"{where}: {len(row)} columns instead of 3; quote what has commas in it")
    pattern, seconds, reply = row
    if re.search(r"(?<!\\)[A-Z]", pattern):
        raise ConfigurationError(f"{where}: a pattern is in lower case, as the text it is held against")
    if _ENDLESS.search(pattern):
        raise ConfigurationError(f"{where}: every repetition has an end, {{0,40}} for example; * and + have none")
    if pattern.count("{wait}") + pattern.count("{seconds}") != 1:
        raise ConfigurationError(f"{where}: a pattern holds {{wait}} or {{seconds}}, once")
    if not re.fullmatch(r"[0-9]{1,6}", seconds):
        raise ConfigurationError(f"{where}: {seconds!r} is no number of seconds")
    try:
        whole = pattern.replace("{wait}", _WAIT).replace("{seconds}", _SECONDS)
        return Rule(re.compile(whole, re.ASCII), int(seconds), reply)
    except re.error as error:
        raise ConfigurationError(f"{where}: the pattern is no regular expression: {error}") from error


RULES: Final = load_rules(files("shared.mail").joinpath("retry_rules.csv").read_text(encoding="utf-8").splitlines())
