"""API keys and logins."""

from typing import Any

from pydantic import Field

from api.schemas.base import Input, Moment, Output, PageOf, Text, Time, example
from shared.models import Credential as Row

_KEY: dict[str, object] = {
    "id": "7",
    "key_id": "mzxw6ytboi2g",
    "name": "web shop",
    "uses_from_ids": True,
    "test": False,
    "created_at": "2026-11-20T13:00:00.000000Z",
    "expires_at": None,
    "revoked_at": None,
}
_WHOLE_KEY = "ph_mzxw6ytboi2g_q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA"
_LOGIN: dict[str, object] = {
    "id": "8",
    "login": "ada@example.com",
    "uses_from_ids": True,
    "created_at": "2026-11-20T13:00:00.000000Z",
    "revoked_at": None,
}


class NewApiKey(Input):
    """An API key to make."""

    model_config = example({"name": "web shop"})

    name: Text = Field(default="", max_length=200)
    uses_from_ids: bool = Field(
        default=True, description="Whether each delivery gets a token in its return path, by which reports find it."
    )
    test: bool = Field(
        default=False,
        description="Whether it is a sandbox key, which begins with `ph_test_`: what is handed in with it is checked, stored and told like any other mail, its outcome is simulated, and nothing is sent.",
    )
    expires_at: Moment | None = Field(default=None, description="When it stops to work; never, without it.")


class NewOperatorKey(Input):
    """An operator's API key to make."""

    model_config = example({"name": "Charles"})

    name: Text = Field(default="", max_length=200)
    expires_at: Moment | None = Field(default=None, description="When it stops to work; never, without it.")


class ApiKey(Output):
    """An API key, without its secret."""

    model_config = example(_KEY)

    id: str
    key_id: str = Field(description="The part of the key of 12 characters between underscores; no secret.")
    name: str
    uses_from_ids: bool
    test: bool = Field(description="Whether it is a sandbox key.")
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None

    @classmethod
    def of(cls, row: Row) -> "ApiKey":
        """Show a key."""
        return cls(**_fields(row))


class ApiKeyWithSecret(ApiKey):
    """A new API key, which is shown this once."""

    model_config = example({**_KEY, "key": _WHOLE_KEY})

    key: str = Field(description="Send it as `Authorization: Bearer <key>`. It cannot be shown again.")

    @classmethod
    def with_key(cls, row: Row, key: str) -> "ApiKeyWithSecret":
        """Show a key and its secret."""
        return cls(**_fields(row), key=key)


def _fields(row: Row) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "key_id": row.public_id,
        "name": row.name,
        "uses_from_ids": row.uses_from_ids,
        "test": row.is_test,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }


class ApiKeyPage(PageOf[ApiKey]):
    """API keys, the oldest first, revoked ones too."""

    model_config = example({"data": [_KEY], "next_cursor": None})


class NewLogin(Input):
    """A login to make."""

    model_config = example({"login": "ada@example.com"})

    login: Text = Field(description="An address at a verified domain of the account.")
    password: Text | None = Field(default=None, description="A new one is made where it is missing.")
    uses_from_ids: bool = Field(
        default=True, description="Whether each delivery gets a token in its return path, by which reports find it."
    )


class Login(Output):
    """A login, without its password."""

    model_config = example(_LOGIN)

    id: str
    login: str
    uses_from_ids: bool
    created_at: Time
    revoked_at: Time | None

    @classmethod
    def of(cls, row: Row) -> "Login":
        """Show a login."""
        return cls(**_login_fields(row))


class LoginWithPassword(Login):
    """A new login with its password, which is shown this once."""

    model_config = example({**_LOGIN, "password": "7Jc2-4kQm-x1Zs-Yp0d"})

    password: str

    @classmethod
    def with_password(cls, row: Row, password: str) -> "LoginWithPassword":
        """Show a login and its password."""
        return cls(**_login_fields(row), password=password)


def _login_fields(row: Row) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "login": row.public_id,
        "uses_from_ids": row.uses_from_ids,
        "created_at": row.created_at,
        "revoked_at": row.revoked_at,
    }


class LoginPage(PageOf[Login]):
    """Logins, the oldest first, revoked ones too."""

    model_config = example({"data": [_LOGIN], "next_cursor": None})
