"""How long servers ask us to wait."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConfigurationError
from shared.mail.retry_after import RULES, asked_wait, load_rules

HEAD = "pattern,seconds,reply"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("try again in 5 minutes", 300),
        ("retry after 300 seconds", 300),
        ("greylisted for 300 seconds", 300),
        ("please try again in 00:04:30", 270),
        ("451 4.7.1 Greylisting in action, please come back in 01:00:00", 3600),
        ("450 4.2.0 <kim@receiver.example>: Recipient address rejected: Greylisted for 5 minutes", 300),
        ("451 Greylisted, please try again in 899 seconds", 899),
        ("450-4.7.1 Too many messages,\n450 4.7.1 try again in 2 hrs", 7200),
        ("421 Please wait at least 10 more minutes", 600),
        ("Please wait 4 min 30 s", 270),
        ("retry in 60s", 60),
        ("please try again in 450 seconds", 450),
        ("4.7.1 too much mail, please try\n4.7.1 again in 450 seconds", 450),
        ("try again in an hour", 3600),
        ("try again in about one minute", 60),
        ("RETRY-AFTER: 120", 120),
        ("try again in 1 day", 86_400),
    ],
)
def test_waits_are_read(text: str, seconds: int) -> None:
    assert asked_wait(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "try again later",
        "greylisted, see http://postgrey.schweikert.ch/help/b.example.html",
        "try again at 12:04:30",
        "retry 5 times",
        "451 4.7.1 mailbox of kim has 300 messages",
        "try again in 9999999 seconds",
        "try again in 00:04:30:12",
        "try again in -5 minutes",
        "try again in 5 parsecs",
        "try again in \u0665 minutes",
        "wait.in.5.minutes@receiver.example is over quota",
    ],
)
def test_nothing_is_read_where_no_wait_is_asked_for(text: str) -> None:
    assert asked_wait(text) is None


@given(st.integers(0, 999_999), st.sampled_from([("seconds", 1), ("minutes", 60), ("h", 3600)]))
def test_any_number_is_read_as_it_stands(number: int, unit: tuple[str, int]) -> None:
    assert asked_wait(f"451 please try again in {number} {unit[0]}") == timedelta(seconds=number * unit[1])


@given(st.text(st.characters(codec=None)) | st.from_regex(r"(try again in |for |wait |[0-9:]{1,9}| |s|minutes){1,40}"))
def test_nothing_makes_reading_fail(text: str) -> None:
    wait = asked_wait(text)
    assert wait is None or timedelta() <= wait <= timedelta(days=2_000_000)


PIECES = [
    "try again ",
    "try in ",
    "wait ",
    "greylisted for ",
    "1",
    "1:",
    "00:",
    "a",
    " ",
    "deferred ",
    "next attempt ",
    "retry after=1",
    "an ",
]


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_text_is_read_in_bounded_time(piece: str) -> None:
    """A pattern that backtracks without bound would not come back from these."""
    asked_wait(piece * 20_000)
    asked_wait("try again in " + piece * 20_000)


def test_every_rule_reads_the_reply_that_taught_it() -> None:
    assert len(RULES) >= 8
    assert all(asked_wait(rule.reply) == timedelta(seconds=rule.seconds) for rule in RULES)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "must begin with"),
        ([HEAD, "in {wait},5"], "line 2: 2 columns"),
        ([HEAD, "In {wait},5,in 5 s"], "line 2: a pattern is in lower case"),
        ([HEAD, "in.* {wait},5,in 5 s"], "line 2: every repetition has an end"),
        ([HEAD, '"in.{1,} {wait}",5,in 5 s'], "line 2: every repetition has an end"),
        ([HEAD, "in 5 s,5,in 5 s"], "line 2: a pattern holds {wait} or {seconds}, once"),
        ([HEAD, "in {wait},soon,in 5 s"], "line 2: 'soon' is no number of seconds"),
        ([HEAD, "(in {wait},5,in 5 s"], "line 2: the pattern is no regular expression"),
        ([HEAD, "in {wait},5,later"], "line 2: no rule reads its reply"),
        ([HEAD, "in {wait},5,in 6 s"], "line 2: it reads 0:00:06 in its reply, not 5 seconds"),
        ([HEAD, "in {wait},5,in 5 s", "back in {wait},5,back in 5 s"], "line 3: the earlier rule 'in 5 s' reads its"),
        ([HEAD, '"in {wait},5,in 5 s'], "line 2: unexpected end"),
    ],
)
def test_rules_that_are_wrong_are_named(lines: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"retry_rules\.csv") as caught:
        load_rules(lines)
    assert message in str(caught.value)
