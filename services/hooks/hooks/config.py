"""Settings of the hooks service."""

import ipaddress
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from shared.config import ServiceSettings
from shared.security.outbound import DEFAULT_PORTS, Network, OutboundPolicy


class Settings(ServiceSettings):
    """What hooks needs beyond the common settings."""

    hooks_in_flight: int = Field(default=64, ge=1, le=2000, description="Webhook calls a hooks process has in flight.")
    hooks_per_endpoint: int = Field(
        default=8,
        ge=1,
        le=100,
        description="Calls in flight for one endpoint and slot, at most a quarter of the process. An endpoint has two slots among all processes.",
    )
    hooks_timeout_seconds: float = Field(
        default=30.0, ge=1, le=60, description="From the first step of a call to the last byte of its answer."
    )
    hooks_allow_private: bool = Field(
        default=False,
        description="Call private and loopback addresses, and any port. Only for `local`; in production open networks by name.",
    )
    hooks_allowed_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Networks that may be called although they are not public, as `10.1.0.0/16`, separated by commas.",
    )
    hooks_allowed_ports: Annotated[frozenset[int] | None, NoDecode] = Field(
        default=DEFAULT_PORTS, description="Ports that may be called, separated by commas, or `any`."
    )
    hooks_loss_delay_seconds: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="A call whose worker died in mid-attempt is tried again after this, times its losses.",
    )

    @field_validator("hooks_allowed_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip())

    @field_validator("hooks_allowed_ports", mode="before")
    @classmethod
    def _ports(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.strip().lower() == "any":
            return None
        ports = frozenset(int(part) for part in value.split(",") if part.strip())
        if not ports or any(not 1 <= port <= 65535 for port in ports):
            message = "ports are numbers from 1 to 65535, separated by commas, or `any`"
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
        """What calls may be made to."""
        return OutboundPolicy(
            allow_private=self.hooks_allow_private,
            allowed_networks=self.hooks_allowed_networks,
            allowed_ports=None if self.hooks_allow_private else self.hooks_allowed_ports,
        )
