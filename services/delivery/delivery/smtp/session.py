"""An SMTP session with one server: any number of mails, each to any number of recipients, then goodbye."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

from delivery.smtp.connection import Connection
from delivery.smtp.content import BareLineEndInContent, chunk, stuffed
from delivery.smtp.errors import SmtpAddressError, SmtpConnectionLostError, SmtpContentError, SmtpError
from delivery.smtp.extensions import Extensions
from delivery.smtp.facts import Mail, ReplyFacts, Sent, Stage, Target, Timeouts, TlsFacts
from delivery.smtp.fitting import fitted
from delivery.smtp.reply import MalformedReply
from delivery.smtp.rounds import Rounds
from delivery.smtp.transaction import Body, By, Held, Transaction, is_writable

_AT_ONCE = 262_144
"""Octets of content that are made ready as a whole."""
_ALONG = 65_536
"""Octets of content that are sent before it is known whether anybody will have them."""


class Session:
    """One connection to one server, past EHLO. :func:`delivery.smtp.connect` makes it; one task at a time uses it."""

    def __init__(self, target: Target, timeouts: Timeouts, connection: Connection) -> None:
        self.target = target
        self.greeting = ""
        """Text of the server's greeting."""
        self.extensions = Extensions()
        self.tls: TlsFacts | None = None
        self.transactions = 0
        """How many have begun."""
        self._timeouts = timeouts
        self._connection = connection
        self._local_ip = connection.local_ip
        self._usable = True
        self._needs_reset = False
        self._most: int | None = None
        self._farewell: ReplyFacts | None = None
        self._heard = asyncio.get_running_loop().time()

    @property
    def host(self) -> str:
        """The server's name as it was asked for."""
        return self.target.host

    @property
    def ip(self) -> str:
        """The server's address."""
        return self.target.ip

    @property
    def local_ip(self) -> str:
        """Our address of this connection."""
        return self._local_ip

    @property
    def usable(self) -> bool:
        """Another mail may be tried: both are in step, the server has not taken leave and takes one more transaction."""
        most = self.extensions.mail_max
        return self._stands and (most is None or self.transactions < most)

    async def send(self, mail: Mail) -> Sent:
        """Try one mail and report what became of each recipient.

        Recipients who are too many for one transaction (RCPTMAX of RFC 9422; 452 or 552 to a later one, RFC 5321
        4.5.3.1.10) follow in further ones at once. Nothing else is decided or repeated. A failure of the connection on the
        way is a result too (code 0), so that no recipient goes without.

        Raises:
            SmtpUnsendableError: it cannot go over this session. Nothing was sent, the session stays usable.
            SmtpConnectionLostError: the session was not usable. Nothing was sent.
            SmtpSourceError: the content could not be read. The session is closed, the server got no complete message.
        """
        if not self.usable:
            raise SmtpConnectionLostError("the session has ended", host=self.host, ip=self.ip, stage=Stage.MAIL)
        mail = await fitted(mail, self.extensions, self._unsendable)
        self._check_paths(mail)
        octets = self._octets(mail)
        rounds = Rounds(mail.recipients, self._most or self.extensions.rcpt_max)
        while batch := rounds.next():
            part = mail if len(batch) == len(mail.recipients) else replace(mail, recipients=batch)
            rounds.take(await self._transact(part, octets))
            if self._is_over(mail):
                break
        self._most = rounds.learned or self._most
        return rounds.end("the session ended before it was this recipient's turn", self._farewell)

    async def quit(self) -> None:
        """Take leave of the server (RFC 5321 4.1.1.10) and close; never fails and never takes long."""
        stands, self._usable = self._stands, False
        if stands:
            self._connection.write(b"QUIT\r\n")
            with contextlib.suppress(OSError, MalformedReply):  # TimeoutError is an OSError; either way it is over
                await self._connection.reply(self._timeouts.quit)
        await self._connection.closed()

    def abort(self) -> None:
        """Close at once, without QUIT."""
        self._usable = False
        self._connection.abort()

    @property
    def _stands(self) -> bool:
        return self._usable and self._connection.quiet

    def _is_over(self, mail: Mail) -> bool:
        return not self.usable or not isinstance(mail.content, Sequence)  # a stream is used up

    async def _transact(self, mail: Mail, octets: bytes | None) -> Held:
        by = By.DATA
        if octets is not None and self.extensions.chunking:
            by = By.ALONG if self.extensions.pipelining and self._may_go_along(octets) else By.CHUNK
        transaction = Transaction(self._connection, self.extensions, self._timeouts, mail, Body(by, octets))
        self.transactions += 1
        try:
            held = await transaction.run(reset=self._needs_reset)
        except BaseException:
            # Cancelled, or the content's source failed: the server waits for the rest, which never comes.
            self.abort()
            raise
        self._heard = asyncio.get_running_loop().time()
        self._needs_reset = transaction.needs_reset
        self._farewell = transaction.farewell
        if transaction.broken:
            self.abort()
        return held

    def _may_go_along(self, octets: bytes) -> bool:
        # Where a server left while nobody spoke, content sent along would leave in doubt whether it took the mail.
        return len(octets) <= _ALONG and asyncio.get_running_loop().time() - self._heard <= self._timeouts.silence

    def _octets(self, mail: Mail) -> bytes | None:
        """Return the content ready for the wire; None where it is large or a stream, and made ready piece by piece."""
        if mail.size > _AT_ONCE or not isinstance(mail.content, Sequence):
            return None
        try:
            return chunk(mail.content) if self.extensions.chunking else stuffed(mail.content)
        except BareLineEndInContent:
            raise self._unsendable(SmtpContentError, "the content holds a bare CR or LF") from None

    def _check_paths(self, mail: Mail) -> None:
        for path in (*mail.recipients, *filter(None, (mail.mail_from,))):
            if not is_writable(path, smtputf8=mail.smtputf8):
                raise self._unsendable(
                    SmtpAddressError, "an address of the envelope cannot be written in an SMTP command"
                )

    def _unsendable(self, kind: type[SmtpError], text: str) -> SmtpError:
        return kind(text, host=self.host, ip=self.ip, stage=Stage.MAIL)
