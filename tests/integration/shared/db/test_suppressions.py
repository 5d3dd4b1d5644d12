from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from shared.db import suppressions
from shared.db.suppressions import SuppressionOptions
from shared.errors import Conflict, NotFound, ValidationFailed
from shared.mail.address import mox_key, parse, suppression_key
from shared.models import Domain

Sessions = async_sessionmaker[AsyncSession]
Raw = asyncpg.Connection
MOX = SuppressionOptions(match_by_mox_key=True)


async def _among(connection: Raw, account_id: int, *recipients: str) -> set[int]:
    addresses = [parse(recipient) for recipient in recipients]
    keys = [(suppression_key(address), mox_key(address)) for address in addresses]
    return await suppressions.suppressed_among(connection, account_id, keys)


async def test_an_entry_is_made_once_per_recipient(session: AsyncSession, domain: Domain) -> None:
    account_id = domain.account_id
    row = await suppressions.add_suppression(
        session, account_id, parse("First.Last+x@BÜCHER.example"), SuppressionOptions("asked us to")
    )
    assert (row.key, row.mox_key) == ("first.last@xn--bcher-kva.example", "firstlast@bücher.example")
    assert (row.address, row.reason, row.manual) == ("First.Last+x@bücher.example", "asked us to", True)
    assert (await suppressions.get_suppression(session, account_id, row.id)).id == row.id
    with pytest.raises(Conflict):
        await suppressions.add_suppression(session, account_id, parse("first.last+other@bücher.example"))
    await suppressions.add_suppression(session, account_id, parse("firstlast@bücher.example"))
    with pytest.raises(Conflict):
        await suppressions.add_suppression(session, account_id, parse("f.irst.last-x@bücher.example"), MOX)
    with pytest.raises(ValidationFailed):
        await suppressions.add_suppression(session, account_id, parse("a@b.example"), SuppressionOptions("x" * 1001))
    with pytest.raises(NotFound):
        await suppressions.add_suppression(session, 99, parse("a@b.example"))


async def test_entries_match_by_our_key_or_by_mox_but_not_by_both(
    sessions: Sessions, connection: Raw, domain: Domain, strange_domain: Domain
) -> None:
    async with sessions() as session, session.begin():
        await suppressions.add_suppression(session, domain.account_id, parse("a.b@ours.example"))
        await suppressions.add_suppression(session, domain.account_id, parse("a.b-list@moxlike.example"), MOX)
    recipients = [
        "A.B+tag@ours.example",
        "ab@ours.example",
        "a.b-x@ours.example",
        "ab@moxlike.example",
        "A.B-other+x@moxlike.example",
        "abc@moxlike.example",
        "a.b@elsewhere.example",
    ]
    assert await _among(connection, domain.account_id, *recipients) == {0, 3, 4}
    assert await _among(connection, strange_domain.account_id, *recipients) == set()
    assert await _among(connection, domain.account_id) == set()


async def test_what_has_expired_counts_for_nothing_and_may_be_made_again(
    sessions: Sessions, connection: Raw, domain: Domain
) -> None:
    account_id, address = domain.account_id, parse("a@b.example")
    past = SuppressionOptions("old", manual=False, expires_at=datetime.now(UTC) - timedelta(minutes=1))
    future = SuppressionOptions("new", expires_at=datetime.now(UTC) + timedelta(days=1))
    async with sessions() as session, session.begin():
        old = await suppressions.add_suppression(session, account_id, address, past)
        with pytest.raises(NotFound):
            await suppressions.get_suppression(session, account_id, old.id)
        assert (await suppressions.list_suppressions(session, account_id)).items == []
        assert await suppressions.find_suppression(session, account_id, address) is None
    assert await _among(connection, account_id, "a@b.example") == set()
    async with sessions() as session, session.begin():
        new = await suppressions.add_suppression(session, account_id, address, future)
        assert (new.reason, new.manual) == ("new", True)
    assert await _among(connection, account_id, "a@b.example") == {0}


async def test_the_list_is_paged_newest_first_for_one_account(
    session: AsyncSession, domain: Domain, strange_domain: Domain
) -> None:
    made = [
        (await suppressions.add_suppression(session, domain.account_id, parse(f"r{n}@b.example"))).id for n in range(5)
    ]
    await suppressions.add_suppression(session, strange_domain.account_id, parse("r1@b.example"))
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = await suppressions.list_suppressions(session, domain.account_id, cursor=cursor, limit=2)
        seen += [row.id for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == made[::-1]


async def test_removing_is_for_the_owner_by_id_or_by_address(
    session: AsyncSession, domain: Domain, strange_domain: Domain
) -> None:
    account_id = domain.account_id
    row = await suppressions.add_suppression(session, account_id, parse("a.b@c.example"))
    for number in (row.id, 2**63, -1):
        with pytest.raises(NotFound):
            await suppressions.remove_suppression(session, strange_domain.account_id, number)
    assert await suppressions.remove_suppressed_address(session, strange_domain.account_id, parse("a.b@c.example")) == 0
    assert (await suppressions.remove_suppression(session, account_id, row.id)).address == "a.b@c.example"
    with pytest.raises(NotFound):
        await suppressions.get_suppression(session, account_id, row.id)
    await suppressions.add_suppression(session, account_id, parse("a.b@c.example"))
    assert await suppressions.find_suppression(session, account_id, parse("ab@c.example")) is None
    assert await suppressions.find_suppression(session, account_id, parse("ab@c.example"), by_mox_key=True) is not None
    assert await suppressions.remove_suppressed_address(session, account_id, parse("ab-x@c.example")) == 0
    assert (
        await suppressions.remove_suppressed_address(session, account_id, parse("ab-x@c.example"), by_mox_key=True) == 1
    )
