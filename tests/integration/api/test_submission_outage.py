"""A database that goes away while mail is handed in by SMTP."""

from collections.abc import AsyncIterator

import pytest

from api.auth import Authenticator
from api.failures import FailureLimiter
from api.metrics import ApiMetrics
from api.smtp.door import SubmissionHandler
from api.smtp.logins import Logins
from api.submission import Limits
from api.submit import Rules, Submitter
from api.writer import Writer
from integration.api.conftest import SECRET
from integration.api.cut import CuttablePostgres
from integration.api.submission_client import FROM, MAIL, Lines, plain
from shared.db.demo import Demo
from shared.db.engine import Pool, create_pool
from shared.db.routing import Routing
from shared.events import Subject
from shared.mail.from_id import FromIds
from shared.metrics import Metrics
from shared.security.keys import KeyRing
from shared.smtpd import SmtpdConfig, serve


class Silent:
    """A bell that nobody hears."""

    def ring(self, subject: Subject, *names: str) -> None:
        pass


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[CuttablePostgres]:
    async with CuttablePostgres(database_url) as postgres:
        yield postgres


@pytest.fixture
async def lines(postgres: CuttablePostgres, demo: Demo) -> AsyncIterator[Lines]:
    """A client of the door over a database that can be cut off."""
    uncertain = await create_pool(postgres.url, size=2, service="test-door")
    metrics = ApiMetrics(Metrics("api"))
    rules = Rules(
        "mail.posthouse.test", None, Routing(), unverified_domains=False, limits=Limits(), from_ids=FromIds([b"k" * 16])
    )
    authenticator = Authenticator(uncertain, KeyRing([SECRET]), metrics, seconds=30)
    logins = Logins(authenticator, FailureLimiter(), metrics, plaintext=True)
    submitter = Submitter(uncertain, Writer(uncertain, Silent(), metrics, patience=5), rules, metrics)
    config = SmtpdConfig(hostname="mail.posthouse.test", auth=logins)
    listener = await serve(config, SubmissionHandler(logins, submitter, metrics), "127.0.0.1", 0)
    client = await Lines.connect(f"127.0.0.1:{listener.port}", implicit=False)
    yield client
    client.close()
    await listener.close(1)
    uncertain.terminate()


async def test_it_is_for_later_and_then_it_is_taken(
    postgres: CuttablePostgres, lines: Lines, demo: Demo, pool: Pool
) -> None:
    await lines.login(demo.login, demo.password)
    assert (await lines.envelope()).startswith("354")
    postgres.down = True
    assert (await lines.say(MAIL + ".")).startswith("451 4.3.0")
    assert (await lines.say(f"MAIL FROM:<{FROM}>")).startswith("451 4.3.0")
    postgres.down = False
    assert (await lines.send()).startswith("250")
    assert await pool.fetchval("SELECT count(*) FROM message") == 1


async def test_nobody_is_turned_away_as_a_stranger(postgres: CuttablePostgres, lines: Lines, demo: Demo) -> None:
    await lines.say("EHLO c.test")
    postgres.down = True
    assert (await lines.say(plain(demo.login, demo.password))).startswith("454 4.7.0")
    postgres.down = False
    assert (await lines.say(plain(demo.login, demo.password))).startswith("235")


@pytest.mark.parametrize("cut", ["before commit", "after commit"])
async def test_a_commit_that_is_cut_is_taken_once(
    postgres: CuttablePostgres, lines: Lines, demo: Demo, pool: Pool, cut: str
) -> None:
    await lines.login(demo.login, demo.password)
    assert (await lines.envelope()).startswith("354")
    postgres.cut = "before commit" if cut == "before commit" else "after commit"
    assert (await lines.say(MAIL + ".")).startswith("250")
    assert await pool.fetchval("SELECT count(*) FROM message") == 1
