"""Settings that every service reads from the environment, prefix ``POSTHOUSE_``.

Each service's ``config.py`` extends :class:`ServiceSettings`; ``docs/settings.md`` is generated from the fields. A value
that is missing or wrong stops the process with one clear line (:class:`shared.errors.ConfigurationError`).
"""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import ConfigurationError

LOCAL_SECRET_HINT = "set POSTHOUSE_SECRET_KEY to at least 32 random characters, e.g. from `openssl rand -base64 32`"  # noqa: S105 - advice, not a secret


class ServiceSettings(BaseSettings):
    """What each of the four services needs to know."""

    model_config = SettingsConfigDict(env_prefix="POSTHOUSE_", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: str = Field(
        description="Postgres, as `postgresql://user:password@host:5432/name`; a Unix socket as `postgresql://user@/name?host=/folder`."
    )
    nats_url: str | None = Field(
        default=None,
        description="NATS, as `nats://token@host:4222`. Without it the services poll: everything works, up to a second slower.",
    )
    env: Literal["local", "production"] = Field(
        default="production",
        description="`local` simulates outcomes and allows private webhook targets; only the local stack sets it.",
    )
    secret_key: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="One or more secrets of at least 32 characters, separated by commas: the first seals and signs, all open. Rotate by putting a new one in front.",
    )
    hostname: str = Field(
        default="localhost",
        description="Our name in EHLO, greetings, Received and Message-ID; must resolve to this installation in production.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Recipients are logged at `debug` only."
    )
    grace_seconds: float = Field(
        default=30.0, ge=0, le=3600, description="Seconds that work in flight may take to finish after SIGTERM."
    )
    health_host: str = Field(
        default="0.0.0.0", description="Address that `/livez`, `/readyz` and `/metrics` listen on."
    )
    health_port: int = Field(
        default=8081, ge=0, le=65535, description="Port of `/livez`, `/readyz` and `/metrics`; 0 takes a free one."
    )
    database_pool: int = Field(default=8, ge=2, le=100, description="Postgres connections a process may hold.")
    startup_wait_seconds: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="How long a starting service waits for Postgres and the schema before it gives up.",
    )
    heartbeat_seconds: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="How often a worker says that it lives. It is declared dead after six beats missed; the same in every service.",
    )
    poll_seconds: float = Field(
        default=1.0, gt=0, le=60, description="How long an idle worker waits when no doorbell rings."
    )
    address_file: Path | None = Field(
        default=None,
        description="Set by the local stack: the file to write the health address to once the service listens.",
    )

    @model_validator(mode="before")
    @classmethod
    def _split_keys(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("secret_key"), str):
            data = {**data, "secret_key": tuple(part.strip() for part in data["secret_key"].split(",") if part.strip())}
        return data

    @model_validator(mode="after")
    def _keys_are_long_enough(self) -> Self:
        if not self.secret_key:
            message = f"POSTHOUSE_SECRET_KEY is missing: {LOCAL_SECRET_HINT}"
            raise ValueError(message)
        if any(len(key.get_secret_value()) < 32 for key in self.secret_key):
            message = f"POSTHOUSE_SECRET_KEY is too short: {LOCAL_SECRET_HINT}"
            raise ValueError(message)
        return self


S = TypeVar("S", bound=BaseSettings)


def load(settings: type[S]) -> S:
    """Read settings from the environment.

    Raises:
        ConfigurationError: names each variable that is missing or wrong, never its value.
    """
    try:
        return settings()
    except ValidationError as error:
        prefix = str(settings.model_config.get("env_prefix", ""))
        lines = []
        for item in error.errors(include_input=False, include_url=False):
            name = prefix + "_".join(str(part) for part in item["loc"]).upper()
            text = "is missing" if item["type"] == "missing" else item["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {text}" if item["loc"] else text)
        raise ConfigurationError("; ".join(lines)) from None
