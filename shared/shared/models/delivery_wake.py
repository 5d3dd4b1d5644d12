"""Wake-up notes of deliveries."""

from typing import Any, ClassVar

from sqlmodel import Field, SQLModel

from shared.models import columns


class DeliveryWake(SQLModel, table=True):
    """Says that deliveries of a lane became claimable; only ever inserted, so that accepting waits for nobody, and folded into lane and site by claimers."""

    __tablename__ = "delivery_wake"
    __mapper_args__: ClassVar[dict[str, Any]] = {"primary_key": ["lane_id"]}

    lane_id: int = Field(sa_column=columns.big())
