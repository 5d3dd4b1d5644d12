"""from_ids by SMTP: made here, or chosen by the client (mox-behaviour 2.6 and cases 107 to 109)."""

import pytest

from integration.api.conftest import SECRET
from integration.api.submission_client import MAIL, TO, Lines
from integration.api.submission_door import door, lines, only, sender, stored, tls_files
from shared.db.demo import Demo
from shared.db.engine import Pool
from shared.mail.from_id import FromIds
from shared.security.keys import KeyRing

__all__ = ["door", "lines", "sender", "tls_files"]

FROM_IDS = FromIds([key.key[:16] for key in KeyRing([SECRET]).reading("from_id")])


def mail(local: str, domain: str = "posthouse.test") -> str:
    return f"MAIL FROM:<{local}@{domain}>"


async def sent(sender: Lines, pool: Pool, line: str, content: str = MAIL) -> tuple[str, str | None]:
    """Send a mail that is accepted; return its return path and from_id."""
    reply = await sender.send(content, mail=line)
    assert reply.startswith("250"), reply
    (delivery,) = (await stored(pool))[-1]["deliveries"]
    return delivery["mail_from"], delivery["from_id"]


async def test_107_a_from_id_of_the_clients_own(sender: Lines, pool: Pool) -> None:
    assert await sent(sender, pool, mail("demo+unique")) == ("demo+unique@posthouse.test", "unique")
    assert (await sender.send(mail=mail("demo+unique"))).startswith("554 5.1.7")
    assert (await sender.send(mail=mail("DEMO+Unique"))).startswith("554 5.1.7")
    assert (await sender.send(mail=mail("demo+other"), to=[TO, TO])).startswith("554 5.5.3")
    assert len(await stored(pool)) == 1
    # What was refused for its recipients has not used the from_id up; case and further separators are the client's.
    assert await sent(sender, pool, mail("Demo+Other+2")) == ("Demo+Other+2@posthouse.test", "Other+2")


async def test_108_from_ids(sender: Lines, pool: Pool) -> None:
    assert (await sender.send(to=[TO, "ada@example.org"])).startswith("250")
    deliveries = (await only(pool))["deliveries"]
    assert [d["recipient"] for d in deliveries] == [TO, "ada@example.org"]
    for delivery in deliveries:
        assert FROM_IDS.read(delivery["from_id"]) == delivery["id"]
        assert delivery["mail_from"] == f"demo+{delivery['from_id']}@posthouse.test"


async def test_109_a_from_id_is_free_again_once_its_delivery_is_kept_no_longer(sender: Lines, pool: Pool) -> None:
    await sent(sender, pool, mail("demo+unique"))
    await pool.execute("DELETE FROM delivery_queue")
    await pool.execute(
        "UPDATE delivery SET state = 'delivered', settled_at = now(), keep_until = now() + interval '3 days'"
    )
    assert (await sender.send(mail=mail("demo+unique"))).startswith("554 5.1.7")
    await pool.execute("UPDATE delivery SET keep_until = now()")
    await sent(sender, pool, mail("demo+unique"))
    await pool.execute("DELETE FROM delivery_queue")
    await pool.execute("DELETE FROM delivery")
    await sent(sender, pool, mail("demo+unique"))


async def test_an_empty_suffix_asks_for_no_from_id(sender: Lines, pool: Pool) -> None:
    assert await sent(sender, pool, mail("demo+")) == ("demo+@posthouse.test", None)


async def test_the_null_return_path_gets_no_from_id(sender: Lines, pool: Pool) -> None:
    assert await sent(sender, pool, "MAIL FROM:<>") == ("", None)


@pytest.mark.parametrize("local", ['"demo+a b"', "demo+ü", '"demo+.x"'])
async def test_a_from_id_that_would_not_come_back_as_it_went_is_refused(sender: Lines, pool: Pool, local: str) -> None:
    assert (await sender.send(mail=f"{mail(local)} SMTPUTF8")).startswith("554 5.1.7")
    assert await stored(pool) == []


async def test_a_return_path_has_at_most_64_octets_before_the_at(sender: Lines, pool: Pool) -> None:
    longest = "x" * (64 - len("demo+"))
    assert (await sender.say(mail(f"demo+{longest}x"))).startswith("501 5.1.7")
    assert await sent(sender, pool, mail(f"demo+{longest}")) == (f"demo+{longest}@posthouse.test", longest)


async def test_a_from_id_that_was_made_here_cannot_be_chosen(sender: Lines, pool: Pool) -> None:
    _, made = await sent(sender, pool, mail("demo"))
    assert (await sender.send(mail=mail(f"demo+{made}"))).startswith("554 5.1.7")
    assert (await sender.send(mail=mail(f"demo+{str(made).upper()}"))).startswith("554 5.1.7")


async def test_the_separator_is_that_of_the_domain_in_from(lines: Lines, demo: Demo, pool: Pool) -> None:
    await lines.login(demo.account_key.split("_")[1], demo.account_key)
    await pool.execute("UPDATE domain SET catchall_separators = '{--,+}'")
    path, made = await sent(lines, pool, mail("demo+unique"))
    assert path == f"demo+unique--{made}@posthouse.test"
    assert await sent(lines, pool, mail("demo--unique")) == ("demo--unique@posthouse.test", "unique")


async def test_a_domain_without_separators_gets_ours(lines: Lines, demo: Demo, pool: Pool) -> None:
    await lines.login(demo.account_key.split("_")[1], demo.account_key)
    await pool.execute("UPDATE domain SET catchall_separators = '{}'")
    path, made = await sent(lines, pool, mail("demo"))
    assert path == f"demo+{made}@posthouse.test"
    assert await sent(lines, pool, mail("demo+unique")) == ("demo+unique@posthouse.test", "unique")


async def test_at_a_bounce_domain_the_address_is_ours_whoever_chose_the_from_id(sender: Lines, pool: Pool) -> None:
    await pool.execute("UPDATE domain SET bounce_domain = 'bounces.posthouse.test'")
    path, made = await sent(sender, pool, mail("demo"))
    assert path == f"b+{made}@bounces.posthouse.test"
    path, chosen = await sent(sender, pool, mail("demo+unique"))
    assert chosen == "unique"
    token = path.removeprefix("b+").removesuffix("@bounces.posthouse.test")
    assert FROM_IDS.read(token) == (await stored(pool))[-1]["deliveries"][0]["id"]
    assert await sent(sender, pool, mail("demo+")) == ("demo+@posthouse.test", None)
    assert (await sender.send(mail=mail("demo+unique"))).startswith("554 5.1.7")


async def test_a_sender_too_long_for_a_from_id_is_told_so(lines: Lines, demo: Demo, pool: Pool) -> None:
    await lines.login(demo.account_key.split("_")[1], demo.account_key)
    local = "x" * 38
    assert (await lines.send(mail=mail(local))).startswith("554 5.1.7")
    await pool.execute("UPDATE domain SET bounce_domain = 'bounces.posthouse.test'")
    path, _ = await sent(lines, pool, mail(local))
    assert path.endswith("@bounces.posthouse.test")


async def test_a_credential_without_from_ids_sends_from_what_it_says(lines: Lines, demo: Demo, pool: Pool) -> None:
    await pool.execute("UPDATE credential SET uses_from_ids = false")
    await lines.login(demo.login, demo.password)
    assert await sent(lines, pool, mail("demo+unique")) == ("demo+unique@posthouse.test", None)
    assert await sent(lines, pool, mail("demo+unique")) == ("demo+unique@posthouse.test", None)
