"""HOLDFOR and HOLDUNTIL."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.smtpd.future_release import HoldRefused, held_until, offer

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LONGEST = timedelta(days=60)


@pytest.mark.parametrize(
    ("params", "until"),
    [
        ({}, None),
        ({"SIZE": "10"}, None),
        ({"HOLDFOR": "1"}, NOW + timedelta(seconds=1)),
        ({"HOLDFOR": "5184000"}, NOW + LONGEST),
        ({"HOLDUNTIL": "2026-11-20T12:00:01Z"}, NOW + timedelta(seconds=1)),
        ({"HOLDUNTIL": "2026-11-20T12:00:01.5Z"}, NOW + timedelta(seconds=1.5)),
        ({"HOLDUNTIL": "2026-12-31t23:59:60z"}, datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_until_when(params: dict[str, str | None], until: datetime | None) -> None:
    assert held_until(params, NOW, LONGEST) == until


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"HOLDFOR": None}, 501),
        ({"HOLDFOR": "0"}, 501),
        ({"HOLDFOR": "01"}, 501),
        ({"HOLDFOR": "-1"}, 501),
        ({"HOLDFOR": "1234567890"}, 501),
        ({"HOLDFOR": "\u0661"}, 501),
        ({"HOLDFOR": "5184001"}, 554),
        ({"HOLDFOR": "999999999"}, 554),
        ({"HOLDUNTIL": None}, 501),
        ({"HOLDUNTIL": "2026-11-21T12:00:00+00:00"}, 501),
        ({"HOLDUNTIL": "26-11-21T12:00:00Z"}, 501),
        ({"HOLDUNTIL": "2026-11-21T12:00Z"}, 501),
        ({"HOLDUNTIL": "2026-11-31T12:00:00Z"}, 501),
        ({"HOLDUNTIL": "2026-11-20T12:00:00Z"}, 554),
        ({"HOLDUNTIL": "2025-11-20T12:00:00Z"}, 554),
        ({"HOLDUNTIL": "2027-01-19T12:00:01Z"}, 554),
        ({"HOLDFOR": "1", "HOLDUNTIL": "2026-11-21T12:00:00Z"}, 501),
    ],
)
def test_what_is_refused(params: dict[str, str | None], code: int) -> None:
    with pytest.raises(HoldRefused) as refused:
        held_until(params, NOW, LONGEST)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (code, "5.5.4")


def test_the_offer() -> None:
    assert offer(NOW, LONGEST) == "FUTURERELEASE 5184000 2027-01-19T12:00:00Z"


@given(st.sampled_from(["HOLDFOR", "HOLDUNTIL"]), st.text(max_size=40))
def test_whatever_is_given_it_is_held_within_the_limit_or_refused(keyword: str, value: str) -> None:
    try:
        until = held_until({keyword: value}, NOW, LONGEST)
    except HoldRefused as refused:
        assert refused.reply.code in {501, 554}  # noqa: PT017 - either outcome is right
    else:
        assert until is not None
        assert NOW < until <= NOW + LONGEST
