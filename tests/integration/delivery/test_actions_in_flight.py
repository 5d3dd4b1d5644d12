"""A hold or a cancel that comes while a mail is being sent: the event says what really happened."""

import asyncio
import threading
from collections.abc import Callable

import asyncpg
import pytest

from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, in_order
from shared.db import holds
from shared.db.holds import Action, Applied, Kind
from shared.db.selections import Selection

REPLIES = {"delivered": "250 2.0.0 ok", "canceled": "451 4.3.0 not now", "failed": "550 5.7.1 no"}


async def apply(url: str, kind: Kind, delivery: int) -> Applied:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            wanted = Selection(ids=(delivery,))
            return await holds.apply(connection, Action(kind, by_operator=False), wanted, [delivery], limit=1)
    finally:
        await connection.close()


def meanwhile(act: Callable[[], Applied], seen: list[Applied], reply: str) -> Callable[[str], str]:
    """Return an answer to the end of the content before which something else happens, in its own thread and to its end."""

    def answer(_recipient: str) -> str:
        thread = threading.Thread(target=lambda: seen.append(act()))
        thread.start()
        thread.join(30)
        return reply

    return answer


@pytest.mark.parametrize("outcome", REPLIES)
async def test_a_cancel_in_flight_becomes_what_the_reply_makes_of_it(open_site: OpenSite, outcome: str) -> None:
    seen: list[Applied] = []
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        (delivery,) = await site.accept("a@b.test")
        server.script.message = meanwhile(
            lambda: asyncio.run(apply(site.url, Kind.CANCEL, delivery)), seen, REPLIES[outcome]
        )
        async with in_order(await site.start()):
            await eventually(site.settled)
    [applied] = seen
    assert (applied.changed, applied.in_flight) == (frozenset(), {delivery})
    assert await site.state(delivery) == outcome
    assert await site.events(delivery) == [outcome]


async def test_a_hold_in_flight_holds_after_a_temporary_failure(open_site: OpenSite) -> None:
    seen: list[Applied] = []
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        (delivery,) = await site.accept("a@b.test")
        server.script.message = meanwhile(
            lambda: asyncio.run(apply(site.url, Kind.HOLD, delivery)), seen, "451 4.3.0 not now"
        )

        async def delayed() -> bool:
            return await site.events(delivery) == ["delayed"]

        async with in_order(await site.start()):
            await eventually(delayed)
            # Due again at once, and the next mail goes out before it.
            await site.pool.execute("UPDATE delivery_queue SET due_at = now() - interval '1 hour'")
            await site.pool.execute("INSERT INTO delivery_wake SELECT lane_id FROM delivery_queue")
            server.script.message = None
            await site.accept("next@b.test")
            await server.wait_for(1)
    assert seen[0].in_flight == {delivery}
    assert [message.recipients for message in server.messages] == [["next@b.test"]]
    assert await site.pool.fetchval("SELECT hold FROM delivery_queue WHERE delivery_id = $1", delivery) is True


@pytest.mark.parametrize("kind", [Kind.HOLD, Kind.CANCEL])
async def test_what_is_asked_of_a_claimed_row_stops_it_at_the_gate(open_site: OpenSite, kind: Kind) -> None:
    seen: list[Applied] = []
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        first, second = await site.accept("a@b.test", "b@b.test")
        # The only session is busy with the first, so the second sits claimed.
        server.script.message = meanwhile(lambda: asyncio.run(apply(site.url, kind, second)), seen, "250 ok")
        async with in_order(await site.start(sessions=1)):
            await server.wait_for(1)

            async def stopped() -> bool:
                return not await site.pool.fetchval("SELECT count(*) FROM delivery_queue WHERE worker_id IS NOT NULL")

            await eventually(stopped)
    assert (seen[0].changed, seen[0].in_flight) == ({second}, frozenset())
    assert [message.recipients for message in server.messages] == [["a@b.test"]]
    assert await site.state(first) == "delivered"
    assert await site.events(second) == ([] if kind is Kind.HOLD else ["canceled"])


async def test_the_gate_notes_which_rule_holds(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script()) as server:
        site = await open_site(server)
        (delivery,) = await site.accept("a@b.test")
        rule = await site.pool.fetchval(
            "INSERT INTO hold_rule (recipient_domain, made_by_operator, account_id) VALUES ('b.test', false, $1) RETURNING id",
            site.room.account_id,
        )
        async with in_order(await site.start()):

            async def held() -> bool:
                return await site.pool.fetchval("SELECT hold AND worker_id IS NULL FROM delivery_queue") is True

            await eventually(held)
    row = await site.pool.fetchrow(
        "SELECT delivery_id, hold_rule_id, hold_by_account, hold_by_operator FROM delivery_queue"
    )
    assert row is not None
    assert tuple(row) == (delivery, rule, True, False)
    assert server.sessions == []
