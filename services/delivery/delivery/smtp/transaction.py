"""One mail transaction (RFC 5321 3.3): exactly one result for each recipient, whatever the server does."""

import re

from delivery.smtp.connection import Connection
from delivery.smtp.content import BareLineEndInContent, DotStuffer, pieces
from delivery.smtp.errors import SmtpSourceError
from delivery.smtp.extensions import Extensions
from delivery.smtp.facts import Mail, RcptResult, ReplyFacts, Sent, Stage, Timeouts
from delivery.smtp.reply import MalformedReply, Reply

_PATH = re.compile(
    r'(?:[^\x00-\x20\x7f-\x9f<>"@\\]+|"(?:[^\x00-\x1f\x7f-\x9f"\\]|\\[\x20-\x7e])*")@[^\x00-\x20\x7f-\x9f<>"@\\]+|postmaster',
    re.IGNORECASE,
)
_AT_ONCE = 262_144


def is_writable(path: str, *, smtputf8: bool) -> bool:
    """Tell whether a path can be written in MAIL or RCPT without becoming something else."""
    if not path.isascii() and (not smtputf8 or any("\ud800" <= letter <= "\udfff" for letter in path)):
        return False
    return _PATH.fullmatch(path) is not None


async def stuffed(mail: Mail) -> bytes | None:
    """Return the content dot-stuffed and ended, None where it is large or a stream and is sent in pieces.

    Raises:
        BareLineEndInContent: it cannot be sent.
    """
    if mail.size > _AT_ONCE or not isinstance(mail.content, (tuple, list)):
        return None
    stuffer = DotStuffer()
    parts = [stuffer.feed(piece) for piece in mail.content]
    parts.append(stuffer.end())
    return b"".join(parts)


class Transaction:
    """Sends one mail over a connection and gathers the facts.

    Args:
        mail: checked against the extensions already.
        body: the content as :func:`stuffed` returned it.
    """

    def __init__(
        self, connection: Connection, extensions: Extensions, timeouts: Timeouts, mail: Mail, body: bytes | None
    ) -> None:
        self._connection = connection
        self._extensions = extensions
        self._timeouts = timeouts
        self._mail = mail
        self._body = body
        self._results: list[RcptResult | None] = [None] * len(mail.recipients)
        self._accepted: list[int] = []
        self._stage = Stage.MAIL
        self._last: Reply | None = None
        self._ended = False
        self.broken = False
        """The connection is of no use any more."""
        self.needs_reset = False
        """The server holds a transaction that must be given up with RSET before the next."""

    async def run(self, *, reset: bool) -> Sent:
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
        except (
            BareLineEndInContent
        ):  # found in a stream, after DATA: only closing keeps the part from being taken for all
            self._break("the content holds a bare CR or LF and was not sent to its end")
        except OSError as error:
            self._break(f"connection lost: {error}")
        return Sent(tuple(result for result in self._results if result is not None), self._ended)

    # The two ways through the envelope.

    async def _pipelined(self, *, reset: bool) -> None:
        # RFC 2920 3.1: RSET, MAIL and RCPT may stand anywhere in a group, DATA last.
        group = [b"RSET\r\n"] if reset else []
        group.append(self._mail_command())
        group += [self._rcpt_command(recipient) for recipient in self._mail.recipients]
        group.append(b"DATA\r\n")
        self._connection.write(b"".join(group))
        if reset:
            await self._reply(Stage.MAIL, self._timeouts.mail)
        await self._read_mail()
        for index in range(len(self._mail.recipients)):
            await self._read_rcpt(index)
        data = await self._reply(Stage.DATA, self._timeouts.data)
        if data.code == 354 and not self._accepted:
            await self._end_for_nobody()
        else:
            await self._after_data(data)

    async def _step_by_step(self, *, reset: bool) -> None:
        if reset:
            self._connection.write(b"RSET\r\n")
            await self._reply(Stage.MAIL, self._timeouts.mail)
        self._connection.write(self._mail_command())
        await self._read_mail()
        if self._results and self._results[0] is not None:
            return
        for index, recipient in enumerate(self._mail.recipients):
            self._connection.write(self._rcpt_command(recipient))
            await self._read_rcpt(index)
        if self._accepted:
            self._connection.write(b"DATA\r\n")
            await self._after_data(await self._reply(Stage.DATA, self._timeouts.data))

    async def _read_mail(self) -> None:
        reply = await self._reply(Stage.MAIL, self._timeouts.mail)
        if reply.positive:
            self.needs_reset = True
        else:
            for index in range(len(self._results)):
                self._settle(index, Stage.MAIL, reply)

    async def _read_rcpt(self, index: int) -> None:
        reply = await self._reply(Stage.RCPT, self._timeouts.rcpt)
        if self._results[index] is not None:  # MAIL was refused, this only follows from it
            return
        if reply.positive:
            self._accepted.append(index)
        else:
            self._settle(index, Stage.RCPT, reply)

    async def _after_data(self, data: Reply) -> None:
        if data.code == 354:
            await self._send_content()
        elif data.code < 400:
            raise MalformedReply(f"{data.code} is no reply to DATA")
        else:
            self._settle_accepted(Stage.DATA, data)

    async def _end_for_nobody(self) -> None:
        # RFC 2920 3.1: the server takes DATA although it took no recipient; an empty message brings both back in step.
        self._connection.write(b".\r\n")
        await self._reply(Stage.MESSAGE, self._timeouts.message)
        self.needs_reset = False

    # The content.

    async def _send_content(self) -> None:
        self._stage = Stage.MESSAGE
        if self._connection.answered:  # behind 354 there is nothing to say but goodbye
            complete = False
        elif self._body is not None:
            self._connection.write(self._body)
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
        self._settle_accepted(Stage.MESSAGE, reply)

    async def _stream(self) -> bool:
        """Send the content in pieces; False where the server answers before its end."""
        connection = self._connection
        stuffer = DotStuffer()
        source = pieces(self._mail.content)
        while True:
            try:
                piece = await anext(source, None)
            except OSError as error:  # a failure of ours must not look like one of the server
                raise SmtpSourceError(f"the content could not be read: {error}", stage=Stage.MESSAGE) from error
            if piece is None:
                break
            connection.write(stuffer.feed(piece))
            await connection.drain(self._timeouts.block)
            if connection.answered:
                return False
        connection.write(stuffer.end())
        return True

    # Facts.

    async def _reply(self, stage: Stage, seconds: float) -> Reply:
        self._stage = stage
        self._last = reply = await self._connection.reply(seconds)
        if reply.code == 421:  # RFC 5321 3.8: the server is about to close
            self.broken = True
        return reply

    def _facts(self, reply: Reply) -> ReplyFacts:
        return reply.facts(enhanced=self._extensions.enhanced_status_codes)

    def _settle(self, index: int, stage: Stage, reply: Reply) -> None:
        facts = self._facts(reply)
        accepted = stage is Stage.MESSAGE and reply.positive
        self._results[index] = RcptResult(
            self._mail.recipients[index], accepted, stage, facts.code, facts.enhanced, facts.text
        )

    def _settle_accepted(self, stage: Stage, reply: Reply) -> None:
        for index in self._accepted:
            self._settle(index, stage, reply)

    def _break(self, why: str) -> None:
        """Settle who has no result yet; what the server said about others stays true."""
        self.broken = True
        last = self._last
        for index, recipient in enumerate(self._mail.recipients):
            if self._results[index] is not None:
                continue
            if last is not None and last.code == 421:  # it said why it was going to close
                self._settle(index, self._stage, last)
            else:
                self._results[index] = RcptResult(
                    recipient, accepted=False, stage=self._stage, code=0, enhanced="", text=why
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
        return " ".join(parts).encode() + b"\r\n"

    def _rcpt_command(self, recipient: str) -> bytes:
        return f"RCPT TO:<{recipient}>\r\n".encode()
