"""What the core counts, and what it tells the listener's owner."""

import asyncio
import contextlib

from fakes.waiting import eventually
from integration.shared.smtpd.conftest import RawClient, Stand
from shared.metrics import Metrics
from shared.smtpd import Reply, SmtpdMetrics


class Counted:
    """The metrics of a listener, by name and label values."""

    def __init__(self) -> None:
        self.metrics = Metrics("dsn-ingest")
        self.given = SmtpdMetrics(self.metrics)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"posthouse_dsn_ingest_smtp_{name}", labels) or 0


async def test_connections_by_what_becomes_of_them(stand: Stand) -> None:
    counted = Counted()
    await stand.start(session_limit=1, metrics=counted.given)
    client = await stand.client()
    turned_away = [await stand.client(greeted=False) for _ in range(100)]
    assert {(await one.reply())[:3] for one in turned_away} == {b"421"}
    # They are still there: whoever comes now gets no word at all.
    dropped = RawClient(*await asyncio.open_connection("127.0.0.1", stand.listener.port))
    stand.clients.append(dropped)
    with contextlib.suppress(ConnectionResetError):  # the same, said by TCP
        assert await dropped.rest() == b""
    by_result = [counted.value("connections_total", result=one) for one in ("served", "turned_away", "dropped")]
    assert by_result == [1, 100, 1]
    assert counted.value("replies_total", command="connect", code="421") == 100
    assert counted.value("sessions") == 1
    assert (await client.say("QUIT")).startswith(b"221")
    await eventually(lambda: counted.value("sessions") == 0)


async def test_one_reply_ends_a_command(stand: Stand) -> None:
    counted = Counted()
    await stand.start(metrics=counted.given, max_errors=1)
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    assert (await client.say("Subject: x\r\n\r\nx\r\n.")).startswith(b"250")
    assert counted.value("replies_total", command="DATA", code="250") == 1
    assert counted.value("replies_total", command="DATA", code="354") == 0
    await client.say("nonsense")
    await client.say("MORE nonsense")
    assert b"421" in await client.rest()
    assert counted.value("replies_total", command="other", code="500") == 2
    assert counted.value("replies_total", command="other", code="421") == 1
    verbs = {labels["command"] for labels in _labels(counted)}
    assert verbs == {"connect", "EHLO", "MAIL", "RCPT", "DATA", "other"}


def _labels(counted: Counted) -> list[dict[str, str]]:
    return [
        sample.labels
        for family in counted.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "posthouse_dsn_ingest_smtp_replies_total"
    ]


async def test_a_message_that_the_core_refuses_is_told_once(stand: Stand) -> None:
    told: list[Reply] = []
    await stand.start(on_refusal=told.append, max_size=1_000)
    client = await stand.client()
    await client.say("EHLO c.test")
    await client.say("MAIL FROM:<a@a.test> SIZE=2000")
    assert [reply.code for reply in told] == [552]
    await client.envelope()
    for _ in range(2):
        client.write(b"BDAT 1001\r\n" + b"x" * 1001)
        await client.reply()
    assert [reply.code for reply in told] == [552, 552]
    # Out of sequence, or not even an argument: that is no message yet.
    await client.say("RSET")
    for line in ("BDAT 1\r\nx", "MAIL FROM:nobody", "DATA", "RCPT TO:<b@b.test>"):
        await client.say(line)
    assert len(told) == 2
