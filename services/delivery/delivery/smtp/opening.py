"""From no connection to a session: dial, greet, start TLS, log in."""

import asyncio
import base64
import ssl

from delivery.smtp.auth import ExchangeFailed, Mechanism, choose, decoded
from delivery.smtp.connection import Connection
from delivery.smtp.errors import (
    SmtpAuthError,
    SmtpConnectError,
    SmtpConnectionLostError,
    SmtpError,
    SmtpGreetingError,
    SmtpHelloError,
    SmtpProtocolError,
    SmtpTimeoutError,
    SmtpTlsError,
)
from delivery.smtp.extensions import Extensions, parse_extensions
from delivery.smtp.facts import Login, ReplyFacts, Stage, Target, Timeouts, TlsMode
from delivery.smtp.reply import MalformedReply, Reply
from delivery.smtp.session import Session
from delivery.smtp.socks import connect_through

_COMMAND_OCTETS = 512  # RFC 5321 4.5.3.1.4; RFC 4954 4: a longer initial response waits for a challenge
_MOST_STEPS = 4  # SCRAM takes two challenges, as LOGIN does


def opportunistic_context() -> ssl.SSLContext:
    """Return a context for TLS that hides the mail and proves nothing (RFC 7435 3). Build it once: it takes 20 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def verifying_context() -> ssl.SSLContext:
    """Return a context for TLS with a certificate that this machine trusts, for the server's name (RFC 8314 3.3). Build it once."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    return context


async def connect(
    target: Target,
    *,
    ehlo_name: str,
    timeouts: Timeouts,
    tls: TlsMode = TlsMode.NONE,
    context: ssl.SSLContext | None = None,
    login: Login | None = None,
) -> Session:
    """Connect, greet, start TLS as asked and log in where there is a login.

    Opportunistic TLS uses STARTTLS where it is offered; a failure of it raises SmtpTlsError, so that the caller may
    connect again without.

    Args:
        target: name, address and port of the server.
        ehlo_name: our name (RFC 5321 4.1.1.1).
        timeouts: seconds per phase.
        tls: what TLS to use.
        context: for TLS; decides about verification. Needed unless ``tls`` is NONE.
        login: who we are; without it nobody is asked to believe it.

    Raises:
        SmtpError: the class says at which stage; its fields say what was answered.
        ValueError: TLS is asked for without a context.
    """
    if tls is not TlsMode.NONE and context is None:
        raise ValueError("TLS needs a context")
    opening = _Opening(target, timeouts, ehlo_name)
    try:
        return await opening.run(tls, context, login)
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

    async def run(self, tls: TlsMode, context: ssl.SSLContext | None, login: Login | None) -> Session:
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
        if login is not None:
            await self._log_in(connection, session, login)
        return session

    async def _log_in(self, connection: Connection, session: Session, login: Login) -> None:
        self._stage = Stage.AUTH
        if session.tls is None and not login.without_tls:
            raise self._error(SmtpAuthError, "the login is only shown over TLS, which this connection has not")
        mechanisms = choose(login, session.extensions.auth)
        if not mechanisms:
            offered = " ".join(session.extensions.auth) or "none"
            raise self._error(SmtpAuthError, f"no mechanism that may be used is offered; the server offers: {offered}")
        while True:
            mechanism = mechanisms.pop(0)
            try:
                reply = await self._exchange(connection, mechanism)
                if reply.code == 235:
                    mechanism.finish()
                    return
            except ExchangeFailed as error:
                raise self._error(SmtpAuthError, f"{mechanism.name}: {error}") from error
            if (
                reply.code != 504 or not mechanisms
            ):  # RFC 4954 4: it offered what it does not know; perhaps it knows the next
                enhanced = session.extensions.enhanced_status_codes
                raise self._error(
                    SmtpAuthError, f"reply {reply.code} to AUTH {mechanism.name}", reply, enhanced=enhanced
                )

    async def _exchange(self, connection: Connection, mechanism: Mechanism) -> Reply:
        """Carry out one AUTH command (RFC 4954 4); return the reply that ends it."""
        seconds = self._timeouts.auth
        command = f"AUTH {mechanism.name}".encode()
        first = mechanism.first()
        response = None if first is None else base64.b64encode(first)
        if response is not None and len(command) + len(response) + 3 <= _COMMAND_OCTETS:
            command, response = command + b" " + response, None
        reply = await self._ask(connection, command + b"\r\n", Stage.AUTH, seconds)
        for _ in range(_MOST_STEPS):
            if reply.code != 334:
                return reply
            if response is None:
                challenge = decoded(reply.lines[0])
                # In a thread: the server says how much is to be computed.
                response = base64.b64encode(await asyncio.to_thread(mechanism.respond, challenge))
            reply = await self._ask(connection, response + b"\r\n", Stage.AUTH, seconds)
            response = None
        raise ExchangeFailed("an exchange without end")

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
        name = _server_name(target.host) if context is not None else None
        try:
            async with asyncio.timeout(self._timeouts.connect):
                if target.proxy is not None:
                    through = await connect_through(target.proxy, target.ip, target.port)
                    _, connection = await loop.create_connection(
                        Connection, sock=through, ssl=context, server_hostname=name
                    )
                    return connection
                source = (target.source_ip, 0) if target.source_ip is not None else None
                _, connection = await loop.create_connection(
                    Connection, target.ip, target.port, ssl=context, server_hostname=name, local_addr=source
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
