"""The server's side of one SMTP connection: commands, their order, their replies (RFC 5321 3 and 4)."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum

import structlog

from shared.smtpd import reply as replies
from shared.smtpd.auth import authenticate
from shared.smtpd.config import SmtpdConfig
from shared.smtpd.grammar import ArgumentRefused, parse_mail, parse_rcpt
from shared.smtpd.parameters import judge_mail, judge_rcpt
from shared.smtpd.reply import Reply
from shared.smtpd.session import Handler, Session, tls_facts
from shared.smtpd.transaction import Chunks, ContentReader, ContentRefused, Memory, Transaction
from shared.smtpd.wire import BareLineEnd, LineTooLong, PeerGoneError, ReadTimeoutError, Wire

log = structlog.get_logger()

_NAME = re.compile(r"[\x21-\x7e]{1,255}")  # wider than RFC 5321 4.1.3; who says what is for the handler to judge
_CHUNK = re.compile(r"([0-9]{1,19})(?: +(LAST))? *", re.IGNORECASE)
_CLOSING_CODES = frozenset({421, 521})  # RFC 5321 3.8, RFC 7504 3
_LINGER_SECONDS = 5.0


class After(Enum):
    """What becomes of the connection after a command."""

    GO_ON = "go on"
    CLOSE = "close"


class Conversation:
    """Speaks with one peer until it leaves, misbehaves, idles or we shut down.

    ``COMMANDS`` is the state machine's table: verb to method. A method takes the argument, writes its replies and says
    whether to go on; one that needs further lines (AUTH) reads them with :meth:`read_line`.
    """

    def __init__(self, wire: Wire, session: Session, handler: Handler, config: SmtpdConfig, memory: Memory) -> None:
        self.session = session
        self._wire = wire
        self._handler = handler
        self._config = config
        self._memory = memory
        self._content = ContentReader(wire, config, memory)
        self._transaction: Transaction | None = None
        self._commands = 0
        self._errors = 0
        self._verb = "connect"
        self._ends = wire.time() + config.session_timeout
        self._closing = False
        self._idle = False

    def close_when_idle(self) -> None:
        """Say goodbye with 421 now if no transaction is open, else after it."""
        self._closing = True
        if self._idle and self._transaction is None:
            self._wire.wake()

    async def run(self) -> None:
        """Greet and answer until the end; the connection is closed afterwards."""
        try:
            if await self._greet() is After.GO_ON:
                while await self._next() is After.GO_ON:
                    pass
        except PeerGoneError as gone:
            log.debug("smtpd.peer_gone", session=self.session.number, why=gone.message)
        except ReadTimeoutError:
            self._say(replies.SHUTTING_DOWN if self._closing else replies.IDLE_TOO_LONG)
        except asyncio.CancelledError:
            if self._closing:  # RFC 5321 3.8: 421 may come at any time
                self._say(replies.SHUTTING_DOWN)
            raise
        finally:
            self._reset()
            self._wire.close()

    async def refuse(self, reply: Reply) -> None:
        """Send one reply instead of the greeting and close."""
        self._reply(reply)
        await self._wire.linger(_LINGER_SECONDS, 65_536)
        self._wire.close()

    async def read_line(self) -> bytes:
        """Return the next line without CRLF, within the limits of a command."""
        return await self._wire.read_line(self._config.max_line, self._config.command_timeout)

    # The loop.

    async def _greet(self) -> After:
        reply = await self._ask(self._handler.on_connect(self.session))
        if reply is None:
            return self._say(Reply(220, "", f"{self._config.hostname} ESMTP Posthouse"))
        if reply.code >= 400:
            return await self._say_and_linger(reply)
        return self._say(reply)

    async def _next(self) -> After:
        self._verb = "other"
        if self._closing and self._transaction is None:
            return self._say(replies.SHUTTING_DOWN, After.CLOSE)
        try:
            line = await self._next_line()
            self._commands += 1
            if self._commands > self._config.max_commands:
                return self._say(replies.TOO_MANY_COMMANDS, After.CLOSE)
            return await self._command(line)
        except BareLineEnd:  # what follows may be somebody else's words: do not read it as commands
            return await self._say_and_linger(replies.BARE_LINE_END)
        except LineTooLong:
            return await self._say_and_linger(replies.LINE_TOO_LONG)

    async def _next_line(self) -> bytes:
        transaction = self._transaction
        left = (self._ends if transaction is None else transaction.deadline) - self._wire.time()
        if left <= 0:
            raise ReadTimeoutError
        self._idle = True
        try:
            return await self._wire.read_line(self._config.max_line, min(self._config.command_timeout, left))
        finally:
            self._idle = False

    async def _command(self, line: bytes) -> After:
        verb, _, argument = line.partition(b" ")
        command = COMMANDS.get(verb.upper())  # RFC 5321 2.4: verbs are case-insensitive
        try:
            text = argument.strip(b" \t").decode()
        except UnicodeDecodeError:
            return self._wrong(replies.NOT_UTF8)
        if command is None:
            return self._wrong(replies.UNKNOWN_COMMAND)
        self._verb = verb.upper().decode()
        try:
            return await command(self, text)
        except ArgumentRefused as refused:
            return self._wrong(refused.reply)

    def _reply(self, reply: Reply) -> None:
        self._wire.write(reply.wire)
        if self._config.metrics is not None:
            self._config.metrics.replied(self._verb, reply)

    def _say(self, reply: Reply, after: After | None = None) -> After:
        self._reply(reply)
        if after is not None:
            return after
        return After.CLOSE if reply.code in _CLOSING_CODES else After.GO_ON

    def _wrong(self, reply: Reply) -> After:
        self._errors += 1
        self._reply(reply)
        if self._errors > self._config.max_errors:
            return self._say(replies.TOO_MANY_ERRORS, After.CLOSE)
        return After.GO_ON

    async def _say_and_linger(self, reply: Reply) -> After:
        log.info("smtpd.refused", session=self.session.number, peer_ip=self.session.peer_ip, reply=reply.text)
        self._reply(reply)
        await self._wire.linger(_LINGER_SECONDS, 2 * self._config.max_size)
        return After.CLOSE

    async def _ask(self, answer: Awaitable[Reply | None]) -> Reply | None:
        try:
            return await answer
        except Exception:  # whatever a handler raises, the peer gets a reply and may try again
            log.exception("smtpd.handler_failed", session=self.session.number, peer_ip=self.session.peer_ip)
            return replies.LOCAL_ERROR

    def _reset(self) -> None:
        if self._transaction is not None:
            self._content.release(self._transaction)
        self._transaction = None
        self.session.mail_from = None
        self.session.recipients = []

    # The commands.

    async def ehlo(self, argument: str) -> After:
        """EHLO (RFC 5321 4.1.1.1): introduce, and learn what we offer."""
        if not _NAME.fullmatch(argument):
            return self._wrong(replies.NEEDS_NAME)
        self._reset()  # RFC 5321 4.1.4
        self.session.ehlo_name, self.session.esmtp = argument, True
        config = self._config
        lines = [config.hostname, "PIPELINING", f"SIZE {config.max_size}", "8BITMIME", "ENHANCEDSTATUSCODES"]
        lines.append(f"LIMITS RCPTMAX={config.max_recipients}")
        if config.smtputf8:
            lines.append("SMTPUTF8")
        if config.chunking:
            lines.append("CHUNKING")
        if config.tls is not None and self.session.tls is None:
            lines.append("STARTTLS")
        if config.auth is not None and self.session.login is None and (offered := config.auth.offered(self.session)):
            lines.append(f"AUTH {' '.join(offered)}")
        lines += config.ehlo_lines(self.session)
        return self._say(Reply(250, "", "\n".join([*lines, "HELP"])))

    async def helo(self, argument: str) -> After:
        """HELO (RFC 5321 4.1.1.1)."""
        if not _NAME.fullmatch(argument):
            return self._wrong(replies.NEEDS_NAME)
        self._reset()
        self.session.ehlo_name, self.session.esmtp = argument, False
        return self._say(Reply(250, "", self._config.hostname))

    async def mail(self, argument: str) -> After:
        """MAIL (RFC 5321 4.1.1.2): begin a transaction."""
        if not self.session.ehlo_name:
            return self._wrong(replies.HELLO_FIRST)
        if self._transaction is not None:
            return self._wrong(replies.NESTED_MAIL)
        sender = parse_mail(argument)
        refusal = judge_mail(sender, self._config)
        if refusal is not None:
            self._config.on_refusal(refusal)
            return self._wrong(refusal)
        reply = (
            await self._ask(self._handler.on_mail(self.session, sender.path, sender.parameters)) or replies.SENDER_OK
        )
        if reply.code < 300:
            deadline = self._wire.time() + self._config.transaction_timeout
            self._transaction = Transaction(sender.path, sender.parameters, deadline, self.session.recipients)
            self.session.mail_from = sender.path
        return self._say(reply)

    async def rcpt(self, argument: str) -> After:
        """RCPT (RFC 5321 4.1.1.3): name a recipient."""
        transaction = self._transaction
        if transaction is None:
            return self._wrong(replies.MAIL_FIRST)
        recipient = parse_rcpt(argument)
        refusal = judge_rcpt(recipient, self._config, smtputf8="SMTPUTF8" in transaction.mail_params)
        if refusal is not None:
            return self._wrong(refusal)
        if transaction.chunks is not Chunks.NONE:
            return self._wrong(replies.RCPT_TOO_LATE)
        if len(transaction.recipients) >= self._config.max_recipients:
            return self._say(replies.TOO_MANY_RECIPIENTS)  # RFC 5321 4.5.3.1.10
        asked = self._handler.on_rcpt(self.session, recipient.path, recipient.parameters)
        reply = await self._ask(asked) or replies.RECIPIENT_OK
        if reply.code < 300:
            transaction.recipients.append(recipient.path)
            transaction.rcpt_params.append(recipient.parameters)
        else:
            transaction.refused += 1
        return self._say(reply)

    async def data(self, argument: str) -> After:
        """DATA (RFC 5321 4.1.1.4): take the message."""
        if argument:
            return self._wrong(replies.NO_ARGUMENT_ALLOWED)
        transaction = self._transaction
        refusal = self._judge_content(transaction)
        if transaction is None or refusal is not None:
            return self._wrong(refusal or replies.MAIL_FIRST)
        if transaction.chunks is not Chunks.NONE:
            return self._wrong(replies.CHUNKS_STARTED)
        self._wire.write(replies.START_DATA.wire)
        try:
            content = await self._content.data(transaction)
        except ContentRefused as refused:
            self._reset()
            self._config.on_refusal(refused.reply)
            return await self._say_and_linger(refused.reply) if refused.fatal else self._say(refused.reply)
        return await self._deliver(transaction, content)

    async def bdat(self, argument: str) -> After:
        """BDAT (RFC 3030 2): take a chunk of the message."""
        match = _CHUNK.fullmatch(argument)
        if match is None:  # how many octets follow is unknown: nothing behind it can be read
            return await self._say_and_linger(replies.CHUNK_SYNTAX)
        transaction = self._transaction
        refusal = self._judge_content(transaction)
        told = refusal is not None or (transaction is not None and transaction.chunks is Chunks.FAILED)
        try:
            await self._content.chunk(transaction, int(match[1]), refusal)
            if transaction is None:  # refused above
                return After.GO_ON
            transaction.chunks = Chunks.OPEN
            if not match[2]:
                return self._say(replies.CHUNK_OK)
            content = self._content.joined(transaction)
        except ContentRefused as refused:
            if not told:  # once for a message, not for each of its chunks
                self._config.on_refusal(refused.reply)
            return await self._say_and_linger(refused.reply) if refused.fatal else self._wrong(refused.reply)
        return await self._deliver(transaction, content)

    async def rset(self, argument: str) -> After:
        """RSET (RFC 5321 4.1.1.5): give the transaction up."""
        if argument:
            return self._wrong(replies.NO_ARGUMENT_ALLOWED)
        self._reset()
        return self._say(replies.OK)

    async def noop(self, _: str) -> After:
        """NOOP (RFC 5321 4.1.1.9)."""
        return self._say(replies.OK)

    async def help(self, _: str) -> After:
        """HELP (RFC 5321 4.1.1.8)."""
        return self._say(replies.HELP)

    async def vrfy(self, _: str) -> After:
        """VRFY (RFC 5321 3.5.3): 252, we do not say who exists."""
        return self._say(replies.CANNOT_VERIFY)

    async def expn(self, _: str) -> After:
        """EXPN (RFC 5321 3.5.1): there are no lists."""
        return self._wrong(replies.NOT_IMPLEMENTED)

    async def quit(self, argument: str) -> After:
        """QUIT (RFC 5321 4.1.1.10)."""
        if argument:
            return self._wrong(replies.NO_ARGUMENT_ALLOWED)
        return self._say(replies.BYE, After.CLOSE)

    async def starttls(self, argument: str) -> After:
        """STARTTLS (RFC 3207 4): go on encrypted, and forget what was said before."""
        if argument:
            return self._wrong(replies.NO_ARGUMENT_ALLOWED)
        if self.session.tls is not None:
            return self._wrong(replies.TLS_ACTIVE)
        if self._config.tls is None:
            return self._wrong(replies.TLS_MISSING)
        self._reply(replies.START_TLS)
        await self._wire.start_tls(self._config.tls, self._config.tls_timeout)
        self._reset()
        self.session.ehlo_name, self.session.esmtp, self.session.login = "", False, None  # RFC 3207 4.2
        self.session.tls = tls_facts(self._wire)
        return After.GO_ON

    async def auth(self, argument: str) -> After:
        """AUTH (RFC 4954 4): say who you are."""
        auth = self._config.auth
        if auth is None:
            return self._wrong(replies.UNKNOWN_COMMAND)
        if not self.session.esmtp:
            return self._wrong(replies.HELLO_FIRST)
        if self.session.login is not None:
            return self._wrong(replies.AUTH_ACTIVE)
        if self._transaction is not None:
            return self._wrong(replies.NOT_IN_TRANSACTION)
        asked = authenticate(auth, self.session, argument, read=self.read_line, write=self._wire.write)
        try:
            reply = await asked
        except (BareLineEnd, LineTooLong, PeerGoneError, ReadTimeoutError):
            raise
        except Exception:  # as in _ask
            log.exception("smtpd.handler_failed", session=self.session.number, peer_ip=self.session.peer_ip)
            reply = replies.AUTH_FAILED_HERE
        return self._say(reply) if reply.code == 235 or reply.code in _CLOSING_CODES else self._wrong(reply)

    # Their parts.

    def _judge_content(self, transaction: Transaction | None) -> Reply | None:
        if transaction is None:
            return replies.MAIL_FIRST
        if transaction.recipients:
            return None
        return replies.NO_VALID_RECIPIENTS if transaction.refused else replies.RECIPIENT_FIRST

    async def _deliver(self, transaction: Transaction, content: bytes) -> After:
        envelope = transaction.envelope(self.session, content)
        reply = await self._ask(self._handler.on_message(self.session, envelope)) or replies.LOCAL_ERROR
        self._reset()
        if reply.code < 300:
            self._commands = self._errors = 0
        return self._say(reply)


COMMANDS: Mapping[bytes, Callable[[Conversation, str], Awaitable[After]]] = {
    b"EHLO": Conversation.ehlo,
    b"HELO": Conversation.helo,
    b"MAIL": Conversation.mail,
    b"RCPT": Conversation.rcpt,
    b"DATA": Conversation.data,
    b"BDAT": Conversation.bdat,
    b"RSET": Conversation.rset,
    b"NOOP": Conversation.noop,
    b"HELP": Conversation.help,
    b"VRFY": Conversation.vrfy,
    b"EXPN": Conversation.expn,
    b"QUIT": Conversation.quit,
    b"STARTTLS": Conversation.starttls,
    b"AUTH": Conversation.auth,
}
