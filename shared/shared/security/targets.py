"""Where webhooks may go: one set of settings for the api, which takes URLs, and hooks, which calls them."""

from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from shared.config import ServiceSettings
from shared.security.outbound import DEFAULT_PORTS, Network, OutboundPolicy


class WebhookTargetSettings(ServiceSettings):
    """What api and hooks must agree on: give both the same values."""

    hooks_allow_private: bool = Field(
        default=False,
        description="Webhooks may go to private and loopback addresses and to any port. Only for `local`; in production open networks by name.",
    )
    hooks_allowed_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Networks that webhooks may go to although they are not public, as `10.1.0.0/16`, separated by commas.",
    )
    hooks_allowed_ports: Annotated[frozenset[int] | None, NoDecode] = Field(
        default=DEFAULT_PORTS, description="Ports that webhooks may go to, separated by commas, or `any`."
    )

    @field_validator("hooks_allowed_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        return tuple(ip_network(part) for part in parts(value)) if isinstance(value, str) else value

    @field_validator("hooks_allowed_ports", mode="before")
    @classmethod
    def _ports(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.strip().lower() == "any":
            return None
        ports = frozenset(port(part) for part in parts(value))
        if not ports:
            message = "names no port: write ports separated by commas, or `any`"
            raise ValueError(message)
        return ports

    @model_validator(mode="after")
    def _private_only_locally(self) -> Self:
        if self.hooks_allow_private and self.env != "local":
            message = "POSTHOUSE_HOOKS_ALLOW_PRIVATE is for the local stack; open networks with POSTHOUSE_HOOKS_ALLOWED_NETWORKS"
            raise ValueError(message)
        return self

    @property
    def outbound_policy(self) -> OutboundPolicy:
        """What webhooks may call."""
        return OutboundPolicy(
            allow_private=self.hooks_allow_private,
            allowed_networks=self.hooks_allowed_networks,
            allowed_ports=None if self.hooks_allow_private else self.hooks_allowed_ports,
        )


def parts(value: str) -> list[str]:
    """Return the parts of a list written with commas."""
    return [part.strip() for part in value.split(",") if part.strip()]


def port(text: str) -> int:
    """Read a port number.

    Raises:
        ValueError: it is none.
    """
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 65536:
        message = f"{text!r} is no port: a number from 1 to 65535"
        raise ValueError(message)
    return int(text)
