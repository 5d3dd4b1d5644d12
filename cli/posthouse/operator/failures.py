"""``posthouse retry-schedule`` and ``posthouse operator-events``."""

from collections.abc import Iterator
from typing import Annotated

import typer

from posthouse.operator.command import AccountArgument, LimitOption, Operator, command, given, new_group
from posthouse.operator.show import plain

_SCHEDULES = {
    "name": "name",
    "built in": "built_in",
    "waits (s)": "waits",
    "attempts": "max_attempts",
    "gives up after (s)": "give_up_seconds",
}
_SCHEDULE = {
    "Name": "name",
    "Built in": "built_in",
    "Waits (s)": "waits",
    "Attempts at most": "max_attempts",
    "Gives up after (s)": "give_up_seconds",
    "Changed": "updated_at",
}
_EVENTS = {
    "id": "id",
    "kind": "kind",
    "subject": "subject",
    "count": "count",
    "first": "first_at",
    "last": "last_at",
    "resolved": "resolved_at",
}

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]

retry_schedule = new_group("retry-schedule", "When mail is tried again, and for how long.")
operator_events = new_group("operator-events", "What operators should look at: blocks of our address, for example.")


def groups() -> Iterator[typer.Typer]:
    """Return the groups of this module."""
    yield from (retry_schedule, operator_events)


@command(retry_schedule, "list")
def list_schedules(operator: Operator, limit: LimitOption = 1000) -> None:
    """List the schedules: Posthouse's own, then yours."""
    listing = operator.client.listed("/v1/retry-schedules", limit)
    operator.output.items(listing, _SCHEDULES, "there are no schedules")


@command(retry_schedule, "show")
def show_schedule(operator: Operator, name: NameArgument) -> None:
    """Show a schedule."""
    operator.output.item(operator.client.get(_path(name)), _SCHEDULE)


@command(retry_schedule, "set")
def set_schedule(
    operator: Operator,
    name: NameArgument,
    waits: Annotated[
        list[int], typer.Argument(metavar="SECONDS...", help="The wait after attempt 1, 2, ...; the last one repeats.")
    ],
    max_attempts: Annotated[int | None, typer.Option(help="So many attempts at most.")] = None,
    give_up: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="Plan no attempt later than this after the first.")
    ] = None,
) -> None:
    """Make a schedule, or change the one of this name; it needs an end, by attempts, by age or both."""
    new = given(waits=waits, max_attempts=max_attempts, give_up_seconds=give_up)
    operator.output.item(operator.client.put(_path(name), new), _SCHEDULE)


@command(retry_schedule, "remove")
def remove_schedule(operator: Operator, name: NameArgument) -> None:
    """Remove a schedule that no account uses."""
    operator.client.delete(_path(name))
    operator.output.done(f"retry schedule {name} is removed", {"name": name, "removed": True})


@command(retry_schedule, "use")
def use_schedule(operator: Operator, account: AccountArgument, name: NameArgument) -> None:
    """Give an account this schedule, for mail that waits already, too."""
    changed = operator.client.put(f"{operator.account(account)}/retry-schedule", {"name": name})
    sentence = f"account {plain(changed.get('name'))} retries by {plain(changed.get('retry_schedule'))}"
    operator.output.done(sentence, changed)


@command(operator_events, "list")
def list_events(
    operator: Operator,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, e.g. source_blocked.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="What is resolved, too.")] = False,
    limit: LimitOption = 1000,
) -> None:
    """List what is not resolved yet, what began last first; --json shows the facts of each."""
    query: dict[str, str] = {} if everything else {"open": "true"}
    if kind is not None:
        query["kind"] = kind
    listing = operator.client.listed("/v1/operator-events", limit, **query)
    operator.output.items(listing, _EVENTS, "there is nothing to look at")


@command(operator_events, "resolve")
def resolve_event(
    operator: Operator, event: Annotated[str, typer.Argument(metavar="ID", help="The event's id.")]
) -> None:
    """Say that something has been looked at; when it happens again, it is told again."""
    done = operator.client.post(f"/v1/operator-events/{operator.number(event, 'operator event')}/resolve")
    operator.output.done(f"operator event {plain(done.get('id'))} is resolved", done)


def _path(name: str) -> str:
    return f"/v1/retry-schedules/{Operator.word(name, 'retry schedule')}"
