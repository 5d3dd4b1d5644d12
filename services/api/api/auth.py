"""Who is asking: API keys as Bearer tokens, logins and keys over HTTP Basic (RFC 6750, RFC 7617).

A credential's row is remembered for one poll interval at most and dropped when the doorbell says that something changed, so
a revoked key works no longer than that even with NATS down. argon2 runs once a minute for a login, not once a request.
"""

import asyncio
import base64
import binascii
import functools
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal

from api.caller import Caller
from api.metrics import ApiMetrics
from api.submission import Door
from shared import log
from shared.clock import Clock, Monotonic, monotonic, utc_now
from shared.db.credentials import CredentialRow, find_credential, find_suffixed_login, login_id
from shared.db.engine import Pool, reachable
from shared.errors import AddressInvalid, BadInput, Forbidden, Overloaded, Unauthenticated, Unavailable
from shared.mail.address import parse
from shared.security.credentials import ApiKey, VerifiedPasswords, key_matches, password_matches, split_api_key
from shared.security.keys import KeyRing
from shared.security.scram import Verifier, nobody, parse_verifier

_LONGEST_HEADER = 8 * 1024
_ROWS_REMEMBERED = 10_000
_LONGEST_MEMORY = 30.0
_ARGON2_AT_ONCE = 2
_ARGON2_WAITING = 64
"""Password checks in hand, beyond which a request is turned away: each costs some 15 ms of processor time."""

_NO_KEY = (
    "this is no API key: one looks like ph_<12 characters>_<43 characters>, that of a sandbox begins with ph_test_"
)
_UNKNOWN_KEY = "this API key is not known here; check that it was copied whole"
_UNKNOWN_LOGIN = "user name or password is wrong"


Mechanism = Literal["none", "other", "bearer", "basic", "plain", "login", "scram-sha-256"]
"""``none``: no credentials at all; ``other``: a scheme that is not known here."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to be let in, for the log and the metrics."""

    door: Door
    mechanism: Mechanism
    remote: str
    """Address of the client."""


@dataclass(frozen=True, slots=True)
class _Remembered:
    row: CredentialRow
    until: float


class Authenticator:
    """Turns an Authorization header into a :class:`Caller`.

    Args:
        pool: where credentials are read.
        ring: checks the hashes of keys.
        metrics: counts who tries, and what comes of it.
        seconds: how long a row may be remembered, 30 at most.
        now: decides what has expired.
        clock: decides what is still remembered.
    """

    def __init__(
        self,
        pool: Pool,
        ring: KeyRing,
        metrics: ApiMetrics,
        *,
        seconds: float,
        now: Clock = utc_now,
        clock: Monotonic = monotonic,
    ) -> None:
        self._pool, self._ring, self._metrics = pool, ring, metrics
        self._seconds = min(seconds, _LONGEST_MEMORY)
        self._now, self._clock = now, clock
        self._rows: dict[str, _Remembered] = {}
        self._loading: dict[str, asyncio.Task[CredentialRow | None]] = {}
        self._verified = VerifiedPasswords(clock=clock)
        self._argon2 = asyncio.Semaphore(_ARGON2_AT_ONCE)
        self._checking: dict[tuple[str, str | None, str], asyncio.Task[bool]] = {}

    def forget(self) -> None:
        """Read every credential anew when it is next used."""
        self._rows.clear()
        self._loading.clear()  # what is being read may be from before the change

    async def identify(self, authorization: str | None, *, remote: str = "", door: Door = "rest") -> Caller:
        """Return who holds the credentials of an Authorization header.

        Args:
            authorization: its value, None where there is none.
            remote: address of the client, for the log.
            door: which it came by, for the metrics.

        Raises:
            Unauthenticated: there is no valid credential; the text says more only to someone who knows the secret.
            Forbidden: the account is disabled.
            Overloaded: too many passwords are being checked.
            DatabaseUnavailable: credentials cannot be read now.
        """
        return await self._let_in(self._row(authorization), Attempt(door, mechanism_of(authorization), remote))

    async def identify_user(self, user: str, password: str, attempt: Attempt) -> Caller:
        """Return who has a user name and its password: a login, or a key id with the secret of the key or the whole key.

        Raises as :meth:`identify`.
        """
        return await self._let_in(self._by_user(user, password), attempt)

    async def scram_verifier(self, user: str, attempt: Attempt) -> Verifier:
        """Return what the proof of a user name is held against (RFC 5802); for one that is not known, what no proof fits.

        Raises:
            DatabaseUnavailable: credentials cannot be read now.
        """
        try:
            row = await self._find_user(user)
        except Unavailable as error:
            self._count(attempt, error.code)
            raise
        if row is None:
            return nobody(self._ring.writing("scram-nobody").key, user)
        return parse_verifier(row.scram_sha_256)

    async def identify_proven(self, user: str, attempt: Attempt) -> Caller:
        """Return the caller behind a user name whose secret was just proven.

        Raises as :meth:`identify`.
        """
        return await self._let_in(self._by_name(user), attempt)

    async def identify_again(self, user: str, *, remote: str) -> Caller:
        """Return the caller behind a user name that was let in before, if it still would be. That is no attempt, and not counted.

        Raises as :meth:`identify`.
        """
        try:
            return self._caller(*await self._by_name(user))
        except _Refused as refusal:
            log.get(__name__).info("authentication_failed", reason=refusal.reason, remote=remote)
            raise refusal.error from None

    def note_failure(self, reason: str, attempt: Attempt) -> None:
        """Count and log that somebody was not let in, where the exchange failed before it came to :meth:`identify`."""
        self._count(attempt, reason)
        log.get(__name__).info("authentication_failed", reason=reason, remote=attempt.remote)

    def _count(self, attempt: Attempt, result: str) -> None:
        self._metrics.authentications.labels(attempt.door, attempt.mechanism, result).inc()

    async def _let_in(self, found: Awaitable[tuple[CredentialRow, str | None]], attempt: Attempt) -> Caller:
        try:
            caller = self._caller(*await found)
        except _Refused as refusal:
            self.note_failure(refusal.reason, attempt)
            raise refusal.error from None
        except Unavailable as error:
            self._count(attempt, error.code)
            raise
        # An operator's key is good, but opens the doors of accounts to nobody.
        self._count(attempt, "operator" if caller.account_id is None and attempt.door != "rest" else "ok")
        return caller

    def _caller(self, row: CredentialRow, login: str | None) -> Caller:
        self._check_standing(row)
        return Caller(
            credential_id=row.id,
            account_id=row.account_id,
            kind="login" if row.kind == "login" else "api_key",
            # Of one login, demo@ and demo+x@ may differ in this, as they do in mox: who wants from_ids names the login itself.
            uses_from_ids=row.uses_from_ids and (login is None or login_id(login) == row.public_id),
            is_test=row.is_test,
            login=login,
        )

    async def _row(self, authorization: str | None) -> tuple[CredentialRow, str | None]:
        """Return the credential, and the user name where it is a login."""
        if authorization is None:
            raise _Refused("missing", "send an API key as `Authorization: Bearer ph_...`, or a login as HTTP Basic")
        scheme, _, rest = authorization[:_LONGEST_HEADER].partition(" ")
        match scheme.lower():  # RFC 9110 11.1: case-insensitive
            case "bearer":
                key = split_api_key(rest.strip())
                if key is None:
                    raise _Refused("malformed", _NO_KEY)
                return await self._by_whole_key(key), None
            case "basic":
                return await self._by_user(*_basic(rest))
            case _:
                raise _Refused("malformed", "the Authorization header is neither Bearer nor Basic")

    async def _by_user(self, user: str, password: str) -> tuple[CredentialRow, str | None]:
        if "@" in user:
            return await self._by_password(user, password), user
        whole = split_api_key(password)
        if whole is not None and whole.key_id == user:
            return await self._by_whole_key(whole), None
        return await self._by_key(user, password), None

    async def _by_name(self, user: str) -> tuple[CredentialRow, str | None]:
        row = await self._find_user(user)
        if row is None:
            raise _Refused("unknown_login", _UNKNOWN_LOGIN)
        return row, user if "@" in user else None

    async def _find_user(self, user: str) -> CredentialRow | None:
        try:
            return await self._find(login_id(user) if "@" in user else user)
        except AddressInvalid:
            return None

    async def _by_whole_key(self, key: ApiKey) -> CredentialRow:
        row = await self._by_key(key.key_id, key.secret)
        if row.is_test is not key.is_test:  # whoever writes test into a key must not send in earnest with it
            raise _Refused("unknown_key", _UNKNOWN_KEY)
        return row

    async def _by_key(self, key_id: str, secret: str) -> CredentialRow:
        row = await self._find(key_id)
        if row is None or row.key_hash is None or not key_matches(self._ring, row.key_hash, secret):
            raise _Refused("unknown_key", _UNKNOWN_KEY)
        return row

    async def _by_password(self, user: str, password: str) -> CredentialRow:
        try:
            login = login_id(user)
        except AddressInvalid:
            raise _Refused("unknown_login", _UNKNOWN_LOGIN) from None
        row = await self._find(login)
        stored = row.password_hash if row is not None else None
        if not await self._password_matches(login, stored, password) or row is None:
            raise _Refused("unknown_login" if row is None else "wrong_password", _UNKNOWN_LOGIN)
        return row

    async def _password_matches(self, login: str, stored: str | None, password: str) -> bool:
        if stored is not None and self._verified.knows(login, stored, password):
            return True
        question = (login, stored, password)
        task = self._checking.get(question)
        if task is None:
            if len(self._checking) >= _ARGON2_WAITING:
                raise Overloaded(
                    "too many passwords are being checked right now; try again in a moment, or use an API key"
                )
            task = self._checking[question] = asyncio.create_task(self._check_password(login, stored, password))
            task.add_done_callback(lambda _: self._checking.pop(question))
        return await asyncio.shield(task)

    async def _check_password(self, login: str, stored: str | None, password: str) -> bool:
        async with self._argon2:
            matches = await asyncio.to_thread(password_matches, stored, password)
        if matches and stored is not None:
            self._verified.remember(login, stored, password)
        return matches

    def _check_standing(self, row: CredentialRow) -> None:
        what = "login" if row.kind == "login" else "API key"
        if row.revoked_at is not None:
            raise _Refused("revoked", f"this {what} was revoked; ask the operator for another")
        if not row.is_valid(self._now()):
            raise _Refused("expired", f"this {what} has expired; ask the operator for another")
        if row.account_disabled_at is not None:
            raise _Refused("account_disabled", "this account is disabled; ask the operator", error=Forbidden)

    async def _find(self, public_id: str) -> CredentialRow | None:
        """Read a credential, or remember it; many requests that need the same one at once ask the database once."""
        known = self._rows.get(public_id)
        if known is not None and self._clock() < known.until:
            return known.row
        task = self._loading.get(public_id)
        if task is None:
            task = self._loading[public_id] = asyncio.create_task(self._load(public_id))
            task.add_done_callback(functools.partial(self._loaded, public_id))
        return await asyncio.shield(task)

    async def _load(self, public_id: str) -> CredentialRow | None:
        async with reachable(), self._pool.acquire() as connection:
            row = await find_credential(connection, public_id)
            if row is None and "@" in public_id:
                row = await find_suffixed_login(connection, parse(public_id))
            return row

    def _loaded(self, public_id: str, task: "asyncio.Task[CredentialRow | None]") -> None:
        if self._loading.get(public_id) is not task:
            return  # a change came while it was read
        del self._loading[public_id]
        if task.cancelled() or task.exception() is not None:
            return  # those who wait for it are told
        row = task.result()
        if row is None:
            self._rows.pop(public_id, None)
            return
        if len(self._rows) >= _ROWS_REMEMBERED:
            self._rows.clear()
        self._rows[public_id] = _Remembered(row, self._clock() + self._seconds)


class _Refused(Exception):
    """Nobody is let in, and why."""

    def __init__(self, reason: str, message: str, *, error: type[BadInput] = Unauthenticated) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error(message)


def mechanism_of(authorization: str | None) -> Mechanism:
    """Return the mechanism that an Authorization header chooses."""
    match (authorization or "").partition(" ")[0].lower():  # RFC 9110 11.1: case-insensitive
        case "":
            return "none"
        case "bearer":
            return "bearer"
        case "basic":
            return "basic"
        case _:
            return "other"


def _basic(encoded: str) -> tuple[str, str]:
    """Read the credentials of RFC 7617 2: base64 of ``user:password`` in UTF-8."""
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise _Refused("malformed", "the Basic credentials are not user:password in UTF-8 and base64") from None
    user, colon, password = text.partition(":")
    if not colon:
        raise _Refused("malformed", "the Basic credentials have no colon between user and password")
    return user, password
