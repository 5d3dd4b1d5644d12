"""Clients of the SMTP door: the standard library's, in a thread, and one of plain lines."""

import asyncio
import base64
import hashlib
import hmac
import smtplib
from collections.abc import Callable, Iterable
from typing import TypeVar

from fakes.certificates import trusting_context

T = TypeVar("T")

MAIL = "From: Demo <demo@posthouse.test>\r\nTo: grace@example.org\r\nSubject: Hello\r\n\r\nHello, Grace.\r\n"
FROM = "demo@posthouse.test"
TO = "grace@example.org"


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


async def with_smtplib(address: str, work: Callable[[smtplib.SMTP], T], *, implicit: bool = False) -> T:
    """Connect, by implicit TLS or STARTTLS, and work in a thread."""

    def run() -> T:
        if implicit:
            with smtplib.SMTP_SSL("localhost", port_of(address), timeout=30, context=trusting_context()) as client:
                return work(client)
        with smtplib.SMTP("localhost", port_of(address), timeout=30) as client:
            client.starttls(context=trusting_context())
            return work(client)

    return await asyncio.to_thread(run)


def plain(user: str, password: str) -> str:
    """Return the AUTH command of RFC 4616."""
    return "AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode()


def scram_final(password: str, bare: str, server_first: str) -> tuple[str, str]:
    """Return client-final-message and the server's proof, as RFC 5802 3 has a client compute them."""
    nonce, salt, count = (part[2:] for part in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(count))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    message = f"{bare},{server_first},c=biws,r={nonce}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
    return f"c=biws,r={nonce},p={base64.b64encode(proof).decode()}", "v=" + base64.b64encode(expected).decode()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def challenge(reply: str) -> str:
    assert reply.startswith("334 ")
    return base64.b64decode(reply[4:]).decode()


class Lines:
    """A script: commands out, replies in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, address: str, *, implicit: bool = True) -> "Lines":
        """Connect and read the greeting."""
        tls = {"ssl": trusting_context(), "server_hostname": "localhost"} if implicit else {}
        lines = cls(*await asyncio.open_connection("127.0.0.1", port_of(address), **tls))
        assert (await lines.reply()).startswith("220 ")
        return lines

    async def reply(self) -> str:
        """Return one reply, all lines of it."""
        found: list[str] = []
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), 30)).decode()
            found.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return "\n".join(found)

    async def say(self, text: str) -> str:
        """Send a line, return the reply."""
        self.writer.write(text.encode() + b"\r\n")
        return await self.reply()

    async def login(self, user: str, password: str) -> None:
        """Introduce and authenticate."""
        assert (await self.say("EHLO client.test")).startswith("250")
        assert (await self.say(plain(user, password))).startswith("235 2.7.0")

    async def envelope(self, mail: str = f"MAIL FROM:<{FROM}>", to: Iterable[str] = (TO,)) -> str:
        """Go as far as 354, or to the first refusal, and return that reply."""
        commands = [mail, *(f"RCPT TO:<{recipient}>" for recipient in to), "DATA"]
        reply = ""
        for command in commands:
            reply = await self.say(command)
            if reply[0] not in "23":
                break
        return reply

    async def send(self, content: str = MAIL, mail: str = f"MAIL FROM:<{FROM}>", to: Iterable[str] = (TO,)) -> str:
        """Run a whole transaction and return the last reply."""
        reply = await self.envelope(mail, to)
        return reply if not reply.startswith("354") else await self.say(content + ".")

    def close(self) -> None:
        """Hang up."""
        self.writer.transport.abort()
