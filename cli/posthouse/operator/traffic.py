"""``posthouse traffic-rule``."""

import re
from collections.abc import Iterator
from typing import Annotated

import typer

from posthouse.operator.command import LimitOption, Operator, command, given, new_group
from shared.errors import ConfigurationError

_RULES = {
    "pattern": "pattern",
    "connections": "connections",
    "messages/s": "messages_per_second",
    "messages/connection": "messages_per_connection",
    "recipients": "recipients_per_transaction",
}
_RULE = {
    "Pattern": "pattern",
    "Connections": "connections",
    "Messages per second": "messages_per_second",
    "Messages per connection": "messages_per_connection",
    "Recipients per transaction": "recipients_per_transaction",
    "Changed": "updated_at",
}

PatternArgument = Annotated[
    str,
    typer.Argument(metavar="PATTERN", help="A provider or domain (google.com), all below a name (.example), or *."),
]

traffic_rule = new_group("traffic-rule", "How much providers and domains are sent at once.")


def groups() -> Iterator[typer.Typer]:
    """Return the groups of this module."""
    yield traffic_rule


@command(traffic_rule, "list")
def list_rules(operator: Operator, limit: LimitOption = 1000) -> None:
    """List your rules; where they say nothing, those hold that Posthouse brings along."""
    listing = operator.client.listed("/v1/traffic-rules", limit)
    operator.output.items(listing, _RULES, "there are no rules but those that Posthouse brings along")


@command(traffic_rule, "show")
def show_rule(operator: Operator, pattern: PatternArgument) -> None:
    """Show a rule of yours."""
    operator.output.item(operator.client.get(_path(pattern)), _RULE)


@command(traffic_rule, "set")
def set_rule(
    operator: Operator,
    pattern: PatternArgument,
    *,
    connections: Annotated[int | None, typer.Option(help="At the same time.")] = None,
    per_second: Annotated[float | None, typer.Option(help="Messages per second.")] = None,
    per_connection: Annotated[int | None, typer.Option(help="Messages per connection.")] = None,
    recipients: Annotated[int | None, typer.Option(help="Recipients per transaction.")] = None,
) -> None:
    """Make a rule, or change the one of this pattern; it holds at once, over all processes."""
    new = given(
        connections=connections,
        messages_per_second=per_second,
        messages_per_connection=per_connection,
        recipients_per_transaction=recipients,
    )
    operator.output.item(operator.client.put(_path(pattern), new), _RULE)


@command(traffic_rule, "remove")
def remove_rule(operator: Operator, pattern: PatternArgument) -> None:
    """Remove a rule; what Posthouse brings along for its pattern holds again."""
    operator.client.delete(_path(pattern))
    operator.output.done(f"traffic rule {pattern} is removed", {"pattern": pattern, "removed": True})


def _path(pattern: str) -> str:
    if not re.fullmatch(r"\*|[A-Za-z0-9._-]{1,254}", pattern) or pattern in {".", ".."}:
        raise ConfigurationError(f"{pattern!r} is no pattern: write google.com, .example or *")
    return f"/v1/traffic-rules/{pattern}"
