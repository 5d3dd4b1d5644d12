from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.outcome import Answer, Tried, decide, lost_too_often
from shared.db.calls import CallResult
from shared.lifecycle import CallState

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def result(answer: Answer, attempt: int = 1) -> CallResult:
    tried = Tried(7, 3, attempt, NOW - timedelta(minutes=1))
    return decide(tried, answer, now=NOW, random=Random(1))


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_success(code: int) -> None:
    done = result(Answer(code, response="ok"))
    assert (done.state, done.retry_in, done.code, done.text, done.response) == (
        CallState.DELIVERED,
        None,
        code,
        "",
        "ok",
    )
    assert (done.call_id, done.worker_id, done.attempt) == (7, 3, 1)


@pytest.mark.parametrize("code", [100, 301, 302, 400, 401, 404, 429, 500, 503])
def test_everything_else_is_tried_again_by_the_schedule(code: int) -> None:
    done = result(Answer(code))
    assert done.state is None
    assert done.retry_in is not None
    assert timedelta(seconds=59) <= done.retry_in <= timedelta(seconds=61)
    assert str(code) in done.text


def test_no_answer_is_tried_again_and_says_why() -> None:
    done = result(Answer(0, "no connection: Connection refused"), attempt=4)
    assert (done.state, done.code, done.text) == (None, 0, "no connection: Connection refused")
    assert done.retry_in is not None
    assert timedelta(minutes=7) < done.retry_in < timedelta(minutes=8)


def test_the_twelfth_failure_is_the_last() -> None:
    assert result(Answer(500), attempt=11).state is None
    assert result(Answer(500), attempt=12).state is CallState.FAILED


def test_what_cannot_change_is_not_tried_again() -> None:
    done = result(Answer(0, "the message was removed", permanent=True))
    assert (done.state, done.text, done.disable_endpoint) == (CallState.FAILED, "the message was removed", False)


def test_gone_fails_and_disables_the_endpoint() -> None:
    done = result(Answer(410))
    assert (done.state, done.disable_endpoint) == (CallState.FAILED, True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 1),
        ("99999999999999999999", 86400),
        ("Fri, 01 May 2026 12:10:00 GMT", 600),
        ("Fri, 01 May 2020 12:10:00 GMT", 1),
        ("Fri, 01 May 2099 12:10:00 GMT", 86400),
        ("Fri, 01 May 2026 12:10:00 -0000", 600),
    ],
)
def test_retry_after_is_honoured_within_a_second_and_a_day(value: str, seconds: int) -> None:
    assert result(Answer(503, retry_after=value)).retry_in == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "soon", "-5", "1.5", "²", "Fri, 99 May 2026 12:10:00 GMT"])
def test_a_retry_after_that_says_nothing_leaves_the_schedule(value: str) -> None:
    wait = result(Answer(503, retry_after=value)).retry_in
    assert wait is not None
    assert timedelta(seconds=59) <= wait <= timedelta(seconds=61)


def test_retry_after_does_not_revive_what_has_failed() -> None:
    assert result(Answer(503, retry_after="5"), attempt=12).state is CallState.FAILED


@given(st.text(max_size=60), st.integers(100, 599), st.integers(1, 20))
def test_no_answer_of_a_stranger_breaks_the_decision(value: str, code: int, attempt: int) -> None:
    done = result(Answer(code, retry_after=value), attempt)
    assert done.retry_in is None or timedelta(seconds=1) <= done.retry_in <= timedelta(hours=24)
    assert (done.retry_in is None) == (done.state is not None)


def test_what_was_lost_too_often_ends_with_its_reason() -> None:
    done = lost_too_often(9)
    assert (done.call_id, done.state, done.attempt) == (9, CallState.FAILED, None)
    assert "3 workers died" in done.text
