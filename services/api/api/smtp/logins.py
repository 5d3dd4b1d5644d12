"""Who is on the line: PLAIN (RFC 4616), LOGIN (as clients speak it), SCRAM-SHA-256 (RFC 5802, RFC 7677)."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final

from api.auth import Attempt, Authenticator, Mechanism
from api.caller import AccountCaller, Caller
from api.failures import FailureLimiter
from api.metrics import ApiMetrics
from shared.errors import Forbidden, Unauthenticated, Unavailable
from shared.security.scram import ScramFailed, ScramServer
from shared.smtpd import Exchange, Reply, Session
from shared.smtpd import reply as replies

MECHANISMS = ("SCRAM-SHA-256", "PLAIN", "LOGIN")

_SCRAM: Final = "scram-sha-256"
_TOO_MANY = Reply(454, "4.7.0", "Too many failed logins from your address, wait a minute before the next")
_MALFORMED = Reply(501, "5.5.2", "The response is not what the mechanism asks for")
_ANOTHER_IDENTITY = Reply(535, "5.7.8", "Acting for another identity is not possible here")
_OPERATOR = Reply(535, "5.7.8", "An operator's key belongs to no account, use a key or login of the account")


@dataclass(frozen=True, slots=True)
class Login:
    """Who has logged in on a session."""

    user: str
    """As it was given; by it the credential is looked up again for each message."""
    caller: AccountCaller


class Logins:
    """The mechanisms of the door.

    Args:
        authenticator: knows the credentials.
        failures: counts what went wrong, by address.
        metrics: counts whom the limit turns away.
        plaintext: whether a password may cross the wire without TLS: in the local stack only.
    """

    def __init__(
        self, authenticator: Authenticator, failures: FailureLimiter, metrics: ApiMetrics, *, plaintext: bool
    ) -> None:
        self._authenticator, self._failures, self._metrics = authenticator, failures, metrics
        self._plaintext = plaintext

    def offered(self, session: Session) -> Sequence[str]:
        """Return the mechanisms: none before TLS (RFC 4954 4, RFC 8314 3)."""
        return MECHANISMS if self._plaintext or session.tls is not None else ()

    def begin(self, session: Session, mechanism: str) -> Exchange:
        """Begin an exchange."""
        match mechanism:
            case "PLAIN":
                return _Plain(self, session)
            case "LOGIN":
                return _Login(self, session)
            case _:
                return _Scram(self, session, self._authenticator)

    async def by_password(self, session: Session, mechanism: Mechanism, user: str, password: str) -> Reply:
        """Log a session in by user name and password."""
        if not self.may_try(session):
            return _TOO_MANY
        found = self._authenticator.identify_user(user, password, _attempt(session, mechanism))
        return await self._admit(session, user, found)

    async def by_proof(self, session: Session, user: str) -> Reply:
        """Log a session in whose client has proven that it knows the secret."""
        return await self._admit(session, user, self._authenticator.identify_proven(user, _attempt(session, _SCRAM)))

    async def still_good(self, session: Session) -> AccountCaller | Reply:
        """Return who sends on a session, or the reply where nobody may (any more): a key may have been revoked meanwhile."""
        login = session.login
        if not isinstance(login, Login):
            return replies.AUTH_FIRST
        try:
            caller = await self._authenticator.identify_again(login.user, remote=session.peer_ip)
        except (Unauthenticated, Forbidden) as error:
            session.login = None
            return Reply(530, "5.7.0", error.message)
        if caller.credential_id != login.caller.credential_id:
            session.login = None
            return replies.AUTH_FIRST
        return login.caller

    def may_try(self, session: Session) -> bool:
        """Say whether this client may try a secret, and count it where not: one more failure would be too many."""
        may = self._failures.may_try(session.peer_ip)
        if not may:
            self._metrics.ratelimited.labels("smtp").inc()
        return may

    def malformed(self, session: Session, mechanism: Mechanism, reply: Reply = _MALFORMED) -> Reply:
        """Note a response that tries no secret, and return the reply to it."""
        self.not_let_in("malformed", session, mechanism)
        return reply

    def not_let_in(self, reason: str, session: Session, mechanism: Mechanism) -> None:
        """Note why an exchange ended before a secret could be checked."""
        self._authenticator.note_failure(reason, _attempt(session, mechanism))

    def failed(self, session: Session) -> Reply:
        """Count a failure and return the reply to it."""
        self._failures.failed(session.peer_ip)
        return replies.AUTH_REFUSED

    async def _admit(self, session: Session, user: str, found: Awaitable[Caller]) -> Reply:
        try:
            caller = await found
        except Unauthenticated:
            return self.failed(session)
        except Forbidden as error:
            return Reply(535, "5.7.8", error.message)
        except Unavailable as error:
            return Reply(454, "4.7.0", error.message)
        if caller.account_id is None:
            return _OPERATOR
        self._failures.succeeded(session.peer_ip)
        session.login = Login(user, AccountCaller.of(caller, caller.account_id))
        return replies.AUTH_OK


class _Plain:
    """RFC 4616: one response, ``authorization identity NUL user NUL password``."""

    def __init__(self, logins: Logins, session: Session) -> None:
        self._logins, self._session = logins, session

    async def step(self, response: bytes | None) -> bytes | Reply:
        if response is None:
            return b""
        parts = _text(response)
        words = [] if parts is None else parts.split("\0")
        if len(words) != 3 or not words[1]:
            return self._logins.malformed(self._session, "plain")
        identity, user, password = words
        if identity not in {"", user}:
            self._logins.not_let_in("another_identity", self._session, "plain")
            return _ANOTHER_IDENTITY
        return await self._logins.by_password(self._session, "plain", user, password)


class _Login:
    """The user name, then the password; the name may come with the command."""

    def __init__(self, logins: Logins, session: Session) -> None:
        self._logins, self._session = logins, session
        self._user: str | None = None

    async def step(self, response: bytes | None) -> bytes | Reply:
        if response is None:
            return b"Username:"
        text = _text(response)
        if text is None or "\0" in text:
            return self._logins.malformed(self._session, "login")
        if self._user is None:
            self._user = text
            return b"Password:"
        return await self._logins.by_password(self._session, "login", self._user, text)


class _Scram:
    """RFC 5802 5: first message, final message, and an empty line for our own proof."""

    def __init__(self, logins: Logins, session: Session, authenticator: Authenticator) -> None:
        self._logins, self._session, self._authenticator = logins, session, authenticator
        self._exchange = ScramServer()
        self._user: str | None = None
        self._proven = False

    async def step(self, response: bytes | None) -> bytes | Reply:
        if response is None:
            return b""
        if self._proven and self._user is not None:
            return await self._finish(self._user, response)
        if not self._logins.may_try(self._session):
            return _TOO_MANY
        try:
            return await self._answer(response)
        except ScramFailed as error:
            return self._refuse(error)
        except Unavailable as error:
            return Reply(454, "4.7.0", error.message)

    async def _finish(self, user: str, response: bytes) -> Reply:
        if response:
            return self._logins.malformed(self._session, _SCRAM)
        return await self._logins.by_proof(self._session, user)

    def _refuse(self, error: ScramFailed) -> Reply:
        if self._user is None:  # nothing was guessed yet
            return self._logins.malformed(self._session, _SCRAM, Reply(501, "5.5.2", error.message))
        self._logins.not_let_in("wrong_proof", self._session, _SCRAM)
        return self._logins.failed(self._session)

    async def _answer(self, response: bytes) -> bytes:
        if self._user is None:
            self._user = self._exchange.first(response)
            return self._exchange.challenge(
                await self._authenticator.scram_verifier(self._user, _attempt(self._session, _SCRAM))
            )
        final = self._exchange.final(response)
        self._proven = True
        return final


def _attempt(session: Session, mechanism: Mechanism) -> Attempt:
    return Attempt("smtp", mechanism, session.peer_ip)


def _text(response: bytes) -> str | None:
    try:
        return response.decode()
    except UnicodeDecodeError:
        return None
