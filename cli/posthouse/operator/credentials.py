"""``posthouse key``, ``posthouse login`` and ``posthouse operator-key``."""

from collections.abc import Iterator
from typing import Annotated

import typer

from posthouse.operator.command import AccountArgument, LimitOption, Operator, command, given, new_group, read_password

_KEYS = {
    "id": "id",
    "key id": "key_id",
    "name": "name",
    "from_ids": "uses_from_ids",
    "test": "test",
    "created": "created_at",
    "expires": "expires_at",
    "revoked": "revoked_at",
}
_LOGINS = {
    "id": "id",
    "login": "login",
    "from_ids": "uses_from_ids",
    "created": "created_at",
    "revoked": "revoked_at",
}
_OPERATOR_KEYS = {heading: field for heading, field in _KEYS.items() if field not in {"uses_from_ids", "test"}}
_BEARER = "Send it as the header Authorization: Bearer <key>."

NameOption = Annotated[str | None, typer.Option(help="What to call it.")]
ExpiresOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="When it stops to work, e.g. 2030-01-01T00:00:00Z; never, without it."),
]
FromIdsOption = Annotated[
    bool,
    typer.Option("--from-ids/--no-from-ids", help="Give each delivery a token in its return path, for reports."),
]
KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="The key's id, or its part of 12 characters between underscores.")
]

key = new_group("key", "API keys of an account.")
login = new_group("login", "Logins of an account: an address and a password.")
operator_key = new_group("operator-key", "Keys of operators, such as the one that you use here.")


def groups() -> Iterator[typer.Typer]:
    """Return the groups of this module."""
    yield from (key, login, operator_key)


@command(key, "create")
def create_key(
    operator: Operator,
    account: AccountArgument,
    *,
    name: NameOption = None,
    from_ids: FromIdsOption = True,
    test: Annotated[
        bool, typer.Option("--test", help="A sandbox key: outcomes are simulated, nothing is sent.")
    ] = False,
    expires_at: ExpiresOption = None,
) -> None:
    """Create an API key of an account, and show it this once."""
    new = given(name=name, uses_from_ids=from_ids, test=test, expires_at=expires_at)
    made = operator.client.post(f"{operator.account(account)}/keys", new)
    operator.output.secret(made, "key", f"API key {made.get('id')} of account {account}:", _BEARER)


@command(key, "list")
def list_keys(operator: Operator, account: AccountArgument, limit: LimitOption = 1000) -> None:
    """List the API keys of an account, the oldest first, revoked ones too."""
    listing = operator.client.listed(f"{operator.account(account)}/keys", limit)
    operator.output.items(listing, _KEYS, "the account has no API keys yet")


@command(key, "revoke")
def revoke_key(operator: Operator, account: AccountArgument, key: KeyArgument) -> None:
    """Make an API key useless from now on."""
    path = f"{operator.account(account)}/keys"
    found = operator.find(path, key, ("key_id",), "API key")
    operator.client.delete(f"{path}/{found}")
    operator.output.done(f"API key {found} is revoked", {"id": found, "revoked": True})


@command(login, "create")
def create_login(
    operator: Operator,
    account: AccountArgument,
    login: Annotated[str, typer.Argument(help="An address at a verified domain of the account.")],
    *,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input; a new one without it.")
    ] = False,
    from_ids: FromIdsOption = True,
) -> None:
    """Create a login of an account, and show its password this once."""
    password = read_password() if password_stdin else None
    new = given(login=login, password=password, uses_from_ids=from_ids)
    made = operator.client.post(f"{operator.account(account)}/logins", new)
    sentence = f"Login {made.get('id')} of account {account}: {made.get('login')}, with the password"
    if password is not None:
        made.pop("password", None)  # who gave it has it
        operator.output.done(sentence + " that was given", made)
        return
    operator.output.secret(made, "password", sentence, "Use both for HTTP Basic authentication.")


@command(login, "list")
def list_logins(operator: Operator, account: AccountArgument, limit: LimitOption = 1000) -> None:
    """List the logins of an account, the oldest first, revoked ones too."""
    listing = operator.client.listed(f"{operator.account(account)}/logins", limit)
    operator.output.items(listing, _LOGINS, "the account has no logins yet")


@command(login, "revoke")
def revoke_login(
    operator: Operator,
    account: AccountArgument,
    login: Annotated[str, typer.Argument(help="The login, or its id.")],
) -> None:
    """Make a login useless from now on."""
    path = f"{operator.account(account)}/logins"
    found = operator.find(path, login, ("login",), "login")
    operator.client.delete(f"{path}/{found}")
    operator.output.done(f"login {found} is revoked", {"id": found, "revoked": True})


@command(operator_key, "create")
def create_operator_key(operator: Operator, name: NameOption = None, expires_at: ExpiresOption = None) -> None:
    """Create a key of an operator, and show it this once."""
    made = operator.client.post("/v1/operator-keys", given(name=name, expires_at=expires_at))
    operator.output.secret(made, "key", f"Operator's key {made.get('id')}:", _BEARER)


@command(operator_key, "list")
def list_operator_keys(operator: Operator, limit: LimitOption = 1000) -> None:
    """List the operators' keys, the oldest first, revoked ones too."""
    listing = operator.client.listed("/v1/operator-keys", limit)
    operator.output.items(listing, _OPERATOR_KEYS, "there are no operators' keys yet")


@command(operator_key, "revoke")
def revoke_operator_key(operator: Operator, key: KeyArgument) -> None:
    """Make a key of an operator useless from now on; not the one that you use here."""
    found = operator.find("/v1/operator-keys", key, ("key_id",), "operator's key")
    operator.client.delete(f"/v1/operator-keys/{found}")
    operator.output.done(f"operator's key {found} is revoked", {"id": found, "revoked": True})
