"""Whatever a server answers at whatever stage: one result for each recipient, and never a wrong "accepted"."""

import asyncio
import re
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.smtp import Mail, Sent, SmtpError, Stage, Target, Timeouts, connect
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
EXTENSIONS = st.lists(
    st.sampled_from(["CHUNKING", "LIMITS RCPTMAX=2", "LIMITS MAILMAX=1", "LIMITS RCPTMAX=1 MAILMAX=2", "8BITMIME"]),
    unique=True,
)
SCRIPTS = st.builds(
    Script,
    pipelining=st.booleans(),
    extensions=EXTENSIONS,
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


# One stage of the first transaction answers otherwise, everything else as usual: then all that follows is known.

CODE = re.compile(r"([2-9][0-9]{2}) [^\r\n]*|250-2.0.0 more\r\n250 2.0.0 OK")
PARTS = {"mail": Stage.MAIL, "rcpt": Stage.RCPT, "data": Stage.DATA, "message": Stage.MESSAGE}
Outcome = tuple[bool, Stage, int]
TAKEN: Outcome = (True, Stage.MESSAGE, 250)


@dataclass(frozen=True)
class Odd:
    """The stage that answers otherwise, to the second recipient where it is RCPT, and what it answers."""

    stage: str
    reply: str
    pipelining: bool
    chunking: bool

    def script(self) -> Script:
        key = {"mail": "a@a.test", "rcpt": RECIPIENTS[1]}.get(self.stage, RECIPIENTS[0])
        extensions = ["CHUNKING"] if self.chunking else []
        return Script(pipelining=self.pipelining, extensions=extensions, **{self.stage: {key: self.reply}})

    @property
    def code(self) -> int:
        """0 where the reply is none, or none that may stand here."""
        match = CODE.fullmatch(self.reply)
        code = int(match[1] or 250) if match else 0
        if self.stage == "data":
            return 0 if 200 <= code < 300 else code
        return 0 if 300 <= code < 400 else code

    def outcomes(self) -> list[Outcome]:
        stage, code = PARTS[self.stage], self.code
        if 200 <= code < 300 or (self.stage == "data" and code == 354):
            return [(True, Stage.MESSAGE, code if self.stage == "message" else 250)] * 3
        if self.stage != "rcpt" or not code:
            return [(False, stage, code)] * 3
        return [TAKEN, (False, stage, code), TAKEN]

    def usable(self) -> bool:
        return self.code not in {0, 421}


ODDS = st.builds(Odd, st.sampled_from(sorted(PARTS)), REPLIES, st.booleans(), st.booleans()).filter(
    lambda odd: not (odd.chunking and odd.stage == "data") and "one too many" not in odd.reply
)


@settings(deadline=None, max_examples=300)
@given(ODDS)
def test_stage_and_reply_say_what_becomes_of_everybody_and_of_the_session(odd: Odd) -> None:
    async def run() -> tuple[Sent, bool, bool]:
        async with ScriptedSmtpServer(odd.script()) as server:
            session = await connect(
                Target("localhost", "127.0.0.1", server.port), ehlo_name="c", timeouts=Timeouts.all(5)
            )
            sent = await session.send(Mail.of("a@a.test", RECIPIENTS, b"line\r\n"))
            usable = session.usable
            again = usable and (await session.send(Mail.of("", ["four@b.test"], b"x\r\n"))).results[0].accepted
            await session.quit()
            return sent, usable, again

    sent, usable, again = asyncio.run(run())
    assert [result.recipient for result in sent.results] == list(RECIPIENTS)
    assert [(result.accepted, result.stage, result.code) for result in sent.results] == odd.outcomes()
    assert usable == odd.usable()
    assert again == usable
