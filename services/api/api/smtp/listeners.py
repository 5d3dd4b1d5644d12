"""The two ports of the door: submission with STARTTLS, and submissions over TLS from the first octet (RFC 6409, RFC 8314)."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from api.config import Settings
from api.smtp.door import MAIL_PARAMETERS, SubmissionHandler
from api.smtp.logins import Logins
from shared.errors import ConfigurationError
from shared.smtpd import Listener, SmtpdConfig, SmtpdMetrics, serve
from shared.smtpd.certificates import Certificate

_LONGEST_AUTH_LINE = 12_288  # RFC 4954 4
_ENVELOPE_ROOM = 1024 * 1024  # octets; what is reserved counts dots that are removed later


@contextlib.asynccontextmanager
async def listening(
    settings: Settings, handler: SubmissionHandler, logins: Logins, tls: Certificate | None, metrics: SmtpdMetrics
) -> AsyncIterator[dict[str, str]]:
    """Listen on the ports that are set; what is on its way at the end has the grace period.

    Yields:
        The addresses listened on, ``submission`` and ``submissions``.

    Raises:
        ConfigurationError: an address cannot be listened on, or a port is set without a certificate.
    """
    if tls is None and settings.env != "local" and settings.submission_port is not None:
        raise ConfigurationError(
            "POSTHOUSE_SUBMISSION_PORT needs POSTHOUSE_TLS_CERT_FILE and POSTHOUSE_TLS_KEY_FILE: nobody may log in without TLS"
        )
    if tls is None and settings.submissions_port is not None:
        raise ConfigurationError(
            "POSTHOUSE_SUBMISSIONS_PORT needs POSTHOUSE_TLS_CERT_FILE and POSTHOUSE_TLS_KEY_FILE: it speaks TLS only"
        )
    opened: dict[str, Listener] = {}
    try:
        for name, port in (("submission", settings.submission_port), ("submissions", settings.submissions_port)):
            if port is not None:
                config = replace(
                    _config(settings, handler, logins, tls), implicit_tls=name == "submissions", metrics=metrics
                )
                opened[name] = await serve(config, handler, settings.submission_host, port)
        yield {name: _text(listener.address) for name, listener in opened.items()}
    finally:
        for listener in opened.values():
            await listener.close(settings.grace_seconds)


def _config(settings: Settings, handler: SubmissionHandler, logins: Logins, tls: Certificate | None) -> SmtpdConfig:
    sessions = settings.submission_sessions
    return SmtpdConfig(
        hostname=settings.hostname,
        max_size=settings.max_message_bytes,
        max_recipients=settings.max_recipients,
        max_line=_LONGEST_AUTH_LINE,
        session_limit=sessions,
        # The local stack has no limit by address but that on failed logins.
        per_ip_limit=sessions if settings.env == "local" else settings.submission_sessions_per_ip,
        # The two ports together hold as much as HTTP may; a single message of the largest size always fits.
        memory_limit=max(settings.request_budget_bytes // 2, settings.max_message_bytes + _ENVELOPE_ROOM),
        tls=tls.context if tls is not None else None,
        auth=logins,
        mail_parameters=MAIL_PARAMETERS,
        ehlo_lines=handler.ehlo_lines,
        on_refusal=handler.on_refusal,
        reuse_port=settings.api_reuse_port,
    )


def _text(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
