"""One request: signed as Standard Webhooks 1.0 has it, posted once, its answer read up to a limit."""

import httpx

from hooks.outcome import Answer
from shared.clock import Clock
from shared.db.calls import RESPONSE_OCTETS
from shared.db.endpoints import CallTarget
from shared.errors import SecretUnreadable
from shared.mail.status import clean_text
from shared.security.keys import KeyRing
from shared.security.webhook_signing import sign
from shared.version import VERSION

USER_AGENT = f"Posthouse/{VERSION}"


class Caller:
    """Makes requests.

    Args:
        client: over :class:`hooks.transport.WebhookTransport`, which refuses what may not be called and ends what takes too long.
        ring: opens the endpoints' secrets.
        clock: for the timestamp that is signed.
    """

    def __init__(self, client: httpx.AsyncClient, ring: KeyRing, clock: Clock) -> None:
        self._client = client
        self._ring = ring
        self._clock = clock

    async def post(self, target: CallTarget, call_id: int, body: bytes) -> Answer:
        """Post a call's body to its endpoint and return what came of it; raises nothing that the endpoint could cause."""
        try:
            headers = self._headers(target, call_id, body)
        except SecretUnreadable as error:  # an operator can mend that, so it is tried again
            return Answer(0, error.message)
        try:
            response = await self._client.post(target.url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Answer(0, clean_text(str(error)) or type(error).__name__)
        return Answer(
            response.status_code,
            response=clean_text(response.content[:RESPONSE_OCTETS], RESPONSE_OCTETS),
            retry_after=response.headers.get("retry-after", ""),
        )

    def _headers(self, target: CallTarget, call_id: int, body: bytes) -> dict[str, str]:
        webhook_id = f"msg_{call_id}"
        timestamp = int(self._clock().timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            # Standard Webhooks, "Webhook headers": the id names the event for this endpoint and stays over attempts; the
            # timestamp is the attempt's.
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(target.secrets(self._ring), webhook_id, timestamp, body),
        }
        authorization = target.authorization(self._ring)
        if authorization is not None:
            headers["authorization"] = authorization
        return headers
