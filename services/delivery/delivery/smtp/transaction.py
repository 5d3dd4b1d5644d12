"""One mail transaction (RFC 5321 3.3): exactly one result for each recipient, whatever the server does."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from delivery.smtp.connection import Connection
from delivery.smtp.content import BareLineEndInContent, DotStuffer, pieces
from delivery.smtp.errors import SmtpSourceError
from delivery.smtp.extensions import Extensions
from delivery.smtp.facts import Mail, RcptResult, ReplyFacts, Stage, Timeouts
from delivery.smtp.reply import MalformedReply, Reply

_PATH = re.compile(
    r'(?:[^\x00-\x20\x7f-\x9f<>"@\\]+|"(?:[^\x00-\x1f\x7f-\x9f"\\]|\\[\x20-\x7e])*")@[^\x00-\x20\x7f-\x9f<>"@\\]+|postmaster',
    re.IGNORECASE,
)
TOO_MANY = frozenset({452, 552})  # RFC 5321 4.5.3.1.10: 552 comes from servers written before it was made 452


def is_writable(path: str, *, smtputf8: bool) -> bool:
    """Tell whether a path can be written in MAIL or RCPT without becoming something else."""
    if not path.isascii() and (not smtputf8 or any("\ud800" <= letter <= "\udfff" for letter in path)):
        return False
    return _PATH.fullmatch(path) is not None


class By(Enum):
    """How the content follows the envelope."""

    DATA = "data"
    """Behind the 354 of the server."""
    CHUNK = "chunk"
    """Behind the replies to the envelope, as one chunk (RFC 3030)."""
    ALONG = "along"
    """As one chunk in the same write as the envelope (RFC 3030 4.2): a mail is one round trip."""


@dataclass(frozen=True, slots=True)
class Body:
    """The content, ready for the wire."""

    by: By
    octets: bytes | None
    """What is written: stuffed and ended, or the chunk with its command. None: it is large or a stream and sent in pieces."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a transaction came to."""

    results: tuple[RcptResult, ...]
    """One for each recipient, in their order."""
    surplus: frozenset[int]
    """Places of recipients that may be one too many for this transaction and not refused for good; their results say what the
    server answered."""
    accepted: tuple[int, ...]
    """Places of the recipients whom the server took before it saw the content."""


class Transaction:
    """Sends one mail over a connection and gathers the facts.

    Args:
        mail: fitted to the extensions already.
    """

    def __init__(
        self, connection: Connection, extensions: Extensions, timeouts: Timeouts, mail: Mail, body: Body
    ) -> None:
        self._connection = connection
        self._extensions = extensions
        self._timeouts = timeouts
        self._mail = mail
        self._body = body
        self._results: list[RcptResult | None] = [None] * len(mail.recipients)
        self._accepted: list[int] = []
        self._surplus: set[int] = set()
        self._stage = Stage.MAIL
        self._last: Reply | None = None
        self._ended = False
        self.broken = False
        """The connection is of no use any more."""
        self.needs_reset = False
        """The server holds a transaction that must be given up with RSET before the next."""
        self.farewell: ReplyFacts | None = None
        """The 421 with which the server took leave."""

    async def run(self, *, reset: bool) -> Held:
        """Carry it out.

        Args:
            reset: give up an earlier transaction first.
        """
        try:
            if self._extensions.pipelining:
                await self._pipelined(reset=reset)
            else:
                await self._step_by_step(reset=reset)
        except TimeoutError:
            self._break("no answer in time")
        except MalformedReply as error:
            self._break(f"the server does not speak SMTP: {error}")
        except BareLineEndInContent:
            # Found in a stream, after DATA: only closing keeps the part from being taken for all.
            self._break("the content holds a bare CR or LF and was not sent to its end")
        except OSError as error:
            self._break(f"connection lost: {error}")
        results = tuple(result for result in self._results if result is not None)
        return Held(results, frozenset(self._surplus), tuple(self._accepted))

    # The two ways through the envelope.

    async def _pipelined(self, *, reset: bool) -> None:
        # RFC 2920 3.1: RSET, MAIL and RCPT may stand anywhere in a group, DATA last; BDAT too (RFC 3030 4.2).
        group = [b"RSET\r\n"] if reset else []
        group.append(self._mail_command())
        group += [self._rcpt_command(recipient) for recipient in self._mail.recipients]
        by = self._body.by
        if by is By.DATA:
            group.append(b"DATA\r\n")
        elif by is By.ALONG:
            group.append(self._body.octets or b"")
            self._ended = True
        self._connection.write(b"".join(group))
        if reset:
            await self._read_rset()
        await self._read_mail()
        for index in range(len(self._mail.recipients)):
            await self._read_rcpt(index)
        if by is By.DATA:
            await self._read_data()
        elif by is By.ALONG:
            await self._read_chunk()
        elif self._accepted:
            await self._send_chunk()

    async def _step_by_step(self, *, reset: bool) -> None:
        if reset:
            self._connection.write(b"RSET\r\n")
            await self._read_rset()
        self._connection.write(self._mail_command())
        if not await self._read_mail():
            return
        for index, recipient in enumerate(self._mail.recipients):
            self._connection.write(self._rcpt_command(recipient))
            await self._read_rcpt(index)
            if index in self._surplus:  # the server is full: whoever comes behind is not asked about
                self._leave_out(index + 1)
                break
        if not self._accepted:
            return
        if self._body.by is By.DATA:
            self._connection.write(b"DATA\r\n")
            await self._read_data()
        else:
            await self._send_chunk()

    async def _read_rset(self) -> None:
        reply = await self._reply(Stage.MAIL, self._timeouts.mail)
        if not reply.positive and reply.code != 421:  # RFC 5321 4.1.1.5: there is no other reply to it
            raise MalformedReply(f"{reply.code} is no reply to RSET")

    async def _read_mail(self) -> bool:
        reply = await self._reply(Stage.MAIL, self._timeouts.mail)
        if reply.positive:
            self.needs_reset = True
        else:
            self._settle(range(len(self._results)), Stage.MAIL, reply)
        return reply.positive

    async def _read_rcpt(self, index: int) -> None:
        reply = await self._reply(Stage.RCPT, self._timeouts.rcpt)
        if self._results[index] is not None:  # MAIL was refused, this only follows from it
            return
        if reply.positive:
            self._accepted.append(index)
            return
        self._settle([index], Stage.RCPT, reply)
        if index and reply.code in TOO_MANY:  # the first one cannot be one too many
            self._surplus.add(index)

    def _leave_out(self, start: int) -> None:
        """Say of the recipients from this one on what the server said of the one before."""
        if self._last is not None:
            rest = range(start, len(self._results))
            self._settle(rest, Stage.RCPT, self._last)
            self._surplus.update(rest)

    # The content by DATA.

    async def _read_data(self) -> None:
        data = await self._reply(Stage.DATA, self._timeouts.data)
        if data.code == 354:
            await (self._send_content() if self._accepted else self._end_for_nobody())
        elif data.code < 400:
            raise MalformedReply(f"{data.code} is no reply to DATA")
        else:
            self._settle(self._accepted, Stage.DATA, data)

    async def _end_for_nobody(self) -> None:
        # RFC 2920 3.1: the server takes DATA although it took no recipient; an empty message brings both back in step.
        self._connection.write(b".\r\n")
        await self._reply(Stage.MESSAGE, self._timeouts.message)
        self.needs_reset = False

    async def _send_content(self) -> None:
        self._stage = Stage.MESSAGE
        if self._connection.answered:  # behind 354 there is nothing to say but goodbye
            complete = False
        elif self._body.octets is not None:
            self._connection.write(self._body.octets)
            complete = True
        else:
            complete = await self._stream()
        self._ended = complete
        await self._connection.drain(self._timeouts.block)
        reply = await self._reply(Stage.MESSAGE, self._timeouts.message)
        if not complete:  # RFC 5321 4.1.1.4 has no reply before the end; the server is about to close
            self.broken = True
            if reply.code < 400:
                raise MalformedReply(f"{reply.code} before the end of the content")
        self.needs_reset = False
        self._settle(self._accepted, Stage.MESSAGE, reply)

    async def _stream(self) -> bool:
        """Send the content in pieces; False where the server answers before its end."""
        connection = self._connection
        stuffer = DotStuffer()
        source = pieces(self._mail.content)
        size = 0
        while True:
            try:
                piece = await anext(source, None)
            except OSError as error:  # a failure of ours must not look like one of the server
                raise SmtpSourceError(f"the content could not be read: {error}", stage=Stage.MESSAGE) from error
            if piece is None:
                break
            size += len(piece)
            connection.write(stuffer.feed(piece))
            await connection.drain(self._timeouts.block)
            if connection.answered:
                return False
        if size != self._mail.size:  # part of a message must never be taken for all of it
            raise SmtpSourceError(f"the content has {size} octets, not {self._mail.size}", stage=Stage.MESSAGE)
        connection.write(stuffer.end())
        return True

    # The content by BDAT.

    async def _send_chunk(self) -> None:
        self._stage = Stage.MESSAGE
        self._connection.write(self._body.octets or b"")
        self._ended = True
        await self._connection.drain(self._timeouts.block)
        await self._read_chunk()

    async def _read_chunk(self) -> None:
        reply = await self._reply(Stage.MESSAGE, self._timeouts.message)
        if self._connection.out_of_step:  # no 354 stands between the envelope and this: it may be the answer to a RCPT
            raise MalformedReply("more replies than commands")
        self.needs_reset = not reply.positive  # RFC 3030 2: a chunk that failed leaves the transaction open
        self._settle(self._accepted, Stage.MESSAGE, reply)

    # Facts.

    async def _reply(self, stage: Stage, seconds: float) -> Reply:
        self._stage = stage
        self._last = reply = await self._connection.reply(seconds)
        if 300 <= reply.code < 400 and stage is not Stage.DATA:  # RFC 5321 4.2.1: it would wait for more from us
            raise MalformedReply(f"{reply.code} is no reply here ({stage.value})")
        if reply.code == 421:  # RFC 5321 3.8: the server is about to close
            self.broken = True
            self.farewell = self._facts(reply)
        return reply

    def _facts(self, reply: Reply) -> ReplyFacts:
        return reply.facts(enhanced=self._extensions.enhanced_status_codes)

    def _settle(self, places: Iterable[int], stage: Stage, reply: Reply) -> None:
        facts = self._facts(reply)
        accepted = stage is Stage.MESSAGE and reply.positive
        for index in places:
            self._results[index] = RcptResult(
                self._mail.recipients[index], accepted, stage, facts.code, facts.enhanced, facts.text
            )

    def _break(self, why: str) -> None:
        """Settle who has no result yet; what the server said about others stays true."""
        self.broken = True
        last = self._last
        for index, recipient in enumerate(self._mail.recipients):
            if self._results[index] is not None:
                continue
            if last is not None and last.code == 421:  # it said why it was going to close
                self._settle([index], self._stage, last)
            else:
                self._results[index] = RcptResult(
                    recipient, False, self._stage, code=0, enhanced="", text=why, in_doubt=self._ended
                )

    # Commands.

    def _mail_command(self) -> bytes:
        mail, extensions = self._mail, self._extensions
        parts = [f"MAIL FROM:<{mail.mail_from}>"]
        if extensions.size_offered:
            parts.append(f"SIZE={mail.size}")
        if extensions.eight_bit_mime:
            parts.append("BODY=8BITMIME" if mail.body8bit else "BODY=7BIT")
        if mail.smtputf8:
            parts.append("SMTPUTF8")
        if mail.require_tls:
            parts.append("REQUIRETLS")  # RFC 8689 4.2
        return " ".join(parts).encode() + b"\r\n"

    def _rcpt_command(self, recipient: str) -> bytes:
        return f"RCPT TO:<{recipient}>\r\n".encode()
