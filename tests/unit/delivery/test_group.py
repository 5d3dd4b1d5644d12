"""Which mails share a transaction, and how far a session runs ahead of what is written."""

import asyncio

from delivery.attempt import Ahead
from delivery.group import grouped
from delivery.prepare import Mail
from shared.db.queue import Claimed
from shared.db.starts import Candidate
from shared.worker.backoff import DELIVERY_MOX


def mail(
    recipient: str, *, message: int = 1, delivery: int = 1, sender: str = "a@a.test", require_tls: bool = False
) -> Mail:
    return Mail(
        claimed=Claimed(delivery, 0, 1, 1, 1),
        candidate=Candidate(delivery, 1, recipient, "b.test", recipient, recipient, "a@a.test", "a.test"),
        message_id=message,
        mail_from=sender,
        has_from_id=False,
        recipient=recipient,
        due_at=None,
        tried_since=None,
        expires_at=None,
        size=20,
        header_size=12,
        smtputf8=False,
        require_tls=require_tls,
        schedule=DELIVERY_MOX,
        content=None,
    )


def recipients(mails: list[Mail], most: int = 50) -> list[list[str]]:
    return [[one.recipient for one in group] for group in grouped(mails, most)]


def test_recipients_of_one_message_are_a_group_in_the_order_of_their_first() -> None:
    mails = [mail("a@b.test"), mail("b@b.test", message=2), mail("c@b.test"), mail("d@b.test", message=2)]
    assert recipients(mails) == [["a@b.test", "c@b.test"], ["b@b.test", "d@b.test"]]


def test_a_group_is_no_larger_than_allowed() -> None:
    assert recipients([mail(f"{n}@b.test") for n in range(5)], 2) == [
        ["0@b.test", "1@b.test"],
        ["2@b.test", "3@b.test"],
        ["4@b.test"],
    ]


def test_what_differs_in_more_than_the_recipient_goes_alone() -> None:
    mails = [mail("a@b.test"), mail("b@b.test", sender="x@a.test"), mail("c@b.test", require_tls=True)]
    assert recipients(mails) == [["a@b.test"], ["b@b.test"], ["c@b.test"]]


def test_an_address_outside_ascii_asks_nothing_of_the_server_for_the_others() -> None:
    assert recipients([mail("a@b.test"), mail("jörg@b.test"), mail("c@b.test")]) == [
        ["a@b.test", "c@b.test"],
        ["jörg@b.test"],
    ]


def test_an_address_that_comes_twice_is_sent_to_twice() -> None:
    groups = grouped([mail("a@b.test", delivery=1), mail("a@b.test", delivery=2), mail("c@b.test", delivery=3)], 50)
    assert [[one.delivery_id for one in group] for group in groups] == [[1], [2, 3]]


async def test_results_under_way_are_bounded_by_recipients() -> None:
    ahead = Ahead(4)
    await ahead.take(3)
    more = asyncio.ensure_future(ahead.take(2))
    await _turns()
    assert not more.done()
    ahead.give(1)
    await asyncio.wait_for(more, 10)


async def test_a_group_larger_than_the_bound_goes_alone() -> None:
    ahead = Ahead(4)
    await ahead.take(20)
    more = asyncio.ensure_future(ahead.take(1))
    ahead.give(16)
    await _turns()
    assert not more.done()
    ahead.give(1)
    await asyncio.wait_for(more, 10)


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
