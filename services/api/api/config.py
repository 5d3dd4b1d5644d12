"""Settings of the api service."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from shared.config import ServiceSettings
from shared.security.outbound import DEFAULT_PORTS, OutboundPolicy

Network = IPv4Network | IPv6Network


class Settings(ServiceSettings):
    """What the api needs beyond the common settings."""

    api_host: str = Field(default="0.0.0.0", description="Address that the public HTTP interface listens on.")
    api_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of the public HTTP interface; 0 takes a free one."
    )
    api_reuse_port: bool = Field(
        default=False, description="Let several api processes of one machine share the port (SO_REUSEPORT)."
    )
    relay: str | None = Field(
        default=None,
        description="`host:port` that all mail is sent through, instead of the MX hosts of the recipients. Give api and delivery the same value.",
    )
    max_message_bytes: int = Field(
        default=50 * 1024 * 1024, ge=1024, le=1024**3, description="Octets of a composed message at most."
    )
    max_request_bytes: int = Field(
        default=70 * 1024 * 1024,
        ge=1024,
        le=2 * 1024**3,
        description="Bytes of an HTTP request's body at most; files in it are a third larger than in themselves (base64).",
    )
    max_recipients: int = Field(
        default=1000, ge=1, le=100_000, description="Recipients of one message at most, in To, Cc and Bcc together."
    )
    request_budget_bytes: int = Field(
        default=96 * 1024 * 1024,
        ge=1024,
        description="Bytes of request bodies that a process holds at once; beyond it requests are answered with 503.",
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Networks of reverse proxies whose X-Forwarded-For is believed, separated by commas. Used in the log of failed logins.",
    )
    dns_servers: str | None = Field(
        default=None, description="`address:port` of resolvers, separated by commas; the system's without it."
    )
    hooks_allow_private: bool | None = Field(
        default=None,
        description="Whether webhook URLs may lead into private networks and to any port; without it only in the local stack. Give api and hooks the same value.",
    )
    hooks_allowed_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Networks that webhooks may call although they are not public, separated by commas. Give api and hooks the same value.",
    )
    hooks_allowed_ports: Annotated[frozenset[int] | None, NoDecode] = Field(
        default=DEFAULT_PORTS,
        description="Ports that webhooks may call, separated by commas, or `any`. Give api and hooks the same value.",
    )

    @field_validator("trusted_proxies", "hooks_allowed_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        return tuple(ip_network(part, strict=False) for part in _parts(value)) if isinstance(value, str) else value

    @field_validator("hooks_allowed_ports", mode="before")
    @classmethod
    def _ports(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return None if value.strip().lower() == "any" else frozenset(_port(part) for part in _parts(value))

    @field_validator("relay")
    @classmethod
    def _relay_has_a_port(cls, value: str | None) -> str | None:
        if not value:
            return None
        host, _, port = value.rpartition(":")
        if not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
            message = "is written host:port; an IPv6 address stands in brackets"
            raise ValueError(message)
        _port(port)
        return value

    def outbound_policy(self) -> OutboundPolicy:
        """Return what the hooks service will call, so that a URL it never would is refused when it is registered."""
        private = self.env == "local" if self.hooks_allow_private is None else self.hooks_allow_private
        return OutboundPolicy(
            allow_private=private,
            allowed_networks=self.hooks_allowed_networks,
            allowed_ports=None if private else self.hooks_allowed_ports,
        )


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 65536:
        message = f"{text!r} is no port: a number from 1 to 65535"
        raise ValueError(message)
    return int(text)
