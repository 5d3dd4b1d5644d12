"""AUTH: its frame, whatever the mechanism."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import pytest

from fakes.certificates import server_context, trusting_context
from shared.smtpd import Exchange, Reply, Session

Stand = Any


class Echo:
    """Asks three times, and lets in who answers with three words that are not empty."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.words: list[bytes] = []

    async def step(self, response: bytes | None) -> bytes | Reply:
        if response is not None:
            self.words.append(response)
        if len(self.words) < 3:
            return b"word %d" % len(self.words)
        if not all(self.words):
            return Reply(535, "5.7.8", "No")
        if b"crash" in self.words:
            raise RuntimeError("a bug")
        self.session.login = self.words
        return Reply(235, "2.7.0", "Yes")


class Endless:
    async def step(self, response: bytes | None) -> bytes | Reply:
        return b"more"


class Mechanisms:
    def __init__(self, *, needs_tls: bool = False) -> None:
        self.needs_tls = needs_tls

    def offered(self, session: Session) -> Sequence[str]:
        return () if self.needs_tls and session.tls is None else ("ECHO", "ENDLESS")

    def begin(self, session: Session, mechanism: str) -> Exchange:
        return Echo(session) if mechanism == "ECHO" else Endless()


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


async def test_an_exchange_word_by_word(stand: Stand) -> None:
    await stand.start(auth=Mechanisms())
    client = await stand.client()
    assert b"AUTH ECHO ENDLESS" in await client.say("EHLO c.test")
    assert await client.say("AUTH echo") == b"334 " + b64encode(b"word 0")
    assert await client.say(b64("one")) == b"334 " + b64encode(b"word 1")
    assert (await client.say(b64("two"))).startswith(b"334 ")
    assert (await client.say(b64("three"))) == b"235 2.7.0 Yes"
    assert stand.handler.sessions[0].login == [b"one", b"two", b"three"]
    assert (await client.say("AUTH ECHO")).startswith(b"503 5.5.1")
    assert b"AUTH" not in await client.say("EHLO c.test")


async def test_an_initial_response_saves_a_step(stand: Stand) -> None:
    await stand.start(auth=Mechanisms())
    client = await stand.client()
    await client.say("EHLO c.test")
    assert await client.say(f"AUTH ECHO {b64('one')}") == b"334 " + b64encode(b"word 1")
    client.write(f"{b64('two')}\r\n{b64('three')}\r\n".encode())
    assert await client.codes(2) == [334, 235]


async def test_an_initial_response_may_be_empty(stand: Stand) -> None:
    await stand.start(auth=Mechanisms())
    client = await stand.client()
    await client.say("EHLO c.test")
    assert await client.say("AUTH ECHO =") == b"334 " + b64encode(b"word 1")
    client.write(f"{b64('two')}\r\n{b64('three')}\r\n".encode())
    assert await client.codes(2) == [334, 535]


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        (["AUTH"], b"501 5.5.4"),
        (["AUTH ECHO a b"], b"501 5.5.4"),
        (["AUTH OTHER"], b"504 5.5.4"),
        (["AUTH ECHO %%%"], b"501 5.5.2"),
        (["AUTH ECHO", "not base64!"], b"501 5.5.2"),
        (["AUTH ECHO", "*"], b"501 5.7.0"),
        (["AUTH ECHO", b64("crash"), b64("x"), b64("x")], b"454 4.7.0"),
        (["AUTH ENDLESS", *([""] * 6)], b"535 5.7.8"),
        (["MAIL FROM:<>", "AUTH ECHO"], b"503 5.5.1"),
    ],
)
async def test_what_is_refused_leaves_the_session_going(stand: Stand, lines: list[str], reply: bytes) -> None:
    await stand.start(auth=Mechanisms())
    client = await stand.client()
    await client.say("EHLO c.test")
    for line in lines[:-1]:
        assert (await client.say(line))[:3] in {b"334", b"250"}
    assert (await client.say(lines[-1])).startswith(reply)
    assert (await client.say("NOOP")).startswith(b"250")
    assert stand.handler.sessions[0].login is None


async def test_before_ehlo_and_after_helo_there_is_no_auth(stand: Stand) -> None:
    await stand.start(auth=Mechanisms())
    client = await stand.client()
    assert (await client.say("AUTH ECHO")).startswith(b"503")
    await client.say("HELO c.test")
    assert (await client.say("AUTH ECHO")).startswith(b"503")


async def test_without_mechanisms_there_is_no_such_command(stand: Stand) -> None:
    client = await stand.client()
    assert b"AUTH" not in await client.say("EHLO c.test")
    assert (await client.say("AUTH PLAIN")).startswith(b"500")


async def test_lines_of_an_exchange_are_bounded_and_whole(stand: Stand) -> None:
    await stand.start(auth=Mechanisms(), max_line=1000)
    for line, reply in ((b"A" * 2000, b"500 5.5.2"), (b"QUJD\nQUJD", b"500 5.5.2")):
        client = await stand.client()
        await client.say("EHLO c.test")
        await client.say("AUTH ECHO")
        assert (await client.say(line)).startswith(reply)
        assert await client.rest() == b""


async def test_guessing_ends_the_connection(stand: Stand) -> None:
    await stand.start(auth=Mechanisms(), max_errors=3)
    client = await stand.client()
    await client.say("EHLO c.test")
    for _ in range(3):
        assert (await client.say("AUTH ECHO %%%")).startswith(b"501")
    assert (await client.say("AUTH ECHO %%%")).startswith(b"501")
    assert await client.rest() == b"421 4.7.0 Too many errors, closing the connection\r\n"


async def test_tls_first_where_the_mechanisms_ask_for_it_and_what_was_said_before_is_forgotten(stand: Stand) -> None:
    await stand.start(auth=Mechanisms(needs_tls=True), tls=server_context())
    client = await stand.client()
    assert b"AUTH" not in await client.say("EHLO c.test")
    assert (await client.say("AUTH ECHO")).startswith(b"538 5.7.11")
    stand.handler.sessions[0].login = "somebody"
    await client.say("STARTTLS")
    await client.writer.start_tls(trusting_context(), server_hostname="localhost")
    assert b"AUTH ECHO ENDLESS" in await client.say("EHLO c.test")
    assert stand.handler.sessions[0].login is None
