"""Whatever a server answers at whatever stage: one result for each recipient, and never a wrong "accepted"."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.smtp import Mail, Sent, SmtpError, Target, Timeouts, connect
from fakes.smtp_server import Script, ScriptedSmtpServer

RECIPIENTS = ("one@b.test", "two@b.test", "three@b.test")
REPLIES = st.sampled_from(
    [
        "250 2.0.0 OK",
        "250-2.0.0 more\r\n250 2.0.0 OK",
        "251 2.1.5 Will forward",
        "354 Go",
        "421 4.3.2 Closing",
        "450 4.2.1 Busy",
        "452 4.5.3 Too many",
        "550 5.1.1 Unknown",
        "552 5.2.2 Full",
        "600 Odd",
        "2200 Odder",
        "250-a\r\n550 b",
        "junk",
        "550 5.1.1 Unknown\r\n250 2.0.0 one too many",
    ]
)
STAGES = st.sampled_from(["mail", "rcpt", "data", "message", "content"])
SCRIPTS = st.builds(
    Script,
    pipelining=st.booleans(),
    mail=st.none() | REPLIES,
    rcpt=st.none() | st.fixed_dictionaries({}, optional=dict.fromkeys(RECIPIENTS, REPLIES)),
    data=st.none() | REPLIES,
    message=st.none() | REPLIES,
    drop=st.none() | STAGES,
    drop_after=st.none() | STAGES,
)


@settings(deadline=None, max_examples=200)
@given(SCRIPTS, st.booleans())
def test_exactly_one_result_for_each_recipient(script: Script, big: bool) -> None:
    content = b"line\r\n" * (100_000 if big else 1)

    async def run() -> tuple[list[Sent], ScriptedSmtpServer]:
        async with ScriptedSmtpServer(script) as server:
            session = await connect(
                Target("localhost", "127.0.0.1", server.port), ehlo_name="c", timeouts=Timeouts.all(2)
            )
            sent = [await session.send(Mail.of("a@a.test", RECIPIENTS, content))]
            if session.usable:
                try:
                    sent.append(await session.send(Mail.of("a@a.test", RECIPIENTS, content)))
                except SmtpError:
                    assert not session.usable
            await session.quit()
            return sent, server

    sent, server = asyncio.run(run())
    for one in sent:
        assert [result.recipient for result in one.results] == list(RECIPIENTS)
        assert all(not result.accepted or 200 <= result.code < 300 for result in one.results)
        assert all(result.code or result.text for result in one.results)
    claimed = [result.recipient for one in sent for result in one.results if result.accepted]
    taken = [recipient for message in server.messages for recipient in message.recipients]
    assert set(claimed) <= set(taken)
