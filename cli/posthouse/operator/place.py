"""Which installation the operator commands talk to, and with which key."""

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from shared.errors import ConfigurationError

URL_VARIABLE, KEY_VARIABLE = "POSTHOUSE_URL", "POSTHOUSE_KEY"
_LARGEST_ANNOUNCEMENT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """An installation's REST interface."""

    url: str
    """Base URL without a slash at its end; ``/v1`` follows it."""
    key: str = field(repr=False)

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, so that no proxy and no wire lies between."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def is_exposed(self) -> bool:
        """Whether the key travels where others can read it."""
        return self.url.startswith("http://") and not self.is_loopback


def find_place(
    url: str | None, key: str | None, local: Path | None, environment: Mapping[str, str] = os.environ
) -> Place:
    """Return where to go: what was given, else the environment's.

    Args:
        url: base URL.
        key: operator's key.
        local: data folder of a running ``posthouse local``; instead of both.
        environment: has ``POSTHOUSE_URL`` and ``POSTHOUSE_KEY``.

    Raises:
        ConfigurationError: something is missing or unusable; says what to give.
    """
    if local is not None:
        if url is not None or key is not None:
            raise ConfigurationError("--local brings URL and key along: leave out --url and --key")
        return _announced(local)
    url = url if url is not None else environment.get(URL_VARIABLE)
    key = key if key is not None else environment.get(KEY_VARIABLE)
    if not url:
        raise ConfigurationError(
            f"which installation? Give --url or set {URL_VARIABLE}; for a `posthouse local` give --local with its data folder"
        )
    if not key:
        raise ConfigurationError(
            f"an operator's key is needed: set {KEY_VARIABLE} (or give --key); `posthouse bootstrap` prints the first one"
        )
    return Place(_checked_url(url), _checked_key(key))


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable or parts.username is not None or parts.query or parts.fragment or not url.isprintable() or " " in url:
        # Never the URL itself: somebody may have put a password into it.
        raise ConfigurationError(f"the URL (--url or {URL_VARIABLE}) is written like https://mail.example.com")
    return url.rstrip("/").removesuffix("/v1")


def _checked_key(key: str) -> str:
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(f"the key (--key or {KEY_VARIABLE}) is no API key: those look like ph_..._...")
    return key


def _announced(folder: Path) -> Place:
    path = folder.expanduser() / "local.json"
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_LARGEST_ANNOUNCEMENT))
        url, key = document["http_url"], document["admin_key"]
    except FileNotFoundError:
        raise ConfigurationError(f"no `posthouse local` is running on {folder}: there is no {path}") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        url = key = None
    if not isinstance(url, str) or not isinstance(key, str):
        raise ConfigurationError(f"{path} is not what `posthouse local` writes")
    return Place(_checked_url(url), _checked_key(key))
