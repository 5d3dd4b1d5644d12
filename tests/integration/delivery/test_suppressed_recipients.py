"""Nobody is written to who is on the suppression list, also among several recipients of one message at one place (cases 89 to 91)."""

from fakes.smtp_server import ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order
from integration.delivery.test_expiry import hand_in, moment

GONE = "gone@b.test"


async def suppress(site: Site, address: str = GONE) -> None:
    await site.pool.execute(
        "INSERT INTO suppression (account_id, key, mox_key, address, manual, reason) VALUES ($1, $2, $2, $2, true, 'manual')",
        site.room.account_id,
        address,
    )


def named(server: ScriptedSmtpServer) -> list[str]:
    """Return everyone that any RCPT named."""
    commands = [command for session in server.sessions for command in session.commands]
    return sorted(c.split("<")[1].split(">")[0] for c in commands if c.upper().startswith("RCPT"))


async def test_89_a_suppressed_recipient_is_settled_at_acceptance_and_never_connected_to(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await suppress(site)
        (delivery,) = await hand_in(site, GONE)
        assert (await site.state(delivery), await site.events(delivery)) == ("suppressed", ["suppressed"])
        row = await site.pool.fetchrow("SELECT code, suppressing, category FROM event")
        assert row is not None
        assert tuple(row) == (0, False, None)
        async with in_order(await site.start()):
            (other,) = await hand_in(site, "other@b.test")
            await eventually(site.settled)
        assert await site.state(other) == "delivered"
        assert named(server) == ["other@b.test"]
        assert await site.events(delivery) == ["suppressed"]


async def test_90_one_for_later_is_settled_when_it_is_due(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await suppress(site)
        due_at = await moment(site, seconds=0.5)
        (delivery,) = await hand_in(site, GONE, due_at=due_at)
        assert (await site.state(delivery), await site.events(delivery)) == ("queued", [])
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert (await site.state(delivery), await site.events(delivery)) == ("suppressed", ["suppressed"])
        assert await site.pool.fetchval("SELECT created_at FROM event") >= due_at
        assert server.sessions == []


async def test_90_one_that_was_taken_off_the_list_meanwhile_is_sent(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await suppress(site)
        (delivery,) = await hand_in(site, GONE, due_at=await moment(site, seconds=0.2))
        await site.pool.execute("DELETE FROM suppression")
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert await site.state(delivery) == "delivered"


async def test_91_of_a_group_only_the_others_are_written_to(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await suppress(site, "b@b.test")
        ids = await hand_in(site, "a@b.test", "b@b.test", "c@b.test")
        await suppress(site, "c@b.test")
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert [await site.state(i) for i in ids] == ["delivered", "suppressed", "suppressed"]
        assert [await site.events(i) for i in ids] == [["delivered"], ["suppressed"], ["suppressed"]]
        assert named(server) == ["a@b.test"]


async def test_91_whoever_is_first_in_the_group(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        due_at = await moment(site, seconds=0.3)
        ids = await hand_in(site, "b@b.test", "a@b.test", "c@b.test", due_at=due_at)
        await suppress(site, "b@b.test")
        async with in_order(await site.start(sessions=1)):
            await eventually(site.settled)
        assert [await site.state(i) for i in ids] == ["suppressed", "delivered", "delivered"]
        assert named(server) == ["a@b.test", "c@b.test"]
