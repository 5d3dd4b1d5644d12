"""Reports to return paths whose from_id a client chose."""

import pytest

from fakes.waiting import eventually
from integration.dsn_ingest.conftest import FROM_IDS, Inbox
from integration.dsn_ingest.test_reports import postfix_dsn, refusal


async def stranger(inbox: Inbox, domain: str, *, bounce_domain: str | None = None) -> int:
    """Make another account that owns a domain, proven before ours was, with one address in it."""
    account_id: int = await inbox.pool.fetchval("INSERT INTO account (name) VALUES ('stranger') RETURNING id")
    domain_id = await inbox.pool.fetchval(
        "INSERT INTO domain (account_id, name, verification_token, verified_at, bounce_domain) VALUES ($1, $2, 't', '2020-01-01', $3) RETURNING id",
        account_id,
        domain,
        bounce_domain,
    )
    await inbox.pool.execute(
        "INSERT INTO address (account_id, domain_id, local) VALUES ($1, $2, 'me')", account_id, domain_id
    )
    return account_id


async def belongs_to(inbox: Inbox) -> list[tuple[int | None, int | None]]:
    """Return account and delivery of everything received."""
    rows = await inbox.pool.fetch("SELECT account_id, delivery_id FROM inbound_message ORDER BY id")
    return [(row["account_id"], row["delivery_id"]) for row in rows]


async def test_a_report_finds_the_delivery_by_the_from_id_that_its_client_chose(inbox: Inbox) -> None:
    delivery, return_path = await inbox.sent("gone@b.test", chosen="order-17")
    await inbox.receive(postfix_dsn("gone@b.test"), return_path)
    await eventually(inbox.read_all)
    assert await inbox.events(delivery) == ["bounced"]
    assert await inbox.pool.fetchval("SELECT delivery_id FROM suppression WHERE address = 'gone@b.test'") == delivery
    assert await belongs_to(inbox) == [(inbox.room.account_id, delivery)]


@pytest.mark.parametrize("fold", [str.upper, str.lower])
async def test_a_chosen_from_id_survives_case_folding(inbox: Inbox, fold: object) -> None:
    delivery, return_path = await inbox.sent("gone@b.test", chosen="Order+17", mail_from="Me+Order+17@ours.test")
    assert callable(fold)
    await inbox.receive(postfix_dsn("gone@b.test"), fold(return_path))
    await eventually(inbox.read_all)
    assert await inbox.events(delivery) == ["bounced"]


async def test_separators_that_changed_since_do_not_matter(inbox: Inbox) -> None:
    made, made_path = await inbox.sent("gone@b.test")
    chosen, chosen_path = await inbox.sent("gone@c.test", chosen="order")
    await inbox.pool.execute("UPDATE domain SET catchall_separators = '{=}'")
    await inbox.receive(postfix_dsn("gone@b.test"), made_path)
    await inbox.receive(postfix_dsn("gone@c.test"), chosen_path)
    await eventually(inbox.read_all)
    assert await inbox.events(made) == await inbox.events(chosen) == ["bounced"]


async def test_another_address_with_the_same_suffix_is_ordinary_mail(inbox: Inbox) -> None:
    delivery, _ = await inbox.sent("gone@b.test", chosen="news", mail_from="other+news@ours.test")
    await inbox.receive(postfix_dsn("gone@b.test"), "me+news@ours.test")
    await eventually(inbox.read_all)
    assert await inbox.events(delivery) == []
    assert await belongs_to(inbox) == [(inbox.room.account_id, None)]


async def test_at_another_accounts_domain_it_is_ordinary_mail_or_refused(inbox: Inbox) -> None:
    delivery, _ = await inbox.sent("gone@b.test", chosen="order-17")
    theirs = await stranger(inbox, "theirs.test")
    await inbox.receive(postfix_dsn("gone@b.test"), "me+order-17@theirs.test")
    assert await refusal(inbox, "nobody+order-17@theirs.test") == 550
    await eventually(inbox.read_all)
    assert await inbox.events(delivery) == []
    assert await belongs_to(inbox) == [(theirs, None)]


async def test_nobody_claims_anothers_mail_by_its_address_or_its_bounce_domain(inbox: Inbox) -> None:
    theirs, ours = await stranger(inbox, "theirs.test", bounce_domain="ours.test"), inbox.room.account_id
    # The door takes return paths at the account's own domains only; these were sent before the domain changed hands.
    inbox.room.account_id = theirs
    claimed, return_path = await inbox.sent("x@b.test", chosen="order-17")
    _, unknown = await inbox.sent("y@b.test", chosen="order-18", mail_from="nobody+order-18@ours.test")
    inbox.room.account_id = ours
    delivery, _ = await inbox.sent("gone@b.test", chosen="order-17")
    await inbox.receive(postfix_dsn("gone@b.test"), return_path)
    await eventually(inbox.read_all)
    assert (await inbox.events(delivery), await inbox.events(claimed)) == (["bounced"], [])
    assert await belongs_to(inbox) == [(ours, delivery)]
    assert await refusal(inbox, unknown) == 550


async def test_a_from_id_that_was_made_is_looked_at_first(inbox: Inbox) -> None:
    made, return_path = await inbox.sent("gone@b.test")
    token = FROM_IDS.make(made)
    chosen, _ = await inbox.sent("x@b.test", chosen=token, mail_from=return_path)
    await inbox.receive(postfix_dsn("gone@b.test"), return_path)
    await eventually(inbox.read_all)
    assert (await inbox.events(made), await inbox.events(chosen)) == (["bounced"], [])


async def test_at_the_bounce_domain_a_report_finds_the_chosen_by_the_made_token(inbox: Inbox) -> None:
    await inbox.pool.execute("UPDATE domain SET bounce_domain = 'bounces.ours.test'")
    (message,) = await inbox.room.messages(["gone@b.test"])
    delivery_id = message.deliveries[0].id
    path = f"b+{FROM_IDS.make(delivery_id)}@bounces.ours.test"
    delivery, _ = await inbox.sent("gone@b.test", delivery_id=delivery_id, chosen="order-17", mail_from=path)
    assert await refusal(inbox, "b+order-17@bounces.ours.test") == 550
    await inbox.receive(postfix_dsn("gone@b.test"), path)
    await eventually(inbox.read_all)
    assert await inbox.events(delivery) == ["bounced"]
