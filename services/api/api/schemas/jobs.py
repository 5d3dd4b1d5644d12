"""Jobs."""

from typing import Literal

from pydantic import Field

from api.schemas.base import Output, PageOf, Time, example
from shared.models import Job as Row

JOB: dict[str, object] = {
    "id": "9",
    "account": "1",
    "kind": "hold",
    "hold_rule": "5",
    "progress": 0.42,
    "seen": 42000,
    "changed": 1210,
    "in_flight": 3,
    "kept_held": 0,
    "error": None,
    "created_at": "2026-11-20T13:00:00.000000Z",
    "updated_at": "2026-11-20T13:00:01.700000Z",
    "finished_at": None,
}


class Job(Output):
    """A hold, release or cancel of many deliveries. It goes on by itself, also after a crash, until `finished_at` is set."""

    model_config = example(JOB)

    id: str
    account: str | None = Field(description="Whose deliveries; null: those of all accounts.")
    kind: Literal["hold", "release", "cancel"]
    hold_rule: str | None = Field(description="The rule that holds, or that ended; null: by hand.")
    progress: float = Field(description="From 0 to 1.")
    seen: int = Field(description="Live deliveries looked at so far.")
    changed: int = Field(description="Deliveries held, released or canceled.")
    in_flight: int = Field(
        description="Deliveries that were just being sent: what is asked counts if that attempt fails for now."
    )
    kept_held: int = Field(
        description="Deliveries that were to be released and stay held: by an operator, or by another rule."
    )
    error: str | None = Field(description="Why it ended early.")
    created_at: Time
    updated_at: Time
    finished_at: Time | None

    @classmethod
    def of(cls, row: Row) -> "Job":
        """Show a job."""
        return cls.model_validate(
            {
                "id": str(row.id),
                "account": str(row.account_id) if row.account_id is not None else None,
                "kind": row.kind,
                "hold_rule": str(row.hold_rule_id) if row.hold_rule_id is not None else None,
                "progress": _progress(row),
                "seen": row.seen,
                "changed": row.changed,
                "in_flight": row.in_flight,
                "kept_held": row.kept_held,
                "error": row.error,
                "created_at": row.created_at,
                "updated_at": row.updated_at,
                "finished_at": row.finished_at,
            }
        )


def _progress(row: Row) -> float:
    if row.finished_at is not None:
        return 1.0
    done, all_ = row.position - row.first_id + 1, row.last_id - row.first_id + 1
    return round(min(max(done / all_, 0.0), 1.0), 4)


class JobPage(PageOf[Job]):
    """Jobs, the newest first."""

    model_config = example({"data": [JOB], "next_cursor": None})
