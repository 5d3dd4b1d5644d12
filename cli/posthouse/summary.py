"""What ``posthouse local`` says of itself: ``local.json`` for programs, a page for people."""

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from posthouse.services import joined
from posthouse.settings import Plan
from posthouse.supervisor import Worker
from shared.db.demo import Demo


@dataclass(frozen=True, slots=True)
class Running:
    """A stack that is ready."""

    plan: Plan
    demo: Demo
    http: str
    """``host:port``, as this machine reaches it."""
    smtp: str
    submission: str
    submissions: str
    database_url: str = field(repr=False)
    nats_url: str = field(repr=False)
    webhook_secret: str = field(repr=False)

    @property
    def http_url(self) -> str:
        """The base URL of the api."""
        return f"http://{self.http}"


def reachable(plan: Plan, bound: str) -> str:
    """Return the address under which this machine reaches a bound ``host:port``."""
    return joined(plan.reachable_host, int(bound.rpartition(":")[2]))


def document(running: Running, workers: list[Worker]) -> dict[str, object]:
    """Return the content of ``local.json``. What a later version brings is null."""
    pids: dict[str, list[int]] = {}
    health: dict[str, list[str]] = {}
    for worker in workers:
        pids.setdefault(worker.service, [])
        health.setdefault(worker.service, [])
        if worker.child is not None:
            pids[worker.service].append(worker.child.pid)
        if worker.health is not None:
            health[worker.service].append(worker.health)
    return {
        "http_url": running.http_url,
        "smtp": running.smtp,
        "submission": running.submission,
        "submissions": running.submissions,
        "login": running.demo.login,
        "password": running.demo.password,
        "account_key": running.demo.account_key,
        "admin_key": running.demo.admin_key,
        "webhook_secret": running.webhook_secret,
        "health": health,
        "database_url": running.database_url,
        "nats_url": running.nats_url,
        "pids": pids,
    }


def page(running: Running, announcement: Path, logs: Path) -> str:
    """Return what is printed when everything is ready."""
    settings = running.plan.settings
    fate = (
        f"everything is delivered to {running.plan.relay}"
        if running.plan.relay
        else "simulated: mail arrives as inbound mail, unless the local part asks for an outcome (bounce@..., 550@...)"
    )
    lines = [
        "Posthouse is ready.",
        "",
        f"  REST API     {running.http_url}/v1        documentation: {running.http_url}/docs",
        f"  Submission   {running.submission} (STARTTLS offered)        {running.submissions} (TLS)",
        f"  Inbound SMTP {running.smtp}",
        f"  Delivery     {fate}",
    ]
    if settings.outgoing_webhook is not None:
        lines.append(f"  Webhook      {settings.outgoing_webhook}        secret: {running.webhook_secret}")
    lines += [
        f"  Login        {running.demo.login}        password: {running.demo.password}",
        f"  Account key  {running.demo.account_key}",
        f"  Admin key    {running.demo.admin_key}",
        f"  Details      {announcement}",
        f"  Logs         {logs}",
        "",
        "Send a mail:",
        "",
        curl(running),
        "",
        "Stop with Ctrl-C.",
    ]
    return "\n".join(lines)


def curl(running: Running) -> str:
    """Return a shell command that sends a mail."""
    mail = {
        "from": running.demo.login,
        "to": ["you@example.org"],
        "subject": "Hello",
        "text": "Hello from Posthouse.",
    }
    return (
        f"  curl -sS {shlex.quote(running.http_url + '/v1/messages')} \\\n"
        f"    -H {shlex.quote('Authorization: Bearer ' + running.demo.account_key)} \\\n"
        f"    -H 'Content-Type: application/json' \\\n"
        f"    -d {shlex.quote(json.dumps(mail))}"
    )
