"""Tables."""

from sqlmodel import SQLModel

metadata = SQLModel.metadata
