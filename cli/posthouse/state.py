"""What the local stack keeps in its data folder: secrets across restarts, and ``local.json`` while it runs."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from shared.errors import ConfigurationError
from shared.security.webhook_signing import new_secret


@dataclass(frozen=True, slots=True)
class Kept:
    """Secrets that a restart finds again. Without ``secret_key`` the database's sealed values cannot be read."""

    secret_key: str = field(repr=False)
    password: str = field(repr=False)
    """The generated one, for stacks that others can reach."""
    webhook_secret: str = field(repr=False)
    account_key: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)

    def with_keys(self, account_key: str, admin_key: str) -> "Kept":
        """Return a copy with these API keys."""
        return replace(self, account_key=account_key, admin_key=admin_key)


class DataFolder:
    """The files of a stack that are not a server's own."""

    def __init__(self, folder: Path) -> None:
        """Take the folder's absolute path."""
        self.folder = folder
        self.logs = folder / "logs"
        self.run = folder / "run"
        self._secrets = folder / "secrets.json"
        self._announcement = folder / "local.json"

    def prepare(self) -> None:
        """Make the folders, mode 0700.

        Raises:
            ConfigurationError: the folder cannot be used.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            for folder in (self.logs, self.run):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"cannot use {self.folder} as the data folder: {error.strerror or error}; choose another with --data-dir"
            ) from None

    def secrets(self) -> Kept:
        """Return the kept secrets, new ones where there are none.

        Raises:
            ConfigurationError: the file is damaged.
        """
        try:
            text = self._secrets.read_text()
        except FileNotFoundError:
            kept = Kept(secrets.token_urlsafe(32), secrets.token_urlsafe(15), new_secret())
            self.keep(kept)
            return kept
        try:
            content = json.loads(text)
            names = [item.name for item in fields(Kept)]
            values = {name: content[name] for name in names}
        except (ValueError, TypeError, KeyError):
            values = {}
        optional = {"account_key", "admin_key"}
        if not values or not all(isinstance(v, str) or (v is None and n in optional) for n, v in values.items()):
            raise ConfigurationError(
                f"{self._secrets} is damaged: restore it from a backup, or start anew with another --data-dir (the database's "
                "sealed values cannot be read without it)"
            )
        return Kept(**values)

    def keep(self, kept: Kept) -> None:
        """Write the secrets, mode 0600, safely on disk when this returns."""
        _write(self._secrets, asdict(kept))

    def announce(self, document: dict[str, object]) -> None:
        """Write ``local.json`` in one move, mode 0600."""
        _write(self._announcement, document)

    def withdraw(self) -> None:
        """Remove ``local.json``."""
        self._announcement.unlink(missing_ok=True)

    @property
    def announcement(self) -> Path:
        """The path of ``local.json``."""
        return self._announcement


def _write(path: Path, document: dict[str, object]) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    # O_EXCL with the mode at creation: the secrets are at no moment readable by others.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
