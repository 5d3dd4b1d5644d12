import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from shared.db import accounts, dkim_keys, domains
from shared.db.domains import DnsRecord
from shared.errors import AddressInvalid, Conflict, NotFound, ValidationFailed
from shared.mail.address import parse
from shared.models import Domain
from shared.security.keys import KeyRing

Sessions = async_sessionmaker[AsyncSession]
Raw = asyncpg.Connection


class Zone:
    """Answers TXT from a dict."""

    def __init__(self, texts: dict[str, list[str]]) -> None:
        self._texts = texts

    async def txt(self, name: str) -> list[str]:
        if name not in self._texts:
            raise NotFound
        return self._texts[name]


async def _add(session: AsyncSession, name: str, **options: object) -> Domain:
    account = await accounts.create_account(session, f"account of {name} {options}")
    return await domains.create_domain(session, account.id, name, **options)


async def test_a_domain_is_stored_in_a_labels_with_a_token_of_its_own(session: AsyncSession) -> None:
    one = await _add(session, "BÜCHER.example", bounce_domain="Bounces.bücher.example")
    assert (one.name, one.bounce_domain) == ("xn--bcher-kva.example", "bounces.xn--bcher-kva.example")
    two = await domains.create_domain(session, one.account_id, "other.example")
    assert one.verification_token != two.verification_token
    assert one.verified_at is None
    with pytest.raises(Conflict):
        await domains.create_domain(session, one.account_id, "bücher.example")
    with pytest.raises(NotFound):
        await domains.create_domain(session, 99, "example.com")


@pytest.mark.parametrize("name", ["", "a b", "[192.0.2.1]", "x@y.example", "a..b", "1.2.3.4", "a\x00b.example"])
async def test_a_name_that_is_no_domain_is_refused(session: AsyncSession, name: str) -> None:
    account = await accounts.create_account(session, "a")
    with pytest.raises(AddressInvalid):
        await domains.create_domain(session, account.id, name)


@pytest.mark.parametrize("separators", [(), ("+", "+"), ("",), ("a",), ("@",), ("+" * 9,), tuple("!#$%&'*+-/=")])
async def test_separators_that_cannot_work_are_refused(session: AsyncSession, separators: tuple[str, ...]) -> None:
    with pytest.raises(ValidationFailed):
        await _add(session, "example.com", separators=separators)


async def test_a_domain_is_proven_by_its_token_and_nothing_else(session: AsyncSession) -> None:
    domain = await _add(session, "example.com")
    record = domains.dns_records(domain, [], "mail.posthouse.test")[0]
    assert record.name == "_posthouse.example.com"
    assert await domains.is_proven(domain, Zone({record.name: ["other", f" {record.value} "]}))
    assert not await domains.is_proven(domain, Zone({record.name: [record.value + "x", domain.verification_token]}))
    assert not await domains.is_proven(domain, Zone({}))


async def test_a_domain_is_proven_by_one_account_only(sessions: Sessions) -> None:
    async with sessions() as session, session.begin():
        rows = [await _add(session, "example.com", separators=(separator,)) for separator in "+-="]

    async def mark(row: Domain) -> bool:
        async with sessions() as session, session.begin():
            try:
                return (await domains.mark_verified(session, row.account_id, row.id)).verified_at is not None
            except Conflict:
                # The transaction is still good for other things.
                return (await domains.get_domain(session, row.account_id, row.id)).verified_at is not None

    assert sorted(await asyncio.gather(*(mark(row) for row in rows))) == [False, False, True]
    async with sessions() as session, session.begin():
        winner = [r for r in rows if (await domains.get_domain(session, r.account_id, r.id)).verified_at is not None]
        await domains.mark_verified(session, winner[0].account_id, winner[0].id)


async def test_an_account_sees_its_own_domains_only(
    session: AsyncSession, domain: Domain, strange_domain: Domain, ring: KeyRing
) -> None:
    for read in (domains.get_domain, dkim_keys.list_dkim_keys, domains.mark_verified, domains.delete_domain):
        with pytest.raises(NotFound):
            await read(session, strange_domain.account_id, domain.id)
    assert await domains.find_domain(session, strange_domain.account_id, domain.name) is None
    more = await domains.create_domain(session, domain.account_id, "more.example")
    first = await domains.list_domains(session, domain.account_id, limit=1)
    second = await domains.list_domains(session, domain.account_id, cursor=first.next_cursor)
    assert [row.id for row in first.items + second.items] == [domain.id, more.id]
    await dkim_keys.create_dkim_key(session, ring, more, "ed25519-sha256")
    await domains.delete_domain(session, domain.account_id, more.id)
    assert [row.id for row in (await domains.list_domains(session, domain.account_id)).items] == [domain.id]


async def test_the_records_to_set_name_every_thing_once(session: AsyncSession, ring: KeyRing) -> None:
    domain = await _add(session, "example.com", bounce_domain="bounces.example.com")
    key = await dkim_keys.create_dkim_key(session, ring, domain, "ed25519-sha256")
    retired = await dkim_keys.create_dkim_key(session, ring, domain, "ed25519-sha256", selector="old")
    retired.active = False
    records = domains.dns_records(domain, [key, retired], "mail.posthouse.test")
    assert [(record.name, record.type) for record in records] == [
        ("_posthouse.example.com", "TXT"),
        ("posthouse-ed25519._domainkey.example.com", "TXT"),
        ("old._domainkey.example.com", "TXT"),
        ("bounces.example.com", "TXT"),
        ("_dmarc.example.com", "TXT"),
        ("bounces.example.com", "MX"),
    ]
    values = {(record.name, record.type): record for record in records}
    assert values["posthouse-ed25519._domainkey.example.com", "TXT"].value == key.dns_record
    assert values["bounces.example.com", "TXT"].value == "v=spf1 a:mail.posthouse.test ~all"
    assert values["bounces.example.com", "MX"].value == "10 mail.posthouse.test"
    assert all(isinstance(record, DnsRecord) and record.purpose for record in records)
    # Mail that it signed is under way, or it is to sign soon.
    assert "signs nothing now" in values["old._domainkey.example.com", "TXT"].purpose
    assert "signs nothing now" not in values["posthouse-ed25519._domainkey.example.com", "TXT"].purpose


@pytest.mark.parametrize(
    "case",
    [
        ("login", "info@example.com", True),
        ("login", "INFO@example.com", True),
        ("login", "info+any@example.com", True),
        ("login", "info--any+more@example.com", True),
        ("login", "+info@example.com", False),
        ("login", "other@example.com", False),
        ("login", "inf@example.com", False),
        ("login", "info-any@example.com", False),
        ("login", "anything@catchall.example", True),
        ("login", "info@unproven.example", False),
        ("login", "info@sub.example.com", False),
        ("login", "info@stranger.example", False),
        ("api_key", "other@example.com", True),
        ("api_key", "a+b@catchall.example", True),
        ("api_key", "info@unproven.example", False),
        ("api_key", "info@sub.example.com", False),
        ("api_key", "info@stranger.example", False),
    ],
)
async def test_who_may_use_which_address_in_from(
    sessions: Sessions, connection: Raw, domain: Domain, strange_domain: Domain, case: tuple[str, str, bool]
) -> None:
    async with sessions() as session, session.begin():
        await accounts.add_address(session, domain.account_id, "info@example.com")
        catchall = await domains.create_domain(session, domain.account_id, "catchall.example")
        await domains.mark_verified(session, domain.account_id, catchall.id)
        await accounts.add_address(session, domain.account_id, "@catchall.example")
        await domains.create_domain(session, domain.account_id, "unproven.example")
        await accounts.add_address(session, domain.account_id, "@unproven.example")
        await accounts.add_address(session, strange_domain.account_id, "@stranger.example")
    kind, sender, allowed = case
    found = await domains.sender_allowed(connection, domain.account_id, kind, parse(sender))
    assert (found is not None) is allowed


async def test_the_facts_for_submitting_come_along(sessions: Sessions, connection: Raw, domain: Domain) -> None:
    address = parse("a@example.com")
    found = await domains.sender_allowed(connection, domain.account_id, "api_key", address)
    assert found is not None
    assert (found.id, found.name, found.separators, found.bounce_domain) == (
        domain.id,
        "example.com",
        ("+", "--"),
        None,
    )
    assert not found.disabled
    async with sessions() as session, session.begin():
        await domains.set_domain_disabled(session, domain.account_id, domain.id, disabled=True)
    disabled = await domains.sender_allowed(connection, domain.account_id, "api_key", address)
    assert disabled is not None
    assert disabled.disabled
    async with sessions() as session, session.begin():
        again = await domains.set_domain_disabled(session, domain.account_id, domain.id, disabled=False)
        assert again.disabled_at is None
        await domains.create_domain(session, domain.account_id, "unproven.example")
    unproven = parse("a@unproven.example")
    assert await domains.sender_allowed(connection, domain.account_id, "api_key", unproven) is None
    assert await domains.sender_allowed(connection, domain.account_id, "api_key", unproven, unverified=True) is not None
