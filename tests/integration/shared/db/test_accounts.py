import asyncio

import asyncpg
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from shared.db import accounts, credentials, demo, dkim_keys, domains
from shared.db.accounts import AccountOptions
from shared.db.demo import Demo, DemoSecrets
from shared.errors import AddressInvalid, ConfigurationError, Conflict, NotFound, ValidationFailed
from shared.mail.address import parse
from shared.models import Account, Credential, DkimKey, Domain
from shared.security.credentials import key_matches, password_matches, split_api_key
from shared.security.keys import KeyRing

Sessions = async_sessionmaker[AsyncSession]
Raw = asyncpg.Connection


async def test_an_account_is_made_with_defaults_or_as_asked(session: AsyncSession) -> None:
    plain = await accounts.create_account(session, "plain")
    assert (plain.keep_deliveries_seconds, plain.messages_per_day, plain.retry_schedule) == (259_200, None, "default")
    assert plain.created_at.tzinfo is not None
    other = await accounts.create_account(
        session, "other", AccountOptions(keep_calls_seconds=0, messages_per_day=5, retry_schedule="mox")
    )
    assert await accounts.get_account(session, other.id) is other
    assert (other.keep_calls_seconds, other.messages_per_day, other.retry_schedule) == (0, 5, "mox")


async def test_a_name_is_taken_once_and_the_transaction_goes_on(session: AsyncSession) -> None:
    await accounts.create_account(session, "one")
    with pytest.raises(Conflict):
        await accounts.create_account(session, "one")
    await accounts.create_account(session, "two")


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("", AccountOptions(), "name"),
        ("x" * 201, AccountOptions(), "name"),
        ("a\x00b", AccountOptions(), "name"),
        ("a\ud800b", AccountOptions(), "name"),
        ("a", AccountOptions(keep_deliveries_seconds=-1), "keep_deliveries_seconds"),
        ("a", AccountOptions(messages_per_day=2**31), "messages_per_day"),
        ("a", AccountOptions(retry_schedule="often"), "retry_schedule"),
    ],
)
async def test_bad_accounts_are_refused_by_field(
    session: AsyncSession, name: str, options: AccountOptions, field: str
) -> None:
    with pytest.raises(ValidationFailed) as error:
        await accounts.create_account(session, name, options)
    assert error.value.field == field


async def test_accounts_are_listed_in_pages_without_the_installation_itself(session: AsyncSession) -> None:
    made = [(await accounts.create_account(session, f"a{n}")).id for n in range(5)]
    first = await accounts.operator_list_accounts(session, limit=3)
    second = await accounts.operator_list_accounts(session, cursor=first.next_cursor, limit=3)
    assert [row.id for row in first.items + second.items] == made
    assert second.next_cursor is None


@pytest.mark.parametrize("cursor", ["x", "", "!!!!", "ZG9tYWluLjE", "YWNjb3VudC4x.", "é", "A" * 500])
async def test_a_cursor_of_something_else_is_refused(session: AsyncSession, cursor: str) -> None:
    if not cursor:
        assert (await accounts.operator_list_accounts(session, cursor=cursor)).items == []
        return
    with pytest.raises(ValidationFailed) as error:
        await accounts.operator_list_accounts(session, cursor=cursor)
    assert error.value.field == "cursor"


@pytest.mark.parametrize("limit", [0, -1, 201])
async def test_pages_are_bounded(session: AsyncSession, limit: int) -> None:
    with pytest.raises(ValidationFailed):
        await accounts.operator_list_accounts(session, limit=limit)


async def test_disabling_keeps_the_first_time_and_can_be_undone(session: AsyncSession) -> None:
    account = await accounts.create_account(session, "a")
    disabled_at = (await accounts.set_account_disabled(session, account.id, disabled=True)).disabled_at
    assert disabled_at is not None
    assert (await accounts.set_account_disabled(session, account.id, disabled=True)).disabled_at == disabled_at
    assert (await accounts.set_account_disabled(session, account.id, disabled=False)).disabled_at is None
    for number in (0, 99, 2**63, -1):
        with pytest.raises(NotFound):
            await accounts.set_account_disabled(session, number, disabled=True)


async def test_addresses_are_stored_lower_case_and_listed(session: AsyncSession, domain: Domain) -> None:
    added = await accounts.add_address(session, domain.account_id, "Info.Desk@EXAMPLE.com")
    catchall = await accounts.add_address(session, domain.account_id, "@example.com")
    assert (added.text, catchall.text) == ("info.desk@example.com", "@example.com")
    page = await accounts.list_addresses(session, domain.account_id, limit=1)
    rest = await accounts.list_addresses(session, domain.account_id, cursor=page.next_cursor)
    assert page.items + rest.items == [added, catchall]
    with pytest.raises(Conflict):
        await accounts.add_address(session, domain.account_id, "info.DESK@example.com")
    await accounts.remove_address(session, domain.account_id, added.id)
    assert (await accounts.list_addresses(session, domain.account_id)).items == [catchall]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a+b@example.com", AddressInvalid),
        ("a--b@example.com", AddressInvalid),
        ("nonsense", AddressInvalid),
        ("@", AddressInvalid),
        ("a@elsewhere.example", ValidationFailed),
        ("@elsewhere.example", ValidationFailed),
    ],
)
async def test_addresses_that_make_no_sense_are_refused(
    session: AsyncSession, domain: Domain, text: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await accounts.add_address(session, domain.account_id, text)


async def test_another_account_cannot_remove_an_address_or_add_one(session: AsyncSession, domain: Domain) -> None:
    address = await accounts.add_address(session, domain.account_id, "a@example.com")
    stranger = await accounts.create_account(session, "stranger")
    with pytest.raises(NotFound):
        await accounts.remove_address(session, stranger.id, address.id)
    with pytest.raises(ValidationFailed):
        await accounts.add_address(session, stranger.id, "b@example.com")
    assert (await accounts.list_addresses(session, stranger.id)).items == []


async def _seed(sessions: Sessions, ring: KeyRing, secrets: DemoSecrets) -> Demo:
    async with sessions() as session, session.begin():
        return await demo.seed_demo(session, ring, secrets)


async def _authenticates(connection: Raw, ring: KeyRing, key: str, account_id: int | None) -> bool:
    parts = split_api_key(key)
    assert parts is not None
    row = await credentials.find_credential(connection, parts.key_id)
    assert row is not None
    assert row.account_id == account_id
    return row.revoked_at is None and key_matches(ring, row.key_hash or "", parts.secret)


async def test_the_demo_account_is_what_the_local_stack_promises(
    sessions: Sessions, ring: KeyRing, database_url: str
) -> None:
    made = await _seed(sessions, ring, DemoSecrets())
    async with sessions() as session:
        account = await accounts.get_account(session, made.account_id)
        assert (account.keep_deliveries_seconds, account.keep_calls_seconds) == (72 * 3600, 72 * 3600)
        assert (account.messages_per_day, account.first_time_recipients_per_day) == (None, None)
        assert (account.retry_schedule, account.dsn_to_sender) == ("mox", True)
        domain = await domains.find_domain(session, account.id, "posthouse.test")
        assert domain is not None
        assert domain.verified_at is not None
        assert domain.catchall_separators == ["+"]
        keys = await dkim_keys.list_dkim_keys(session, account.id, domain.id)
        assert {key.algorithm for key in keys} == {"ed25519-sha256", "rsa-sha256"}
        listed = await accounts.list_addresses(session, account.id)
        assert [address.text for address in listed.items] == ["demo@posthouse.test"]
    connection = await asyncpg.connect(database_url)
    login = await credentials.find_credential(connection, credentials.login_id("Demo@posthouse.test"))
    assert login is not None
    assert login.uses_from_ids
    assert password_matches(login.password_hash, "posthouse-demo")
    assert await _authenticates(connection, ring, made.account_key, made.account_id)
    assert await _authenticates(connection, ring, made.admin_key, None)
    allowed = await domains.sender_allowed(connection, made.account_id, "login", parse("demo+x@posthouse.test"))
    refused = await domains.sender_allowed(connection, made.account_id, "login", parse("other@posthouse.test"))
    await connection.close()
    assert allowed is not None
    assert refused is None


async def _counts(sessions: Sessions) -> list[int]:
    async with sessions() as session:
        tables = (Account, Credential, Domain, DkimKey)
        return [await session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]


async def test_a_restart_finds_the_demo_account_as_it_was(sessions: Sessions, ring: KeyRing) -> None:
    first = await _seed(sessions, ring, DemoSecrets())
    before = await _counts(sessions)
    again = await _seed(sessions, ring, DemoSecrets(account_key=first.account_key, admin_key=first.admin_key))
    assert again == first
    assert await _counts(sessions) == before


async def test_two_starts_at_once_make_one_demo_account(sessions: Sessions, ring: KeyRing) -> None:
    one, two = await asyncio.gather(_seed(sessions, ring, DemoSecrets()), _seed(sessions, ring, DemoSecrets()))
    assert one.account_id == two.account_id


async def test_kept_keys_work_with_a_new_database_and_lost_keys_are_replaced(
    sessions: Sessions, ring: KeyRing, database_url: str
) -> None:
    first = await _seed(sessions, ring, DemoSecrets())
    kept = DemoSecrets(password="another", account_key=first.account_key, admin_key=first.admin_key)
    connection = await asyncpg.connect(database_url)
    await connection.execute("DELETE FROM account WHERE id = $1", first.account_id)
    await connection.execute("DELETE FROM credential")
    anew = await _seed(sessions, ring, kept)
    assert (anew.account_key, anew.admin_key) == (first.account_key, first.admin_key)
    assert await _authenticates(connection, ring, anew.account_key, anew.account_id)
    lost = await _seed(sessions, ring, DemoSecrets(password="third"))
    assert lost.account_key != first.account_key
    assert await _authenticates(connection, ring, lost.account_key, anew.account_id)
    assert await _authenticates(connection, ring, lost.admin_key, None)
    assert not await _authenticates(connection, ring, first.account_key, anew.account_id)
    login = await credentials.find_credential(connection, "demo@posthouse.test")
    assert login is not None
    assert password_matches(login.password_hash, "third")
    # A key revoked since is not brought back to life.
    revived = await _seed(sessions, ring, DemoSecrets(account_key=first.account_key))
    assert revived.account_key not in {first.account_key, lost.account_key}
    await connection.close()


async def test_seeding_refuses_what_is_no_key_and_a_login_of_someone_else(
    sessions: Sessions,
    ring: KeyRing,
) -> None:
    with pytest.raises(ConfigurationError):
        await _seed(sessions, ring, DemoSecrets(account_key="nonsense"))
    made = await _seed(sessions, ring, DemoSecrets())
    async with sessions() as session, session.begin():
        await session.execute(text("UPDATE account SET name = 'renamed' WHERE id = :id"), {"id": made.account_id})
    with pytest.raises(Conflict):
        await _seed(sessions, ring, DemoSecrets())
