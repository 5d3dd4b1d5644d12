"""Wake-up notes of calls."""

from typing import Any, ClassVar

from sqlmodel import Field, SQLModel

from shared.models import columns


class CallWake(SQLModel, table=True):
    """Says that calls of a lane became claimable; only ever inserted, so that accepting waits for nobody, and folded into lane and site by claimers."""

    __tablename__ = "call_wake"
    __mapper_args__: ClassVar[dict[str, Any]] = {"primary_key": ["lane_id"]}

    lane_id: int = Field(sa_column=columns.big())
