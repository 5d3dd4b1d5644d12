from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from posthouse.docs import document


class Common(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="POSTHOUSE_")

    database_url: str = Field(description="Where Postgres is.")
    keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(default=(), description="Secrets.")
    level: Literal["info", "debug"] = Field(default="info", description="One | of two.")
    grace: float = Field(default=30.0, ge=0, le=3600, description="Seconds.")


class Extended(Common):
    port: int = Field(default=25, gt=0, lt=65536, description="Port.")
    file: Path | None = Field(default=None, description="File.")
    shared: bool = Field(default=False, description="Shared.")
    ports: Annotated[frozenset[int] | None, NoDecode] = Field(default=frozenset({443, 80}), description="Ports.")
    grace: float = Field(default=5.0, ge=0, le=3600, description="Seconds.")


def rows(page: str, section: str) -> list[str]:
    return [
        line for line in page.partition(f"## {section}\n")[2].split("\n## ")[0].splitlines() if line.startswith("| `")
    ]


def test_every_setting_has_its_row() -> None:
    assert rows(document(Common, []), "All services") == [
        "| `POSTHOUSE_DATABASE_URL` | text | **required** | Where Postgres is. |",
        "| `POSTHOUSE_KEYS` | secret, several by commas | **required** | Secrets. |",
        "| `POSTHOUSE_LEVEL` | `info`, `debug` | `info` | One \\| of two. |",
        "| `POSTHOUSE_GRACE` | number from 0 up to 3600 | `30` | Seconds. |",
    ]


def test_a_service_has_what_it_adds_and_what_it_changes() -> None:
    assert rows(document(Common, [("demo", Extended)]), "demo") == [
        "| `POSTHOUSE_GRACE` | number from 0 up to 3600 | `5` | Seconds. |",
        "| `POSTHOUSE_PORT` | whole number above 0 below 65536 | `25` | Port. |",
        "| `POSTHOUSE_FILE` | path | none | File. |",
        "| `POSTHOUSE_SHARED` | true or false | `false` | Shared. |",
        "| `POSTHOUSE_PORTS` | whole number, several by commas | `80,443` | Ports. |",
    ]


def test_a_service_without_settings_of_its_own_says_so() -> None:
    assert "Nothing beyond" in document(Common, [("demo", Common)])


def test_a_setting_without_a_description_is_an_error() -> None:
    class Silent(BaseSettings):
        mystery: int = 1

    with pytest.raises(ValueError, match="mystery has no description"):
        document(Silent, [])
