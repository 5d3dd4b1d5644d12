"""Hold rules."""

from typing import Any

from pydantic import Field

from api.schemas.base import Input, Moment, Output, PageOf, Text, Time, example
from api.schemas.jobs import JOB, Job
from shared.models import HoldRule as Row

_RULE: dict[str, object] = {
    "id": "5",
    "account": "1",
    "made_by_operator": False,
    "sender_domain": None,
    "sender": "ada@example.com",
    "recipient_domain": "example.org",
    "recipient": None,
    "reason": "the price list is wrong",
    "created_at": "2026-11-20T13:00:00.000000Z",
    "expires_at": None,
    "release_on_expiry": False,
}


class NewHoldRule(Input):
    """Conditions under which mail waits: it is held if all that are given hold. Without any, everything is."""

    model_config = example(
        {"sender": "ada@example.com", "recipient_domain": "example.org", "reason": "the price list is wrong"}
    )

    account: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,19}$",
        description="Whose mail; for operators, who mean all accounts without it. An account's rules are for itself.",
    )
    sender_domain: Text | None = Field(default=None, description="The domain of From.")
    sender: Text | None = Field(default=None, description="The whole address in From, in any case.")
    recipient_domain: Text | None = None
    recipient: Text | None = Field(default=None, description="The whole address, in any case.")
    reason: Text = Field(default="", max_length=1000)
    expires_at: Moment | None = Field(default=None, description="When it shall end by itself; never, without it.")
    release_on_expiry: bool = Field(
        default=False, description="Release what it holds when it ends by itself; otherwise that stays held."
    )


class HoldRule(Output):
    """Conditions under which mail waits."""

    model_config = example(_RULE)

    id: str
    account: str | None = Field(description="Whose mail; null: that of all accounts.")
    made_by_operator: bool
    sender_domain: str | None
    sender: str | None
    recipient_domain: str | None
    recipient: str | None
    reason: str
    created_at: Time
    expires_at: Time | None
    release_on_expiry: bool

    @classmethod
    def of(cls, row: Row) -> "HoldRule":
        """Show a rule."""
        return cls(**_fields(row))


class MadeHoldRule(HoldRule):
    """A rule that was made just now: it holds new mail and whatever starts; the job holds what is queued already."""

    model_config = example({**_RULE, "job": JOB})

    job: Job

    @classmethod
    def made(cls, row: Row, job: Job) -> "MadeHoldRule":
        """Show a new rule."""
        return cls(**_fields(row), job=job)


def _fields(row: Row) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "account": str(row.account_id) if row.account_id is not None else None,
        "made_by_operator": row.made_by_operator,
        "sender_domain": row.sender_domain,
        "sender": row.sender_address,
        "recipient_domain": row.recipient_domain,
        "recipient": row.recipient_address,
        "reason": row.reason,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "release_on_expiry": row.release_on_expiry,
    }


class HoldRulePage(PageOf[HoldRule]):
    """Hold rules, the newest first."""

    model_config = example({"data": [_RULE], "next_cursor": None})
