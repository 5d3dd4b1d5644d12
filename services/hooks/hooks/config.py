"""Settings of the hooks service."""

from pydantic import Field

from shared.security.targets import WebhookTargetSettings


class Settings(WebhookTargetSettings):
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
    hooks_loss_delay_seconds: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="A call whose worker died in mid-attempt is tried again after this, times its losses.",
    )
