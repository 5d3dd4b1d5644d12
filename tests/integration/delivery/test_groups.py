"""Recipients of one message share a transaction, and each has a result of its own."""

import asyncpg

from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order

GROUP = [f"u{n}@b.test" for n in range(5)]


async def test_recipients_of_one_message_share_a_transaction_and_each_is_settled(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        ids = await site.accept_one(*GROUP)
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert [message.recipients for message in server.messages] == [GROUP]
        assert len(server.sessions) == 1
        assert [await site.events(i) for i in ids] == [["delivered"]] * 5
        rows = await site.pool.fetch("SELECT delivery_id, n, outcome, code FROM attempt ORDER BY delivery_id")
        assert [tuple(row) for row in rows] == [(i, 1, "delivered", 250) for i in ids]


async def test_return_paths_of_their_own_share_the_session_only(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        ids = await site.accept_one(*GROUP, from_ids=True)
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert sorted(message.recipients[0] for message in server.messages) == GROUP
        assert {message.mail_from for message in server.messages} == {f"me+{i}@ours.test" for i in ids}
        assert len(server.sessions) == 1


async def test_no_transaction_has_more_recipients_than_the_setting_allows(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await site.accept_one(*GROUP)
        async with in_order(await site.start(recipients=2)):
            await eventually(site.settled)
        assert [len(message.recipients) for message in server.messages] == [2, 2, 1]
        assert len(server.sessions) == 1


async def test_a_server_that_takes_one_recipient_at_a_time_gets_one_at_a_time(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(extensions=["LIMITS RCPTMAX=1"])) as server:
        site = await open_site(server)
        ids = await site.accept_one(*GROUP)
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert sorted(message.recipients for message in server.messages) == [[one] for one in GROUP]
        assert len(server.sessions) == 1
        assert {await _attempts(site, i) for i in ids} == {1}


async def test_who_is_one_too_many_goes_in_the_next_transaction_of_the_same_attempt(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt={"u1@b.test": ["452 4.5.3 too many recipients", "250 OK"]})) as server:
        site = await open_site(server)
        ids = await site.accept_one("u0@b.test", "u1@b.test")
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert [message.recipients for message in server.messages] == [["u0@b.test"], ["u1@b.test"]]
        assert len(server.sessions) == 1
        assert [await site.events(i) for i in ids] == [["delivered"]] * 2
        assert {await _attempts(site, i) for i in ids} == {1}


async def test_each_recipient_of_a_transaction_has_the_reply_it_got(open_site: OpenSite) -> None:
    script = Script(rcpt={"u1@b.test": "550 5.1.1 no such user", "u2@b.test": "451 4.7.1 later"})
    async with ScriptedSmtpServer(script) as server:
        site = await open_site(server)
        ids = await site.accept_one("u0@b.test", "u1@b.test", "u2@b.test")
        async with in_order(await site.start()):
            await eventually(lambda: _told(site, ids))
        assert [await site.events(i) for i in ids] == [["delivered"], ["failed"], ["delayed"]]
        assert [message.recipients for message in server.messages] == [["u0@b.test"]]


async def test_where_all_are_refused_each_has_its_own_code(open_site: OpenSite) -> None:
    script = Script(rcpt={"u0@b.test": "550 5.1.1 no such user", "u1@b.test": "553 5.1.3 no such form"})
    async with ScriptedSmtpServer(script) as server:
        site = await open_site(server)
        ids = await site.accept_one("u0@b.test", "u1@b.test")
        async with in_order(await site.start()):
            await eventually(site.settled)
        rows = await site.pool.fetch("SELECT state, code, enhanced FROM delivery WHERE id = ANY ($1) ORDER BY id", ids)
        assert [tuple(row) for row in rows] == [("failed", 550, "5.1.1"), ("failed", 553, "5.1.3")]


async def test_who_may_not_be_sent_to_is_left_out_and_the_others_go(open_site: OpenSite) -> None:
    """All is decided while the session stands already: only the start gate can tell."""
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        (first,) = await site.accept_one("first@b.test")
        names = ("suppressed", "held", "canceled", "expired", "fine", "good")
        ids = await site.accept_one(*(f"{name}@b.test" for name in names))
        await _when_started(
            site.pool,
            first,
            f"""
            INSERT INTO suppression (account_id, key, mox_key, address, manual, reason)
                VALUES ({site.room.account_id}, 'suppressed@b.test', 'suppressed@b.test', 'suppressed@b.test', true, 'manual');
            INSERT INTO hold_rule (recipient_address) VALUES ('held@b.test');
            UPDATE delivery_queue SET cancel_at = now() WHERE delivery_id = {ids[2]};
            UPDATE delivery_queue SET expires_at = now() WHERE delivery_id = {ids[3]};
            """,
        )
        async with in_order(await site.start(sessions=1)):
            await server.wait_for(2)
            await eventually(lambda: _nothing_waits(site))
        assert [message.recipients for message in server.messages] == [
            ["first@b.test"],
            ["fine@b.test", "good@b.test"],
        ]
        states = [await site.state(i) for i in ids]
        assert states == ["suppressed", "queued", "canceled", "failed", "delivered", "delivered"]
        assert [await _attempts(site, i) for i in ids] == [0, 0, 0, 0, 1, 1]
        assert await site.pool.fetchval("SELECT hold FROM delivery_queue WHERE delivery_id = $1", ids[1])


async def test_whom_a_session_had_no_more_room_for_goes_over_the_next_in_the_same_attempt(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(extensions=["LIMITS MAILMAX=1 RCPTMAX=2"])) as server:
        site = await open_site(server)
        ids = await site.accept_one(*GROUP)
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert [(message.session, message.recipients) for message in server.messages] == [
            (1, GROUP[:2]),
            (2, GROUP[2:4]),
            (3, GROUP[4:]),
        ]
        assert {await _attempts(site, i) for i in ids} == {1}


async def test_an_answer_that_was_lost_delays_all_and_nobody_is_sent_to_again_at_once(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(drop="message")) as server:
        site = await open_site(server)
        ids = await site.accept_one(*GROUP)
        async with in_order(await site.start()):
            await eventually(lambda: _told(site, ids))
        assert [await site.events(i) for i in ids] == [["delayed"]] * 5
        assert sum(command.startswith("MAIL") for session in server.sessions for command in session.commands) == 1
        assert {row["code"] for row in await site.pool.fetch("SELECT code FROM event")} == {0}


async def test_a_session_does_not_run_ahead_of_what_is_written(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        for _ in range(3):
            await site.accept_one("u0@b.test", "u1@b.test", "u2@b.test")
        locking = await asyncpg.connect(site.url)
        transaction = locking.transaction()
        await transaction.start()
        await locking.execute("LOCK TABLE event IN EXCLUSIVE MODE")
        async with in_order(await site.start(sessions=1)):
            await eventually(
                lambda: site.pool.fetchval(
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'RowExclusiveLock'"
                )
            )
            for _ in range(50):  # turns for whoever would go on
                assert await site.pool.fetchval("SELECT count(*) FROM attempt") == 3
            await transaction.rollback()
            await locking.close()
            await eventually(site.settled)
        assert [len(message.recipients) for message in server.messages] == [3, 3, 3]


async def _when_started(pool: "asyncpg.Pool[asyncpg.Record]", delivery_id: int, statements: str) -> None:
    """Have statements run in the transaction that starts a delivery."""
    await pool.execute(
        f"""CREATE FUNCTION meanwhile() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF NEW.delivery_id = {delivery_id} THEN {statements} END IF; RETURN NEW; END $$"""
    )
    await pool.execute("CREATE TRIGGER meanwhile AFTER INSERT ON attempt FOR EACH ROW EXECUTE FUNCTION meanwhile()")


async def _attempts(site: Site, delivery_id: int) -> int:
    count: int = await site.pool.fetchval("SELECT count(*) FROM attempt WHERE delivery_id = $1", delivery_id)
    return count


async def _told(site: Site, ids: list[int]) -> bool:
    return all([await site.events(i) for i in ids])


async def _nothing_waits(site: Site) -> bool:
    return await site.pool.fetchval("SELECT count(*) FROM delivery_queue WHERE NOT hold") == 0
