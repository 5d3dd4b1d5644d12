"""Path and query parameters that many routes share."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from api.schemas.base import Text
from shared.db.inputs import LARGEST_PAGE

ID_PATTERN = r"^[0-9]{1,19}$"

Id = Annotated[str, Path(pattern=ID_PATTERN, description="The id, as it was answered.", examples=["770"])]
AccountId = Annotated[str, Path(pattern=ID_PATTERN, description="The id of the account.", examples=["1"])]


class Paging(BaseModel):
    """Where in a list to begin. Other parameters are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cursor: Text | None = Field(
        default=None, max_length=200, description="`next_cursor` of the page before; the first page, without it."
    )
    limit: int = Field(default=50, ge=1, le=LARGEST_PAGE, description="How many at most.")


InPages = Annotated[Paging, Query()]
