from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from shared.db import endpoints
from shared.db.endpoints import NewEndpoint
from shared.errors import NotFound, SecretUnreadable, ValidationFailed
from shared.models import Domain
from shared.security.keys import KeyRing
from shared.security.webhook_signing import new_secret, parse_secret

Sessions = async_sessionmaker[AsyncSession]
Raw = asyncpg.Connection
HOOK = NewEndpoint("https://hooks.example/in", events=("delivered", "failed"), authorization="Bearer sesame")


async def test_an_endpoint_comes_with_its_place_in_the_queue_of_calls(
    sessions: Sessions, connection: Raw, domain: Domain, ring: KeyRing
) -> None:
    async with sessions() as session, session.begin():
        row, secret = await endpoints.create_endpoint(session, ring, domain.account_id, HOOK)
    place = await connection.fetchrow(
        "SELECT s.queue, s.name, s.conn_limit, l.account_id FROM endpoint e JOIN lane l ON l.id = e.lane_id JOIN site s ON s.id = l.site_id"
    )
    assert tuple(place) == ("call", str(row.id), 2, domain.account_id)
    target = (await endpoints.for_calls(connection, [row.id, row.id, 99]))[row.id]
    assert (target.url, target.kind, target.format, target.disabled) == (HOOK.url, "delivery", "posthouse", False)
    assert target.secrets(ring) == (parse_secret(secret),)
    assert target.authorization(ring) == "Bearer sesame"
    for text in (repr(row), repr(target), repr(HOOK)):
        assert row.secret_sealed not in text
        assert "sesame" not in text
    with pytest.raises(SecretUnreadable):
        target.secrets(KeyRing(["t" * 32]))


async def test_a_sealed_secret_does_not_open_in_another_row(
    sessions: Sessions, connection: Raw, domain: Domain, ring: KeyRing
) -> None:
    async with sessions() as session, session.begin():
        one, _ = await endpoints.create_endpoint(session, ring, domain.account_id, HOOK)
        two, _ = await endpoints.create_endpoint(session, ring, domain.account_id, HOOK)
    await connection.execute(
        "UPDATE endpoint SET secret_sealed = (SELECT secret_sealed FROM endpoint WHERE id = $1) WHERE id = $2",
        one.id,
        two.id,
    )
    with pytest.raises(SecretUnreadable):
        (await endpoints.for_calls(connection, [two.id]))[two.id].secrets(ring)


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (NewEndpoint(""), "url"),
        (NewEndpoint("https://x.example/" + "a" * 2048), "url"),
        (NewEndpoint("https://x.example/\x00"), "url"),
        (NewEndpoint("https://x.example", description="x" * 1001), "description"),
        (NewEndpoint("https://x.example", events=("opened",)), "events"),
        (NewEndpoint("https://x.example", events=("failed", "failed")), "events"),
        (NewEndpoint("https://x.example", authorization="a\r\nX-Evil: 1"), "authorization"),
        (NewEndpoint("https://x.example", authorization=""), "authorization"),
        (NewEndpoint("https://x.example", authorization=" a"), "authorization"),
        (NewEndpoint("https://x.example", authorization="é"), "authorization"),
        (NewEndpoint("https://x.example", format="mox", delayed="last"), "delayed"),
        (NewEndpoint("https://x.example", secret="whsec_short"), None),
    ],
)
async def test_bad_endpoints_are_refused_by_field(
    session: AsyncSession, domain: Domain, ring: KeyRing, new: NewEndpoint, field: str | None
) -> None:
    with pytest.raises(ValidationFailed) as error:
        await endpoints.create_endpoint(session, ring, domain.account_id, new)
    assert field is None or error.value.field == field


async def test_an_account_has_no_more_than_a_hundred(session: AsyncSession, domain: Domain, ring: KeyRing) -> None:
    made = [await endpoints.create_endpoint(session, ring, domain.account_id, HOOK) for _ in range(100)]
    with pytest.raises(ValidationFailed):
        await endpoints.create_endpoint(session, ring, domain.account_id, HOOK)
    await endpoints.delete_endpoint(session, domain.account_id, made[0][0].id)
    await endpoints.create_endpoint(session, ring, domain.account_id, HOOK)
    first = await endpoints.list_endpoints(session, domain.account_id, limit=60)
    second = await endpoints.list_endpoints(session, domain.account_id, cursor=first.next_cursor, limit=60)
    assert [len(first.items), len(second.items)] == [60, 40]
    assert made[0][0].id not in {row.id for row in first.items}


async def test_a_rotated_secret_signs_beside_the_new_one_until_the_overlap_has_passed(
    sessions: Sessions, connection: Raw, domain: Domain, ring: KeyRing
) -> None:
    account_id = domain.account_id
    async with sessions() as session, session.begin():
        row, first = await endpoints.create_endpoint(session, ring, account_id, HOOK)
    async with sessions() as session, session.begin():
        _, second = await endpoints.rotate_secret(session, ring, account_id, row.id)
    both = (await endpoints.for_calls(connection, [row.id]))[row.id]
    assert both.secrets(ring) == (parse_secret(second), parse_secret(first))
    await connection.execute("UPDATE endpoint SET previous_secret_until = now() - interval '1 second'")
    assert (await endpoints.for_calls(connection, [row.id]))[row.id].secrets(ring) == (parse_secret(second),)
    third = new_secret()
    async with sessions() as session, session.begin():
        await endpoints.rotate_secret(session, ring, account_id, row.id, overlap=timedelta(0), secret=third)
        for overlap in (timedelta(seconds=-1), timedelta(days=31)):
            with pytest.raises(ValidationFailed):
                await endpoints.rotate_secret(session, ring, account_id, row.id, overlap=overlap)
        with pytest.raises(ValidationFailed):
            await endpoints.rotate_secret(session, ring, account_id, row.id, secret="nonsense")
    assert (await endpoints.for_calls(connection, [row.id]))[row.id].secrets(ring) == (parse_secret(third),)


async def test_a_stranger_finds_no_endpoint_and_a_deleted_one_is_kept_for_its_calls(
    sessions: Sessions, connection: Raw, domain: Domain, strange_domain: Domain, ring: KeyRing
) -> None:
    account_id, stranger = domain.account_id, strange_domain.account_id
    async with sessions() as session, session.begin():
        row, _ = await endpoints.create_endpoint(session, ring, account_id, HOOK)
        for wrong in ((stranger, row.id), (account_id, row.id + 1), (account_id, 2**63)):
            with pytest.raises(NotFound):
                await endpoints.get_endpoint(session, *wrong)
            with pytest.raises(NotFound):
                await endpoints.delete_endpoint(session, *wrong)
            with pytest.raises(NotFound):
                await endpoints.rotate_secret(session, ring, *wrong)
        assert (await endpoints.list_endpoints(session, stranger)).items == []
        await endpoints.delete_endpoint(session, account_id, row.id)
        with pytest.raises(NotFound):
            await endpoints.get_endpoint(session, account_id, row.id)
        with pytest.raises(NotFound):
            await endpoints.create_endpoint(session, ring, 99, HOOK)
    target = (await endpoints.for_calls(connection, [row.id]))[row.id]
    assert target.disabled
    assert target.deleted_at is not None


async def test_the_local_stack_registers_a_url_again_without_a_second_endpoint(
    sessions: Sessions, connection: Raw, domain: Domain, ring: KeyRing
) -> None:
    account_id = domain.account_id
    url = "http://127.0.0.1:9/hook"
    async with sessions() as session, session.begin():
        first, secret = await endpoints.upsert_by_url(session, ring, account_id, NewEndpoint(url, authorization="one"))
    await connection.execute("UPDATE endpoint SET disabled_at = now()")
    async with sessions() as session, session.begin():
        again, same = await endpoints.upsert_by_url(session, ring, account_id, NewEndpoint(url, format="mox"))
    assert (again.id, same) == (first.id, secret)
    target = (await endpoints.for_calls(connection, [first.id]))[first.id]
    assert (target.format, target.authorization(ring), target.disabled) == ("mox", None, False)
    given = new_secret()
    async with sessions() as session, session.begin():
        inbound, _ = await endpoints.upsert_by_url(session, ring, account_id, NewEndpoint(url, kind="inbound"))
        assert inbound.id != first.id
        _, taken = await endpoints.upsert_by_url(session, ring, account_id, NewEndpoint(url, secret=given))
    assert taken == given
    assert (await endpoints.for_calls(connection, [first.id]))[first.id].secrets(ring) == (parse_secret(given),)
