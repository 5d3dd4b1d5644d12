"""Settings of the api service."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from shared.security.outbound import Network
from shared.security.targets import WebhookTargetSettings, parts
from shared.security.targets import port as read_port


class Settings(WebhookTargetSettings):
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
        description="`host:port` that mail is sent through which no route is about, instead of to the MX hosts of the recipients. Give api and delivery the same value.",
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
    max_headers: int = Field(
        default=100, ge=0, le=1_000, description="Header fields of its own that one message brings along at most."
    )
    max_header_bytes: int = Field(
        default=64 * 1024,
        ge=0,
        le=1024**2,
        description="Octets of these at most, names and values together; also of the references of a message.",
    )
    max_files: int = Field(default=100, ge=0, le=1_000, description="Files of one message at most, of every kind.")
    max_extra_keys: int = Field(default=100, ge=0, le=10_000, description="Keys in `extra` of one message at most.")
    max_extra_bytes: int = Field(
        default=64 * 1024, ge=0, le=1024**2, description="Octets of keys and values in `extra` at most."
    )
    max_tags: int = Field(default=20, ge=0, le=1_000, description="Tags of one message at most.")
    max_tag_characters: int = Field(default=64, ge=1, le=500, description="Characters of a tag at most.")
    request_budget_bytes: int = Field(
        default=96 * 1024 * 1024,
        ge=1024,
        description="Bytes of request bodies that a process holds at once; beyond it requests are answered with 503.",
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Networks of reverse proxies whose X-Forwarded-For is believed, separated by commas. Failed logins are logged and counted by it.",
    )
    submission_host: str = Field(default="0.0.0.0", description="Address that SMTP submission listens on.")
    submission_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of SMTP submission with STARTTLS, 587 as a rule; 0 takes a free one; without it there is none. Needs a certificate.",
    )
    submissions_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of SMTP submission over implicit TLS, 465 as a rule; 0 takes a free one; without it there is none. Needs a certificate.",
    )
    submission_sessions: int = Field(
        default=500, ge=1, le=10_000, description="SMTP sessions at once on each of the two ports."
    )
    submission_sessions_per_ip: int = Field(
        default=50,
        ge=1,
        le=10_000,
        description="SMTP sessions at once from one address on each of the two ports; without meaning in the local stack.",
    )
    tls_cert_file: Path | None = Field(
        default=None,
        description="PEM certificate chain of SMTP submission; goes with POSTHOUSE_TLS_KEY_FILE. Reread when it changes.",
    )
    tls_key_file: Path | None = Field(default=None, description="PEM private key of POSTHOUSE_TLS_CERT_FILE.")
    dns_servers: str | None = Field(
        default=None, description="`address:port` of resolvers, separated by commas; the system's without it."
    )

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _proxies(cls, value: object) -> object:
        return tuple(ip_network(part, strict=False) for part in parts(value)) if isinstance(value, str) else value

    @field_validator("relay")
    @classmethod
    def _relay_has_a_port(cls, value: str | None) -> str | None:
        if not value:
            return None
        host, _, port = value.rpartition(":")
        if not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
            message = "is written host:port; an IPv6 address stands in brackets"
            raise ValueError(message)
        read_port(port)
        return value
