"""What the server core counts, for the service that listens: ``posthouse_<service>_smtp_...``."""

from shared.metrics import Metrics
from shared.smtpd.reply import Reply


class SmtpdMetrics:
    """The metrics of all listeners of a process."""

    def __init__(self, metrics: Metrics) -> None:
        """Register them."""
        self._open = metrics.gauge("smtp_sessions", "SMTP sessions being served.")
        self._begun = metrics.counter(
            "smtp_connections",
            "SMTP connections by what became of them: served, turned_away with 421, or dropped without a word.",
            ("result",),
        )
        self._replies = metrics.counter(
            "smtp_replies",
            "SMTP commands by verb and code of the reply that ended them; connect: the greeting, other: what is no command.",
            ("command", "code"),
        )

    def served(self) -> None:
        """Count a session that begins."""
        self._begun.labels("served").inc()
        self._open.inc()

    def ended(self) -> None:
        """Count the end of a session that was served."""
        self._open.dec()

    def refused(self, result: str) -> None:
        """Count a connection that is one too many: ``turned_away`` or ``dropped``."""
        self._begun.labels(result).inc()

    def replied(self, command: str, reply: Reply) -> None:
        """Count a reply to a command, one of the verbs known here."""
        self._replies.labels(command, str(reply.code)).inc()
