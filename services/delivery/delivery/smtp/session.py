"""An SMTP session with one server: connect, send any number of mails, quit."""

import asyncio
import contextlib
import ssl

from delivery.smtp.connection import Connection
from delivery.smtp.content import BareLineEndInContent
from delivery.smtp.errors import (
    SmtpAddressError,
    SmtpConnectError,
    SmtpConnectionLostError,
    SmtpContentError,
    SmtpEightBitError,
    SmtpError,
    SmtpGreetingError,
    SmtpHelloError,
    SmtpProtocolError,
    SmtpSizeError,
    SmtpTimeoutError,
    SmtpTlsError,
    SmtpUtf8Error,
)
from delivery.smtp.extensions import Extensions, parse_extensions
from delivery.smtp.facts import Mail, ReplyFacts, Sent, Stage, Target, Timeouts, TlsFacts, TlsMode
from delivery.smtp.reply import MalformedReply, Reply
from delivery.smtp.transaction import Transaction, is_writable, stuffed


def opportunistic_context() -> ssl.SSLContext:
    """Return a context for TLS that hides the mail and proves nothing (RFC 7435 3). Build it once: it takes 20 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Session:
    """One connection to one server, past EHLO. :func:`connect` makes it; one task at a time uses it."""

    def __init__(self, target: Target, timeouts: Timeouts, connection: Connection) -> None:
        self.target = target
        self.greeting = ""
        """Text of the server's greeting."""
        self.extensions = Extensions()
        self.tls: TlsFacts | None = None
        self.transactions = 0
        """Mails sent or tried over it."""
        self._timeouts = timeouts
        self._connection = connection
        self._local_ip = connection.local_ip
        self._usable = True
        self._needs_reset = False

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
        """Another mail may be tried: the connection stands, both are in step and the server has not taken leave."""
        return self._usable and self._connection.quiet

    async def send(self, mail: Mail) -> Sent:
        """Try one mail and report what became of each recipient; decides nothing and repeats nothing.

        A failure of the connection on the way is a result too (code 0), so that no recipient goes without.

        Raises:
            SmtpUnsendableError: it cannot go over this session. Nothing was sent, the session stays usable.
            SmtpConnectionLostError: the session was not usable. Nothing was sent.
            SmtpSourceError: the content could not be read. The session is closed, the server got no complete message.
        """
        if not self.usable:
            self.abort()
            raise SmtpConnectionLostError("the session has ended", host=self.host, ip=self.ip, stage=Stage.MAIL)
        self._check(mail)
        try:
            body = await stuffed(mail)
        except BareLineEndInContent:
            raise self._unsendable(SmtpContentError, "the content holds a bare CR or LF") from None
        self.transactions += 1
        transaction = Transaction(self._connection, self.extensions, self._timeouts, mail, body)
        try:
            sent = await transaction.run(reset=self._needs_reset)
        except (
            BaseException
        ):  # cancelled, or the content's source failed: the server waits for the rest, which never comes
            self.abort()
            raise
        self._needs_reset = transaction.needs_reset
        if transaction.broken:
            self.abort()
        return sent

    async def quit(self) -> None:
        """Take leave of the server (RFC 5321 4.1.1.10) and close; never fails and never takes long."""
        if self.usable:
            self._connection.write(b"QUIT\r\n")
            with contextlib.suppress(OSError, MalformedReply):  # TimeoutError is an OSError; either way it is over
                await self._connection.reply(self._timeouts.quit)
        self._usable = False
        await self._connection.closed()

    def abort(self) -> None:
        """Close at once, without QUIT."""
        self._usable = False
        self._connection.abort()

    def _check(self, mail: Mail) -> None:
        offered = self.extensions
        if offered.size is not None and mail.size > offered.size:  # RFC 1870 6.1
            text = f"the message has {mail.size} octets, the server accepts {offered.size}"
            raise self._unsendable(SmtpSizeError, text)
        if mail.smtputf8 and not offered.smtputf8:  # RFC 6531 3.2
            raise self._unsendable(SmtpUtf8Error, "the message needs SMTPUTF8, which the server does not offer")
        if mail.body8bit and not offered.eight_bit_mime:  # RFC 6152 3
            raise self._unsendable(SmtpEightBitError, "the message needs 8BITMIME, which the server does not offer")
        for path in (*mail.recipients, *filter(None, (mail.mail_from,))):
            if not is_writable(path, smtputf8=mail.smtputf8):
                raise self._unsendable(
                    SmtpAddressError, "an address of the envelope cannot be written in an SMTP command"
                )

    def _unsendable(self, kind: type[SmtpError], text: str) -> SmtpError:
        return kind(text, host=self.host, ip=self.ip, stage=Stage.MAIL)


async def connect(
    target: Target,
    *,
    ehlo_name: str,
    timeouts: Timeouts,
    tls: TlsMode = TlsMode.NONE,
    context: ssl.SSLContext | None = None,
) -> Session:
    """Connect, greet and start TLS as asked.

    Opportunistic TLS uses STARTTLS where it is offered; a failure of it raises SmtpTlsError, so that the caller may
    connect again without.

    Args:
        target: name, address and port of the server.
        ehlo_name: our name (RFC 5321 4.1.1.1).
        timeouts: seconds per phase.
        tls: what TLS to use.
        context: for TLS; decides about verification. Needed unless ``tls`` is NONE.

    Raises:
        SmtpError: the class says at which stage; its fields say what was answered.
        ValueError: TLS is asked for without a context.
    """
    if tls is not TlsMode.NONE and context is None:
        raise ValueError("TLS needs a context")
    opening = _Opening(target, timeouts, ehlo_name)
    try:
        return await opening.run(tls, context)
    except SmtpError as error:
        opening.leave(politely=error.reply is not None)
        raise
    except BaseException:  # cancelled
        opening.leave(politely=False)
        raise


class _Opening:
    """The way from no connection to a session."""

    def __init__(self, target: Target, timeouts: Timeouts, ehlo_name: str) -> None:
        self._target = target
        self._timeouts = timeouts
        self._ehlo_name = ehlo_name
        self._stage = Stage.CONNECT
        self._connection: Connection | None = None

    async def run(self, tls: TlsMode, context: ssl.SSLContext | None) -> Session:
        connection = self._connection = await self._dial(context if tls is TlsMode.IMPLICIT else None)
        session = Session(self._target, self._timeouts, connection)
        greeting = await self._ask(connection, b"", Stage.GREETING, self._timeouts.greeting)
        if greeting.code != 220:
            raise self._error(SmtpGreetingError, f"greeting {greeting.code}", greeting)
        session.greeting = greeting.facts(enhanced=False).text
        session.extensions = await self._hello(connection)
        if context is not None and tls in {TlsMode.OPPORTUNISTIC, TlsMode.REQUIRED}:
            if session.extensions.starttls:
                await self._start_tls(connection, context, enhanced=session.extensions.enhanced_status_codes)
                session.extensions = await self._hello(connection)  # RFC 3207 4.2: what was said before is void
            elif tls is TlsMode.REQUIRED:
                self._stage = Stage.STARTTLS
                raise self._error(SmtpTlsError, "the server does not offer STARTTLS")
        session.tls = connection.tls()
        return session

    def leave(self, *, politely: bool) -> None:
        """Close; a server that refused us with a reply waits for QUIT (RFC 5321 3.1)."""
        if self._connection is None:
            return
        if politely:
            self._connection.write(b"QUIT\r\n")
            self._connection.close()
        else:
            self._connection.abort()

    async def _dial(self, context: ssl.SSLContext | None) -> Connection:
        target = self._target
        loop = asyncio.get_running_loop()
        source = (target.source_ip, 0) if target.source_ip is not None else None
        try:
            async with asyncio.timeout(self._timeouts.connect):
                _, connection = await loop.create_connection(
                    Connection,
                    target.ip,
                    target.port,
                    ssl=context,
                    server_hostname=_server_name(target.host) if context is not None else None,
                    local_addr=source,
                )
        except TimeoutError:
            raise self._error(
                SmtpConnectError, f"no connection to port {target.port} in {self._timeouts.connect:g} s"
            ) from None
        except ssl.SSLError as error:
            raise self._error(SmtpTlsError, f"TLS handshake failed: {error}") from error
        except (OSError, ValueError) as error:  # ValueError: an address or name that cannot be one
            raise self._error(SmtpConnectError, f"no connection to port {target.port}: {error}") from error
        return connection

    async def _hello(self, connection: Connection) -> Extensions:
        name = self._ehlo_name.encode("ascii", "replace")
        reply = await self._ask(connection, b"EHLO " + name + b"\r\n", Stage.EHLO, self._timeouts.ehlo)
        if reply.code == 250:
            return parse_extensions(reply.lines)
        if 500 <= reply.code <= 504:  # RFC 5321 3.2: an old server
            reply = await self._ask(connection, b"HELO " + name + b"\r\n", Stage.EHLO, self._timeouts.ehlo)
            if reply.code == 250:
                return Extensions()
        raise self._error(SmtpHelloError, f"reply {reply.code} to our greeting", reply)

    async def _start_tls(self, connection: Connection, context: ssl.SSLContext, *, enhanced: bool) -> None:
        reply = await self._ask(connection, b"STARTTLS\r\n", Stage.STARTTLS, self._timeouts.starttls)
        if reply.code != 220:
            raise self._error(SmtpTlsError, f"reply {reply.code} to STARTTLS", reply, enhanced=enhanced)
        try:
            await connection.start_tls(context, _server_name(self._target.host), self._timeouts.starttls)
        except (OSError, ValueError) as error:  # ValueError: a host name that SNI cannot carry
            raise self._error(SmtpTlsError, f"TLS handshake failed: {error}") from error

    async def _ask(self, connection: Connection, command: bytes, stage: Stage, seconds: float) -> Reply:
        self._stage = stage
        if command:
            connection.write(command)
        try:
            return await connection.reply(seconds)
        except TimeoutError:
            raise self._error(SmtpTimeoutError, f"no answer within {seconds:g} s ({stage.value})") from None
        except MalformedReply as error:
            raise self._error(SmtpProtocolError, f"the server does not speak SMTP: {error}") from error
        except OSError as error:
            raise self._error(SmtpConnectionLostError, f"{error} ({stage.value})") from error

    def _error(
        self, kind: type[SmtpError], message: str, reply: Reply | None = None, *, enhanced: bool = False
    ) -> SmtpError:
        facts: ReplyFacts | None = None if reply is None else reply.facts(enhanced=enhanced)
        return kind(message, host=self._target.host, ip=self._target.ip, stage=self._stage, reply=facts)


def _server_name(host: str) -> str:
    return host.rstrip(".")
