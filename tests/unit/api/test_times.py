"""When a message may be sent first, and when it expires: to the microsecond."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from api.caller import AccountCaller
from api.submission import Submission, check_times
from shared.errors import ValidationFailed

NOW = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
DAY = timedelta(days=1)
REST = Submission("rest", AccountCaller(1, 1, "api_key", uses_from_ids=True, is_test=False))


def refused_field(submission: Submission, expires_at: datetime | None) -> str | None:
    try:
        check_times(submission, expires_at, NOW)
    except ValidationFailed as error:
        return error.field
    return None


@pytest.mark.parametrize(
    ("ahead", "field"),
    [(-DAY, "send_at"), (DAY * 0, "send_at"), (MOMENT, None), (60 * DAY, None), (60 * DAY + MOMENT, "send_at")],
)
def test_send_at_lies_within_sixty_days(ahead: timedelta, field: str | None) -> None:
    assert refused_field(replace(REST, send_at=NOW + ahead), None) == field


@pytest.mark.parametrize("door", ["webapi", "smtp"])
def test_a_past_moment_is_refused_by_rest_only(door: str) -> None:
    past = NOW - DAY
    assert refused_field(replace(REST, door=door, send_at=past), None) is None  # type: ignore[arg-type] # a text of that type
    assert refused_field(replace(REST, send_at=past), None) == "send_at"


@pytest.mark.parametrize(
    ("ahead", "field"),
    [
        (-DAY, "expires_at"),
        (DAY * 0, "expires_at"),
        (MOMENT, None),
        (90 * DAY, None),
        (90 * DAY + MOMENT, "expires_at"),
    ],
)
def test_expires_at_lies_within_ninety_days(ahead: timedelta, field: str | None) -> None:
    assert refused_field(REST, NOW + ahead) == field


@pytest.mark.parametrize(("later", "field"), [(-MOMENT, "expires_at"), (DAY * 0, "expires_at"), (MOMENT, None)])
def test_a_message_expires_after_it_may_be_sent(later: timedelta, field: str | None) -> None:
    send_at = NOW + 2 * DAY
    assert refused_field(replace(REST, send_at=send_at), send_at + later) == field


def test_a_zone_is_minded() -> None:
    east = NOW.astimezone(tz=None) + MOMENT
    assert refused_field(replace(REST, send_at=east), None) is None
