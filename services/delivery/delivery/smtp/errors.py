"""What can go wrong on the way of a mail over SMTP, by stage, as facts.

::

    SmtpError                     host, ip, stage, reply_code, enhanced, text
    |-- SmtpConnectError          no connection to the address
    |-- SmtpTimeoutError          the server did not answer in time
    |-- SmtpConnectionLostError   the server closed the connection
    |-- SmtpProtocolError         what the server sent is not SMTP
    |-- SmtpTlsError              STARTTLS refused or missing, handshake or verification failed
    |-- SmtpGreetingError         the greeting was not 220
    |-- SmtpHelloError            neither EHLO nor HELO was accepted
    |-- SmtpAuthError             the server does not take our login, or may not see it
    |-- SmtpSourceError           the content could not be read to its end; the connection was closed
    `-- SmtpUnsendableError       this mail cannot go over this session; nothing was sent
        |-- SmtpSizeError         larger than the server announced
        |-- SmtpUtf8Error         needs SMTPUTF8; the one of these that may be otherwise another day
        |-- SmtpEightBitError     needs 8BITMIME and cannot be converted
        |-- SmtpAddressError      an address cannot be written in a command
        `-- SmtpContentError      the content holds a bare CR or LF

``reply_code`` is 0 where no reply of the server caused it. What any of them means for the mail is decided in ``outcome.py``.
"""

from typing import ClassVar

from delivery.smtp.facts import ReplyFacts, Stage
from shared.errors import PosthouseError


class SmtpError(PosthouseError):
    """Delivery over SMTP failed."""

    code: ClassVar[str] = "smtp"
    permanent: ClassVar[bool] = False
    """Where no reply says it: the same mail cannot go to this server at any time."""

    def __init__(
        self, message: str, *, host: str = "", ip: str = "", stage: Stage, reply: ReplyFacts | None = None
    ) -> None:
        """Take what happened and where.

        Args:
            message: for a person, without the place.
            host: name of the server as it was asked for.
            ip: address that was connected to.
            stage: how far it had come.
            reply: what the server answered, if an answer caused it.
        """
        self.host = host
        self.ip = ip
        self.stage = stage
        self.reply = reply
        where = f"{host}[{ip}]" if host else ip
        super().__init__(f"{where}: {message}" if where else message)

    @property
    def reply_code(self) -> int:
        """The server's three digits, 0 where no reply caused this."""
        return self.reply.code if self.reply is not None else 0

    @property
    def enhanced(self) -> str:
        """The enhanced code of the reply, empty where there is none."""
        return self.reply.enhanced if self.reply is not None else ""

    @property
    def text(self) -> str:
        """The text of the reply, or what happened instead."""
        return self.reply.text if self.reply is not None else self.message


class SmtpConnectError(SmtpError):
    """No connection to the address."""

    code = "smtp_connect"


class SmtpTimeoutError(SmtpError):
    """The server did not answer in time."""

    code = "smtp_timeout"


class SmtpConnectionLostError(SmtpError):
    """The server closed the connection."""

    code = "smtp_connection_lost"


class SmtpProtocolError(SmtpError):
    """What the server sent is not SMTP."""

    code = "smtp_protocol"


class SmtpTlsError(SmtpError):
    """TLS could not be had."""

    code = "smtp_tls"


class SmtpGreetingError(SmtpError):
    """The server does not want to talk to us."""

    code = "smtp_greeting"


class SmtpHelloError(SmtpError):
    """The server accepts neither EHLO nor HELO."""

    code = "smtp_hello"


class SmtpAuthError(SmtpError):
    """The server does not take our login, or may not see it."""

    code = "smtp_auth"


class SmtpSourceError(SmtpError):
    """The content could not be read to its end."""

    code = "smtp_source"


class SmtpUnsendableError(SmtpError):
    """This mail cannot go over this session; nothing was sent."""

    code = "smtp_unsendable"
    permanent = True


class SmtpSizeError(SmtpUnsendableError):
    """The message is larger than the server accepts."""

    code = "smtp_size"


class SmtpUtf8Error(SmtpUnsendableError):
    """The message needs SMTPUTF8, which the server does not offer."""

    code = "smtp_utf8"
    permanent = False


class SmtpEightBitError(SmtpUnsendableError):
    """The message needs 8BITMIME, which the server does not offer, and cannot be converted."""

    code = "smtp_eight_bit"


class SmtpAddressError(SmtpUnsendableError):
    """An address cannot be written in an SMTP command."""

    code = "smtp_address"


class SmtpContentError(SmtpUnsendableError):
    """The content holds a CR or LF that is not part of a CRLF."""

    code = "smtp_content"
