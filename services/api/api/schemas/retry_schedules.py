"""Retry schedules."""

from typing import Annotated

from pydantic import Field

from api.schemas.base import Input, Output, PageOf, Text, Time, example
from shared.models import RetrySchedule as Row

_SCHEDULE: dict[str, object] = {
    "name": "patient",
    "built_in": False,
    "waits": [300, 900, 3600],
    "max_attempts": None,
    "give_up_seconds": 432000,
    "created_at": "2026-11-20T13:00:00.000000Z",
    "updated_at": "2026-11-20T13:00:00.000000Z",
}
_END = "The schedule needs this or the other end; with both, whichever comes first."


class NewSchedule(Input):
    """When mail is tried again, and for how long."""

    model_config = example({"waits": [300, 900, 3600], "give_up_seconds": 432_000})

    waits: list[Annotated[int, Field(ge=10, le=7 * 86_400)]] = Field(
        min_length=1,
        max_length=100,
        description="Seconds after attempt 1, 2, ...; the last one repeats. Each is varied by up to 1 %.",
    )
    max_attempts: int | None = Field(
        default=None, ge=1, le=1000, description=f"So many attempts; without an age, all within 30 days. {_END}"
    )
    give_up_seconds: int | None = Field(
        default=None,
        ge=10,
        le=30 * 86_400,
        description=f"No attempt is planned later than this after the first. {_END}",
    )


class Schedule(Output):
    """When mail is tried again, and for how long."""

    model_config = example(_SCHEDULE)

    name: str
    built_in: bool = Field(description="One of Posthouse's own, which stay as they are.")
    waits: list[int] = Field(description="Seconds after attempt 1, 2, ...; the last one repeats.")
    max_attempts: int | None
    give_up_seconds: int | None
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, row: Row) -> "Schedule":
        """Show a schedule."""
        return cls(
            name=row.name,
            built_in=row.built_in,
            waits=row.waits,
            max_attempts=row.max_attempts,
            give_up_seconds=row.give_up_seconds,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


class SchedulePage(PageOf[Schedule]):
    """Retry schedules, the oldest first."""

    model_config = example({"data": [_SCHEDULE], "next_cursor": None})


class ChosenSchedule(Input):
    """The schedule that an account shall use."""

    model_config = example({"name": "patient"})

    name: Text = Field(max_length=64, description="`default`, `mox`, or one that an operator made.")
