"""How sessions with a site are opened: what its transport says of TLS, login, proxy and our name."""

import ssl
from dataclasses import dataclass, field

import structlog

from delivery.route import NoRoute
from delivery.smtp import Login, Proxy, TlsMode, opportunistic_context, verifying_context
from shared.db.lanes import SiteName
from shared.db.routing import Routing, Transport
from shared.errors import SecretUnreadable
from shared.events import Category
from shared.security.keys import KeyRing

_HIDING = ("SCRAM-SHA-256", "CRAM-MD5")
"""Mechanisms that do not show the password; the others have to be named by the operator where TLS proves nothing."""
_ALL = (*_HIDING, "PLAIN", "LOGIN")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Way:
    """All that makes one session with a site as good as another."""

    site: SiteName
    transport: Transport | None = None

    @property
    def proves_tls(self) -> bool:
        """Whether a session stands only with a certificate that was verified."""
        return self.transport is not None and (self.transport.kind == "submissions" or self.transport.tls == "verified")


@dataclass(frozen=True, slots=True)
class Opening:
    """What a session is opened with."""

    tls: TlsMode
    context: ssl.SSLContext | None
    ehlo_name: str
    login: Login | None = None
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True)
class Contexts:
    """TLS, made once."""

    opportunistic: ssl.SSLContext = field(default_factory=opportunistic_context)
    verifying: ssl.SSLContext = field(default_factory=verifying_context)


class Ways:
    """Finds ways.

    Args:
        routing: knows the transports.
        ring: opens their passwords.
        ehlo_name: our name, where a transport gives us no other.
        contexts: for TLS.
    """

    def __init__(self, routing: Routing, ring: KeyRing, ehlo_name: str, contexts: Contexts | None = None) -> None:
        self._routing = routing
        self._ring = ring
        self._ehlo_name = ehlo_name
        self._contexts = contexts or Contexts()

    def to(self, site: SiteName) -> Way:
        """Return the way to a site, as the transports are that this process knows of.

        Raises:
            NoRoute: its transport is not there, for now; or it refuses mail.
        """
        if site.kind not in {"transport", "via"}:
            return Way(site)
        name = site.name.partition(":")[0]
        transport = self._routing.table.transports.get(name)
        if transport is None or transport.by_domain != (site.kind == "via"):
            raise NoRoute(f"there is no transport {name}: create it, or change the routes that name it")
        if transport.kind == "fail":
            enhanced = f"{transport.code // 100}.7.0"
            raise NoRoute(transport.text, code=transport.code, enhanced=enhanced, category=Category.POLICY)
        return Way(site, transport)

    def opening(self, way: Way) -> Opening:
        """Return what its sessions are opened with.

        Raises:
            NoRoute: the password cannot be read, for now.
        """
        transport = way.transport
        if transport is None:
            return Opening(TlsMode.OPPORTUNISTIC, self._contexts.opportunistic, self._ehlo_name)
        try:
            password = transport.password(self._ring) or ""
        except SecretUnreadable as error:
            _log.error("transport_password_unreadable", transport=transport.name, problem=error.code)
            raise NoRoute(f"the password of the transport {transport.name} cannot be read; set it again") from None
        if transport.kind == "socks":
            proxy = Proxy(transport.host, transport.port, transport.username, password)
            name = transport.ehlo_name or self._ehlo_name
            return Opening(TlsMode.OPPORTUNISTIC, self._contexts.opportunistic, name, proxy=proxy)
        if transport.kind == "direct":
            return Opening(TlsMode.OPPORTUNISTIC, self._contexts.opportunistic, self._ehlo_name)
        mode, context = self._tls(transport)
        return Opening(mode, context, self._ehlo_name, _login(way, transport, password))

    def _tls(self, transport: Transport) -> tuple[TlsMode, ssl.SSLContext | None]:
        if transport.kind == "submissions":
            return TlsMode.IMPLICIT, self._contexts.verifying  # RFC 8314 3.3
        match transport.tls:
            case "none":
                return TlsMode.NONE, None
            case "unverified":
                return TlsMode.REQUIRED, self._contexts.opportunistic
            case _:
                return TlsMode.REQUIRED, self._contexts.verifying


def _login(way: Way, transport: Transport, password: str) -> Login | None:
    if transport.username is None:
        return None
    mechanisms = transport.mechanisms or (_ALL if way.proves_tls else _HIDING)
    return Login(transport.username, password, mechanisms, without_tls=transport.tls == "none")
