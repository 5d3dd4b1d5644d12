"""Settings of the dsn-ingest service."""

from pathlib import Path

from pydantic import Field

from shared.config import ServiceSettings


class Settings(ServiceSettings):
    """What dsn-ingest needs beyond the common settings."""

    dsn_ingest_host: str = Field(default="0.0.0.0", description="Address that mail is received on.")
    dsn_ingest_port: int = Field(
        default=25, ge=0, le=65535, description="Port that mail is received on; 0 takes a free one."
    )
    dsn_ingest_reuse_port: bool = Field(
        default=False,
        description="Let several dsn-ingest processes of one machine listen on the same port (SO_REUSEPORT).",
    )
    dsn_ingest_max_message_bytes: int = Field(
        default=50 * 1024 * 1024, ge=64 * 1024, description="Largest message that is received, announced as SIZE."
    )
    dsn_ingest_sessions: int = Field(default=500, ge=1, le=10_000, description="SMTP sessions at once.")
    dsn_ingest_sessions_per_ip: int = Field(
        default=50, ge=1, le=10_000, description="SMTP sessions at once from one address."
    )
    tls_cert_file: Path | None = Field(
        default=None,
        description="PEM certificate chain; with POSTHOUSE_TLS_KEY_FILE STARTTLS is offered. Reread when it changes.",
    )
    tls_key_file: Path | None = Field(default=None, description="PEM private key of POSTHOUSE_TLS_CERT_FILE.")
