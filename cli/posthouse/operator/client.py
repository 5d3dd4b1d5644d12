"""Requests to the REST interface: one line for everything that can go wrong, nothing read without a bound."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from posthouse.operator.place import Place
from shared.errors import PosthouseError

Document = dict[str, Any]

_SECONDS = 30.0
_LARGEST_ANSWER = 32 * 1024 * 1024
_LARGEST_PAGE = 200


class Refused(PosthouseError):
    """The installation did not do it."""

    code = "refused"

    def __init__(self, message: str, *, problem: str | None = None, status: int | None = None) -> None:
        """Take what to tell a person, the problem's code where there is one, and the HTTP status."""
        super().__init__(message)
        self.problem, self.status = problem, status


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list holds, as far as it was read."""

    items: list[Document]
    more: bool
    """Whether there is more than was asked for."""


class Client:
    """Talks to one installation; a context manager."""

    def __init__(self, place: Place, *, seconds: float = _SECONDS) -> None:
        """Take the installation, and how long each step of a request may take."""
        self._place = place
        # A proxy that the environment names has no way to this machine.
        self._http = httpx.Client(
            base_url=place.url,
            headers={"Authorization": f"Bearer {place.key}", "Accept": "application/json"},
            timeout=seconds,
            trust_env=not place.is_loopback,
        )

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connections."""
        self._http.close()

    def get(self, path: str, **query: str | int) -> Document:
        """Return the document at a path.

        Raises:
            Refused: there is no answer, or it is an error.
        """
        return self._ask("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Document:
        """Post a document and return the one that comes back; raises as :meth:`get`."""
        return self._ask("POST", path, body=body)

    def put(self, path: str, body: Mapping[str, object]) -> Document:
        """Put a document at a path and return what is there now; raises as :meth:`get`."""
        return self._ask("PUT", path, body=body)

    def patch(self, path: str, body: Mapping[str, object]) -> Document:
        """Change what is at a path and return it; raises as :meth:`get`."""
        return self._ask("PATCH", path, body=body)

    def delete(self, path: str, **query: str) -> Document:
        """Delete what is at a path and return what is said of it, if anything; raises as :meth:`get`."""
        return self._ask("DELETE", path, query=query)

    def listed(self, path: str, limit: int, **which: str) -> Listing:
        """Return up to ``limit`` items of a list, page by page, only those that the query names; raises as :meth:`get`."""
        items: list[Document] = []
        cursor: str | None = None
        while True:
            query: dict[str, str | int] = {**which, "limit": min(_LARGEST_PAGE, limit - len(items))}
            page = self._ask("GET", path, query=query if cursor is None else {**query, "cursor": cursor})
            data, following = page.get("data"), page.get("next_cursor")
            still = following is not None and following == cursor
            if not isinstance(data, list) or not all(isinstance(item, dict) for item in data) or still:
                raise self._not_ours(f"what it answers at {path} is no list")
            items += data
            if following is None or len(items) >= limit:
                return Listing(items[:limit], more=following is not None)
            cursor = str(following)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Document:
        try:
            with self._http.stream(method, path, params=query or None, json=body) as response:
                raw = bytearray()
                for chunk in response.iter_bytes():
                    raw += chunk
                    if len(raw) > _LARGEST_ANSWER:
                        raise self._not_ours(f"its answer is larger than {_LARGEST_ANSWER} bytes")
        except httpx.TimeoutException:
            raise Refused(f"{self._place.url} did not answer in time; whether it was done is not known") from None
        except httpx.ConnectError as error:
            raise Refused(f"cannot reach {self._place.url}: {error}; is it running, and is the URL right?") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Refused(f"the connection to {self._place.url} failed: {str(error) or type(error).__name__}") from None
        return self._read(response, bytes(raw))

    def _read(self, response: httpx.Response, raw: bytes) -> Document:
        if response.status_code == 204:
            return {}
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            document = None
        if response.is_success:
            if isinstance(document, dict):
                return document
            raise self._not_ours(f"it answered HTTP {response.status_code} without a JSON document")
        if isinstance(document, dict) and isinstance(document.get("code"), str) and "detail" in document:
            code, request = document["code"], document.get("request_id")
            where = f"HTTP {response.status_code}" + (f", request {request}" if request else "")
            raise Refused(f"{code}: {document['detail']} ({where})", problem=code, status=response.status_code)
        raise self._not_ours(f"it answered HTTP {response.status_code}")

    def _not_ours(self, what: str) -> Refused:
        return Refused(f"{self._place.url} does not answer as Posthouse does: {what}; is the URL right?")
