"""Several recipients, one session: who follows in a further transaction, and what everybody's result is in the end."""

from collections.abc import Callable
from typing import Any

import pytest

from delivery.smtp import Mail, Sent, Stage
from delivery.smtp.errors import SmtpConnectionLostError
from fakes.smtp_server import Script

Stand = Any

CONTENT = b"Subject: x\r\n\r\ntext\r\n"
BOTH_WAYS = pytest.mark.parametrize("pipelining", [True, False])


def mail(*recipients: str) -> Mail:
    return Mail.of("a@a.test", recipients, CONTENT)


def numbered(count: int) -> list[str]:
    return [f"{number}@b.test" for number in range(count)]


def codes(sent: Sent) -> list[int]:
    return [result.code for result in sent.results]


def taken(stand: Stand) -> list[list[str]]:
    return [message.recipients for message in stand.server.messages]


def at_most(
    limit: int, refusal: str, *, refused: Callable[[str], bool] = lambda _: False
) -> Callable[[str], str | None]:
    """Return a server's answer to RCPT that takes so many in a transaction; each test that uses it has its own."""
    count = 0

    def answer(path: str) -> str | None:
        nonlocal count
        if refused(path):
            return "550 5.1.1 No"
        count += 1
        if count > limit:
            return refusal
        return None

    def reset(_: str) -> None:
        nonlocal count
        count = 0

    answer.reset = reset  # type: ignore[attr-defined]  # a function may have attributes
    return answer


def limited(limit: int, refusal: str, **more: Any) -> Script:
    rcpt = at_most(limit, refusal)
    return Script(rcpt=rcpt, mail=rcpt.reset, **more)  # type: ignore[attr-defined]  # set above


@BOTH_WAYS
async def test_rcptmax_is_kept(stand: Stand, pipelining: bool) -> None:
    session = await stand.session(Script(extensions=["LIMITS RCPTMAX=2"], pipelining=pipelining))
    sent = await session.send(mail(*numbered(5)))
    assert codes(sent) == [250] * 5
    assert taken(stand) == [numbered(5)[:2], numbered(5)[2:4], numbered(5)[4:]]
    assert len(stand.server.sessions) == 1


@BOTH_WAYS
@pytest.mark.parametrize("refusal", ["452 4.5.3 Too many", "552 5.5.3 Too many"])
async def test_who_is_too_many_follows_at_once(stand: Stand, pipelining: bool, refusal: str) -> None:
    session = await stand.session(limited(3, refusal, pipelining=pipelining))
    sent = await session.send(mail(*numbered(8)))
    assert codes(sent) == [250] * 8
    assert [result.recipient for result in sent.results] == numbered(8)
    assert taken(stand) == [numbered(8)[:3], numbered(8)[3:6], numbered(8)[6:]]


@BOTH_WAYS
async def test_a_limit_that_was_met_is_remembered(stand: Stand, pipelining: bool) -> None:
    session = await stand.session(limited(3, "452 4.5.3 Too many", pipelining=pipelining))
    await session.send(mail(*numbered(4)))
    before = len([command for command in stand.server.sessions[0].commands if command.startswith("RCPT")])
    assert codes(await session.send(mail(*numbered(6)))) == [250] * 6
    after = len([command for command in stand.server.sessions[0].commands if command.startswith("RCPT")])
    assert after - before == 6


async def test_a_full_mailbox_is_no_limit(stand: Stand) -> None:
    full = {"1@b.test": "452 4.2.2 Full", "3@b.test": "452 4.2.2 Full", "5@b.test": "452 4.2.2 Full"}
    session = await stand.session(Script(rcpt=full))
    assert codes(await session.send(mail(*numbered(6)))) == [250, 452, 250, 452, 250, 452]
    assert codes(await session.send(mail("0@b.test", "5@b.test"))) == [250, 452]
    assert codes(await session.send(mail("7@b.test", "8@b.test"))) == [250, 250]
    assert taken(stand) == [["0@b.test", "2@b.test", "4@b.test"], ["0@b.test"], ["7@b.test", "8@b.test"]]


@BOTH_WAYS
@pytest.mark.parametrize("code", [452, 552])
async def test_a_server_without_room_is_not_asked_for_ever(stand: Stand, pipelining: bool, code: int) -> None:
    session = await stand.session(Script(rcpt=f"{code} No room", pipelining=pipelining))
    sent = await session.send(mail(*numbered(200)))
    assert codes(sent) == [code] * 200
    assert {result.stage for result in sent.results} == {Stage.RCPT}
    commands = stand.server.sessions[0].commands
    assert len([command for command in commands if command.startswith("MAIL")]) == 5
    assert session.usable


async def test_without_room_who_was_not_asked_yet_is_asked(stand: Stand) -> None:
    rcpt = dict.fromkeys(numbered(4), "452 4.2.2 Full")
    session = await stand.session(Script(rcpt=rcpt, extensions=["LIMITS RCPTMAX=2"]))
    assert codes(await session.send(mail(*numbered(6)))) == [452, 452, 452, 452, 250, 250]


async def test_more_transactions_than_the_server_takes(stand: Stand) -> None:
    session = await stand.session(Script(extensions=["LIMITS MAILMAX=2 RCPTMAX=1"]))
    sent = await session.send(mail(*numbered(3)))
    assert codes(sent) == [250, 250, 0]
    assert [result.untouched for result in sent.results] == [False, False, True]
    assert not session.usable
    with pytest.raises(SmtpConnectionLostError):
        await session.send(mail("b@b.test"))
    await session.quit()
    assert stand.server.sessions[0].commands[-1] == "QUIT"


async def test_mailmax_counts_mails(stand: Stand) -> None:
    session = await stand.session(Script(extensions=["LIMITS MAILMAX=2"]))
    assert session.usable
    await session.send(mail("b@b.test"))
    assert session.usable
    await session.send(mail("b@b.test"))
    assert not session.usable


@BOTH_WAYS
async def test_a_session_that_ends_leaves_those_untouched_whose_turn_it_was_not(stand: Stand, pipelining: bool) -> None:
    script = Script(
        extensions=["LIMITS RCPTMAX=1"], message="250 2.0.0 Taken", drop_after="message", pipelining=pipelining
    )
    session = await stand.session(script)
    sent = await session.send(mail(*numbered(3)))
    assert sent.results[0].accepted
    assert [result.untouched for result in sent.results] == [False, True, True]
    assert not session.usable


@BOTH_WAYS
async def test_a_552_that_was_never_tried_alone_is_no_verdict(stand: Stand, pipelining: bool) -> None:
    session = await stand.session(
        Script(rcpt={"1@b.test": "552 5.5.3 Too many"}, drop_after="message", pipelining=pipelining)
    )
    sent = await session.send(mail(*numbered(2)))
    assert [(result.code, result.untouched) for result in sent.results] == [(250, False), (0, True)]


async def test_421_between_transactions_is_what_the_others_get(stand: Stand) -> None:
    session = await stand.session(Script(extensions=["LIMITS RCPTMAX=1"], message="421 4.3.2 Closing"))
    sent = await session.send(mail(*numbered(3)))
    assert codes(sent) == [421] * 3
    assert [(result.stage, result.untouched) for result in sent.results] == [
        (Stage.MESSAGE, False),
        (Stage.MAIL, True),
        (Stage.MAIL, True),
    ]


@BOTH_WAYS
async def test_a_failed_transaction_does_not_decide_for_the_next(stand: Stand, pipelining: bool) -> None:
    script = Script(extensions=["LIMITS RCPTMAX=1"], message=["554 5.6.0 No", "250 2.0.0 OK"], pipelining=pipelining)
    script.message = {"0@b.test": "554 5.6.0 No"}
    session = await stand.session(script)
    assert codes(await session.send(mail(*numbered(2)))) == [554, 250]
    assert taken(stand) == [["1@b.test"]]


async def test_one_address_given_twice_has_two_results(stand: Stand) -> None:
    session = await stand.session()
    assert codes(await session.send(mail("b@b.test", "b@b.test"))) == [250, 250]


async def test_a_reset_that_is_refused_ends_the_session(stand: Stand) -> None:
    session = await stand.session(Script(rcpt={"0@b.test": "550 No"}, rset="550 5.5.1 What"))
    await session.send(mail("0@b.test"))
    sent = await session.send(mail("1@b.test"))
    assert [(result.code, result.untouched) for result in sent.results] == [(0, True)]
    assert "does not speak SMTP" in sent.results[0].text
    assert not session.usable
