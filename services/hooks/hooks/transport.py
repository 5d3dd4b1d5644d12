"""How a webhook reaches its endpoint: under httpx's interface, over connections of our own.

1. Scheme, host and port are checked against the outbound policy.
2. The name is resolved once, and every answer is checked; one denied answer refuses the call.
3. A connection is made to a checked address (or an idle one to such an address is used), never to the name. TLS is verified for
   the name.
4. The answer is read up to a limit, all of it within one deadline.

Redirects and proxies are not followed: a client is made with
``httpx.AsyncClient(transport=WebhookTransport(...), follow_redirects=False, trust_env=False)``.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import h11
import httpx

from hooks.transport_pool import DroppedError, HttpConnection, IdlePool, Key, Reply
from shared.errors import PosthouseError, ValidationFailed
from shared.security.outbound import OutboundPolicy, Target

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a host name, as text; raises OSError or PosthouseError where there are none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one call and of the idle connections.

    Attributes:
        total_seconds: from the first step to the last byte; a request may carry its own as ``extensions={"deadline": seconds}``.
        connect_seconds: for one address, TLS included.
        connect_addresses: how many addresses of a name are tried.
        body_bytes: how much of an answer's body is read.
        idle_seconds: how long a connection waits for the next call.
        idle_connections: how many wait in all.
        idle_per_target: how many wait for one target.
    """

    total_seconds: float = 30.0
    connect_seconds: float = 10.0
    connect_addresses: int = 4
    body_bytes: int = 64 * 1024
    idle_seconds: float = 30.0
    idle_connections: int = 512
    idle_per_target: int = 16


class TargetRefused(httpx.TransportError):
    """The outbound policy does not allow this call; nothing was connected."""


@dataclass(slots=True)
class _Progress:
    connected: bool = False


class WebhookTransport(httpx.AsyncBaseTransport):
    """An httpx transport that cannot be led astray.

    Every response has the extensions ``address`` (what was connected to), ``reused``, ``truncated`` and ``tls`` (None or such as
    ``TLSv1.3``). Its body is never decompressed: compressed, a small answer can be very large.
    """

    def __init__(
        self,
        resolve: Resolve,
        policy: OutboundPolicy,
        *,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take the resolver, the policy, the bounds, and what certificates are verified with.

        Args:
            resolve: asked once per call; caches are its own business.
            policy: what may be called.
            limits: the defaults where it is None.
            tls: the system's authorities where it is None; must verify certificates and host names.
        """
        self._resolve, self._policy = resolve, policy
        self._limits = limits if limits is not None else Limits()
        self._tls = tls if tls is not None else ssl.create_default_context()
        if self._tls.verify_mode != ssl.CERT_REQUIRED or not self._tls.check_hostname:
            message = "a transport for webhooks verifies certificates and host names"
            raise ValueError(message)
        self._pool = IdlePool(
            seconds=self._limits.idle_seconds,
            limit=self._limits.idle_connections,
            limit_per_key=self._limits.idle_per_target,
        )

    @property
    def idle(self) -> int:
        """How many connections wait for a next call."""
        return len(self._pool)

    async def aclose(self) -> None:
        """End all idle connections."""
        self._pool.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make one call.

        Raises:
            TargetRefused: by the outbound policy.
            httpx.ConnectError: the name has no address, or no address takes a connection, or TLS fails.
            httpx.ConnectTimeout: no connection in time.
            httpx.ReadTimeout: no complete answer in time.
            httpx.ReadError: the connection broke.
            httpx.RemoteProtocolError: the answer is no HTTP/1.1 or has no end.
        """
        seconds = float(request.extensions.get("deadline", self._limits.total_seconds))
        progress = _Progress()
        try:
            async with asyncio.timeout(seconds):
                return await self._call(request, progress)
        except TimeoutError:
            if progress.connected:
                raise httpx.ReadTimeout(f"no complete answer within {seconds:g} s", request=request) from None
            raise httpx.ConnectTimeout(f"no connection within {seconds:g} s", request=request) from None
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error), request=request) from error
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(f"the answer is no valid HTTP: {error}", request=request) from error
        except DroppedError as error:
            raise httpx.RemoteProtocolError("the connection was closed without an answer", request=request) from error
        except ConnectionError as error:
            raise httpx.ReadError(str(error), request=request) from error

    async def _call(self, request: httpx.Request, progress: _Progress) -> httpx.Response:
        body = await request.aread()
        head = _request_head(request)
        target = self._check_target(request)
        addresses = await self._addresses(target, request)
        keys = [Key(target.scheme, target.host, target.port, address) for address in addresses]
        taken = self._pool.take(keys)
        if taken is not None:
            progress.connected = True
            try:
                return await self._exchange(taken, head, body, reused=True)
            except DroppedError:
                # RFC 9112 9.3.1: the peer may close an idle connection at any time, also while we write to it. A webhook is
                # safe to send twice by its id, so once more, on a connection that cannot have idled.
                progress.connected = False
        fresh = await self._connect(keys, request)
        progress.connected = True
        return await self._exchange(fresh, head, body, reused=False)

    def _check_target(self, request: httpx.Request) -> Target:
        url = request.url
        port = url.port if url.port is not None else {"http": 80, "https": 443}.get(url.scheme, 0)
        try:
            return self._policy.check_target(url.scheme, url.raw_host.decode("ascii"), port)
        except ValidationFailed as error:
            raise TargetRefused(error.message, request=request) from None

    async def _addresses(self, target: Target, request: httpx.Request) -> list[str]:
        try:
            return [str(ipaddress.ip_address(target.host))]  # a literal, which check_target has judged
        except ValueError:
            pass
        try:
            found = list(dict.fromkeys(await self._resolve(target.host)))
        except (OSError, PosthouseError) as error:
            raise httpx.ConnectError(f"the name {target.host} cannot be resolved: {error}", request=request) from error
        if not found:
            raise httpx.ConnectError(f"the name {target.host} has no address", request=request)
        denied = self._policy.first_denied(found)
        if denied is not None:
            raise TargetRefused(
                f"{target.host} resolves to {denied.address}, which may not be called: {denied.reason}", request=request
            )
        return found

    async def _connect(self, keys: Sequence[Key], request: httpx.Request) -> tuple[Key, HttpConnection]:
        last: Exception | None = None
        for key in keys[: self._limits.connect_addresses]:
            encrypted = key.scheme == "https"
            try:
                async with asyncio.timeout(self._limits.connect_seconds):
                    _, connection = await asyncio.get_running_loop().create_connection(
                        HttpConnection,
                        key.address,
                        key.port,
                        ssl=self._tls if encrypted else None,
                        # RFC 6066 3: the name without a trailing dot; an address verifies as itself.
                        server_hostname=key.host.rstrip(".") if encrypted else None,
                    )
            except OSError as error:  # TimeoutError and ssl.SSLError are among them
                last = error
                continue
            return key, connection
        if isinstance(last, TimeoutError):
            raise httpx.ConnectTimeout(
                f"no connection within {self._limits.connect_seconds:g} s", request=request
            ) from last
        raise httpx.ConnectError(_connect_text(last), request=request) from last

    async def _exchange(
        self, taken: tuple[Key, HttpConnection], head: h11.Request, body: bytes, *, reused: bool
    ) -> httpx.Response:
        key, connection = taken
        again = False
        tls = connection.tls_version
        try:
            reply, again = await connection.exchange(head, body, body_limit=self._limits.body_bytes)
        finally:
            # After a timeout or a cancellation too: half an answer may still be on its way.
            if again:
                self._pool.give(key, connection)
            else:
                connection.abort()
        facts = {"address": key.address, "reused": reused, "truncated": reply.truncated, "tls": tls}
        return _response(reply, facts)


def _request_head(request: httpx.Request) -> h11.Request:
    headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"accept-encoding"]
    headers.append((b"Accept-Encoding", b"identity"))
    return h11.Request(method=request.method.encode(), target=request.url.raw_path, headers=headers)


def _response(reply: Reply, facts: dict[str, object]) -> httpx.Response:
    # Without Content-Encoding httpx leaves the body as it came; a peer may compress although it was told not to.
    headers = [(name, value) for name, value in reply.headers if name.lower() != b"content-encoding"]
    extensions = {"http_version": b"HTTP/1.1", "reason_phrase": reply.reason, **facts}
    return httpx.Response(reply.status, headers=headers, stream=httpx.ByteStream(reply.body), extensions=extensions)


def _connect_text(error: Exception | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'no handshake'}"
    if isinstance(error, OSError) and error.strerror:
        return f"no connection: {error.strerror}"
    return f"no connection: {type(error).__name__}"
