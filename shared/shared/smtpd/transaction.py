"""One mail transaction: its envelope, and reading its content by DATA or BDAT (RFC 5321 3.3, RFC 3030)."""

from dataclasses import dataclass, field
from enum import Enum

from shared.errors import BadInput
from shared.smtpd.config import SmtpdConfig
from shared.smtpd.data import DataDecoder, Flaw, has_bare_line_end
from shared.smtpd.grammar import Parameters
from shared.smtpd.reply import BARE_LINE_END, CHUNK_FAILED, NO_MEMORY, TOO_BIG, Reply
from shared.smtpd.session import Envelope, Session
from shared.smtpd.wire import ReadTimeoutError, Wire

_REPLY_TO_FLAW = {Flaw.BARE_LINE_END: BARE_LINE_END, Flaw.TOO_BIG: TOO_BIG, Flaw.NO_MEMORY: NO_MEMORY}


class Memory:
    """Counts the octets that all connections of a listener hold; a counter, it allocates nothing."""

    __slots__ = ("_free",)

    def __init__(self, octets: int) -> None:
        self._free = octets

    def take(self, octets: int) -> bool:
        """Reserve octets; False where they are not there."""
        if octets > self._free:
            return False
        self._free -= octets
        return True

    def give(self, octets: int) -> None:
        """Return reserved octets."""
        self._free += octets


class Chunks(Enum):
    """How far the BDAT commands of a transaction have come."""

    NONE = "none"
    OPEN = "open"
    FAILED = "failed"


class ContentRefused(BadInput):
    """The content is refused with ``reply``; ``fatal`` where the peer and we may disagree about where it ends."""

    code = "smtp_content"

    def __init__(self, reply: Reply, *, fatal: bool) -> None:
        super().__init__(reply.text)
        self.reply = reply
        self.fatal = fatal


@dataclass(slots=True)
class Transaction:
    """What is known between MAIL and the end of the message."""

    mail_from: str
    mail_params: Parameters
    deadline: float
    """Loop time at which it has taken too long."""
    recipients: list[str]
    """The list that the session shows."""
    rcpt_params: list[Parameters] = field(default_factory=list)
    refused: int = 0
    """RCPT commands answered with a refusal."""
    chunks: Chunks = Chunks.NONE
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    reserved: int = 0

    def envelope(self, session: Session, content: bytes) -> Envelope:
        """Put together what the handler gets."""
        params = self.mail_params
        return Envelope(
            mail_from=self.mail_from,
            recipients=tuple(self.recipients),
            content=content,
            mail_params=params,
            rcpt_params=tuple(self.rcpt_params),
            smtputf8="SMTPUTF8" in params,
            body8bit=(params.get("BODY") or "").upper() == "8BITMIME",
            tls=session.tls,
            peer_ip=session.peer_ip,
            ehlo_name=session.ehlo_name,
            esmtp=session.esmtp,
        )


class ContentReader:
    """Reads content into a transaction within the limits of a listener."""

    __slots__ = ("_config", "_memory", "_wire")

    def __init__(self, wire: Wire, config: SmtpdConfig, memory: Memory) -> None:
        self._wire = wire
        self._config = config
        self._memory = memory

    async def data(self, transaction: Transaction) -> bytes:
        """Read what follows 354 up to CRLF.CRLF and return it.

        Too large a message is read to its end, so that the session can go on, but not further than twice the limit.

        Raises:
            ContentRefused: it cannot be accepted.
            PeerGoneError, ReadTimeoutError: it did not arrive.
        """
        limit = self._config.max_size
        decoder = DataDecoder(limit)
        while True:
            piece = await self._wire.read_some(self._patience(transaction))
            if decoder.flaw is None and not self._reserve(transaction, len(piece)):
                decoder.refuse(Flaw.NO_MEMORY)
                self.release(transaction)
            rest = decoder.feed(piece)
            if decoder.flaw is Flaw.BARE_LINE_END:
                raise ContentRefused(BARE_LINE_END, fatal=True)
            if rest is not None:
                self._wire.push_back(rest)
                break
            if decoder.received > 2 * limit + 4096:
                raise ContentRefused(_REPLY_TO_FLAW[decoder.flaw or Flaw.TOO_BIG], fatal=True)
        if decoder.flaw is not None:
            raise ContentRefused(_REPLY_TO_FLAW[decoder.flaw], fatal=False)
        return decoder.content()

    async def chunk(self, transaction: Transaction | None, size: int, refusal: Reply | None) -> None:
        """Read the octets of one BDAT into the transaction; they are read in any case (RFC 3030 2).

        Args:
            transaction: None where none is open.
            size: octets that follow the command.
            refusal: why the chunk is refused already.

        Raises:
            ContentRefused: with ``refusal``, or because of what came.
            PeerGoneError, ReadTimeoutError: it did not arrive.
        """
        if transaction is not None and refusal is None:
            refusal = self._room_for(transaction, size)
        if size > 2 * self._config.max_size:  # too much even to throw away
            raise ContentRefused(refusal or TOO_BIG, fatal=True)
        left = size
        while left:
            piece = await self._wire.read_some(self._patience(transaction), left)
            left -= len(piece)
            if transaction is None or refusal is not None:
                continue
            if self._reserve(transaction, len(piece)):
                transaction.parts.append(piece)
            else:
                refusal = NO_MEMORY
        if refusal is None:
            return
        if transaction is not None:
            self._fail(transaction)
        raise ContentRefused(refusal, fatal=False)

    def joined(self, transaction: Transaction) -> bytes:
        """Return the content of all chunks.

        Raises:
            ContentRefused: a bare CR or LF is in it. BDAT itself would carry it, the next hop's DATA would not.
        """
        content = b"".join(transaction.parts)
        transaction.parts.clear()
        if has_bare_line_end(content):
            self._fail(transaction)
            raise ContentRefused(BARE_LINE_END, fatal=False)
        return content

    def release(self, transaction: Transaction) -> None:
        """Give back the memory of a transaction that is over."""
        self._memory.give(transaction.reserved)
        transaction.reserved = 0

    def _room_for(self, transaction: Transaction, size: int) -> Reply | None:
        if transaction.chunks is Chunks.FAILED:
            return CHUNK_FAILED
        transaction.size += size
        if transaction.size > self._config.max_size:
            return TOO_BIG
        return None

    def _patience(self, transaction: Transaction | None) -> float:
        if transaction is None:
            return self._config.data_timeout
        left = transaction.deadline - self._wire.time()
        if left <= 0:  # also where octets keep trickling in
            raise ReadTimeoutError
        return min(self._config.data_timeout, left)

    def _reserve(self, transaction: Transaction, octets: int) -> bool:
        if not self._memory.take(octets):
            return False
        transaction.reserved += octets
        return True

    def _fail(self, transaction: Transaction) -> None:
        transaction.chunks = Chunks.FAILED
        transaction.parts.clear()
        self.release(transaction)
