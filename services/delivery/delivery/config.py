"""Settings of the delivery service."""

from pydantic import Field

from shared.config import ServiceSettings


class Settings(ServiceSettings):
    """What delivery needs beyond the common settings."""

    relay: str | None = Field(
        default=None,
        description="`host:port` that mail is sent through which no route is about, instead of to the MX hosts of the recipients. Give api and delivery the same value.",
    )
    delivery_sessions: int = Field(
        default=50, ge=1, le=1000, description="SMTP sessions a delivery process holds at once."
    )
    delivery_recipients: int = Field(
        default=50, ge=1, le=1000, description="Recipients of one message that share an SMTP transaction, at most."
    )
    delivery_smtp_port: int = Field(
        default=25, ge=1, le=65535, description="Port of the MX hosts; only tests need another."
    )
    delivery_source_ip: str | None = Field(
        default=None, description="Local address that SMTP connections are made from; the system chooses without it."
    )
    delivery_timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        description="One limit for every SMTP phase. Without it the times of RFC 5321 4.5.3.2 hold; the local stack uses 30.",
    )
    delivery_idle_seconds: float = Field(
        default=5.0,
        ge=0,
        le=240,
        description="How long an SMTP session without mail waits for the next mail to its site, at most one for each site; 0: not at all.",
    )
    delivery_backoff_seconds: float = Field(
        default=15.0,
        gt=0,
        le=3600,
        description="How long a site is left alone that no connection can be had with; doubled each time, up to 15 minutes.",
    )
    delivery_body_budget: int = Field(
        default=96 * 1024 * 1024,
        ge=1024 * 1024,
        description="Bytes of message bodies a process holds in memory at once.",
    )
    delivery_loss_delay_seconds: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="A mail whose worker died in mid-attempt is tried again after this, times its losses.",
    )
    dns_servers: str | None = Field(
        default=None, description="`address:port` of resolvers, separated by commas; the system's without it."
    )
    delivery_allow_private: bool = Field(
        default=False,
        description="Whether MX hosts may have private or loopback addresses. Relays may always; the local stack sets it.",
    )
