"""``posthouse hold-rule`` and ``posthouse delivery``: what waits, what goes on, what is withdrawn."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from posthouse.operator.client import Document
from posthouse.operator.command import LimitOption, Operator, command, given, new_group
from posthouse.operator.show import note, plain
from shared.errors import ConfigurationError

_RULES = {
    "id": "id",
    "account": "account",
    "by operator": "made_by_operator",
    "from domain": "sender_domain",
    "from": "sender",
    "to domain": "recipient_domain",
    "to": "recipient",
    "expires": "expires_at",
    "then releases": "release_on_expiry",
    "reason": "reason",
}
_JOB = {
    "Job": "id",
    "Account": "account",
    "What": "kind",
    "Hold rule": "hold_rule",
    "Looked at": "seen",
    "Changed": "changed",
    "In flight": "in_flight",
    "Stay held": "kept_held",
    "Finished": "finished_at",
    "Error": "error",
}
_LOOK_AGAIN_SECONDS = 0.25

AccountOption = Annotated[
    str | None, typer.Option(metavar="ACCOUNT", help="The account's id, or its name; all accounts, without it.")
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the job is finished.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of deliveries.")]

hold_rule = new_group("hold-rule", "Conditions under which mail waits.")
delivery = new_group("delivery", "Hold, release or cancel deliveries that are not settled yet.")


def groups() -> Iterator[typer.Typer]:
    """Return the groups of this module."""
    yield from (hold_rule, delivery)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOptions:
    """What mail a rule is for; all mail, without any."""

    sender_domain: Annotated[str | None, typer.Option(help="The domain of From.")] = None
    sender: Annotated[str | None, typer.Option(help="The whole address in From.")] = None
    recipient_domain: Annotated[str | None, typer.Option(help="The domain of the recipient.")] = None
    recipient: Annotated[str | None, typer.Option(help="The whole address of the recipient.")] = None
    reason: Annotated[str | None, typer.Option(help="Why.")] = None
    expires_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it ends, e.g. 2030-01-01T00:00:00Z; never, without it.")
    ] = None
    release_on_expiry: Annotated[
        bool, typer.Option("--release-on-expiry", help="Release what it holds when it ends by itself.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionOptions:
    """Which deliveries: those that fulfil all conditions that are given."""

    every: Annotated[bool, typer.Option("--all", help="Every live delivery; goes with no condition.")] = False
    message: Annotated[str | None, typer.Option(help="The id of their message.")] = None
    tag: Annotated[str | None, typer.Option(help="A tag of their message.")] = None
    sender: Annotated[str | None, typer.Option(help="The whole address in From.")] = None
    sender_domain: Annotated[str | None, typer.Option(help="The domain of From.")] = None
    recipient: Annotated[str | None, typer.Option(help="The whole address of the recipient.")] = None
    recipient_domain: Annotated[str | None, typer.Option(help="The domain of the recipient.")] = None
    state: Annotated[str | None, typer.Option(help="queued or held.")] = None
    accepted_before: Annotated[str | None, typer.Option(metavar="TIME", help="Handed in before.")] = None
    accepted_after: Annotated[str | None, typer.Option(metavar="TIME", help="Handed in after.")] = None
    due_before: Annotated[str | None, typer.Option(metavar="TIME", help="Due before.")] = None
    due_after: Annotated[str | None, typer.Option(metavar="TIME", help="Due after.")] = None


@command(hold_rule, "create")
def create(operator: Operator, options: RuleOptions, *, account: AccountOption = None, wait: WaitOption = True) -> None:
    """Hold all mail that matches, what is queued already and what comes."""
    new = given(account=_account(operator, account), **asdict(options))
    made = operator.client.post("/v1/hold-rules", new)
    made["job"] = _followed(operator, made["job"], wait=wait)
    sentence = f"hold rule {plain(made.get('id'))} holds {plain(made['job'].get('changed'))} deliveries, and what comes"
    operator.output.done(sentence, made)


@command(hold_rule, "list")
def list_(operator: Operator, limit: LimitOption = 1000) -> None:
    """List the hold rules of operators and accounts, the newest first."""
    operator.output.items(operator.client.listed("/v1/hold-rules", limit), _RULES, "there are no hold rules")


@command(hold_rule, "remove")
def remove(
    operator: Operator,
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Its id.")],
    *,
    release: Annotated[bool, typer.Option("--release", help="Release what it holds; it stays held otherwise.")] = False,
    wait: WaitOption = True,
) -> None:
    """End a hold rule."""
    job = operator.client.delete(f"/v1/hold-rules/{_id(rule)}", release="true" if release else "false")
    if release:
        job = _followed(operator, job, wait=wait)
        operator.output.done(
            f"hold rule {rule} is removed, {plain(job.get('changed'))} deliveries are released",
            {"id": rule, "removed": True, "job": job},
        )
        return
    operator.output.done(f"hold rule {rule} is removed; what it holds stays held", {"id": rule, "removed": True})


@command(delivery, "hold")
def hold(
    operator: Operator,
    options: SelectionOptions,
    ids: IdsArgument = None,
    *,
    account: AccountOption = None,
    wait: WaitOption = True,
) -> None:
    """Hold deliveries until they are released."""
    _act(operator, "hold", _selection(operator, ids, options, account), wait=wait)


@command(delivery, "release")
def release(
    operator: Operator,
    options: SelectionOptions,
    ids: IdsArgument = None,
    *,
    account: AccountOption = None,
    wait: WaitOption = True,
) -> None:
    """Release held deliveries, whoever holds them."""
    _act(operator, "release", _selection(operator, ids, options, account), wait=wait)


@command(delivery, "cancel")
def cancel(
    operator: Operator,
    options: SelectionOptions,
    ids: IdsArgument = None,
    *,
    account: AccountOption = None,
    wait: WaitOption = True,
) -> None:
    """Withdraw deliveries; what is just being sent is canceled if that fails for now."""
    _act(operator, "cancel", _selection(operator, ids, options, account), wait=wait)


def _act(operator: Operator, kind: str, which: Document, *, wait: bool) -> None:
    job = _followed(operator, operator.client.post(f"/v1/deliveries/{kind}", which), wait=wait)
    operator.output.item(job, _JOB)


def _selection(operator: Operator, ids: list[str] | None, options: SelectionOptions, account: str | None) -> Document:
    conditions = given(ids=ids or None, **{name: value for name, value in asdict(options).items() if name != "every"})
    if not conditions and not options.every:
        raise ConfigurationError("say which deliveries, or --all for every one that is not settled")
    return {**conditions, **given(all=options.every or None, account=_account(operator, account))}


def _account(operator: Operator, account: str | None) -> str | None:
    return operator.account(account).rpartition("/")[2] if account is not None else None


def _id(value: str) -> str:
    if not (value.isascii() and value.isdecimal() and len(value) <= 19):
        raise ConfigurationError(f"{value!r} is no id; `list` shows them")
    return value


def _followed(operator: Operator, job: Document, *, wait: bool) -> Document:
    """Return a job when it is finished, with a bar for people meanwhile; or at once where nobody wants to wait."""
    if job.get("finished_at") is not None:
        return job
    if not wait:
        note(f"job {plain(job.get('id'))} goes on by itself")
        return job
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(f"{plain(job.get('kind'))}: 0 deliveries", total=1.0)
        while job.get("finished_at") is None:
            time.sleep(_LOOK_AGAIN_SECONDS)
            job = operator.client.get(f"/v1/jobs/{_id(str(job.get('id')))}")
            told = f"{plain(job.get('kind'))}: {plain(job.get('changed'))} deliveries"
            progress.update(bar, completed=float(job.get("progress") or 0), description=told)
    return job
