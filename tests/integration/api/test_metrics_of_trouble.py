"""What ``/metrics`` says where more goes wrong than a message, and of the sessions of the SMTP door."""

import asyncio
from collections import Counter

from fakes.waiting import eventually
from integration.api.conftest import HELLO as REST_HELLO
from integration.api.conftest import RunningApi, StartApi
from integration.api.counted import SMTP, moved, one, series
from integration.api.cut import CuttablePostgres
from integration.api.mox import HELLO, Mox, basic
from integration.api.submission_client import FROM, MAIL, Lines, plain, port_of
from integration.api.submission_client import TO as GRACE
from integration.api.submission_door import door, lines, sender, tls_files
from shared.db.demo import Demo
from shared.db.engine import Pool

__all__ = ["door", "lines", "sender", "tls_files"]


async def test_those_turned_away_by_the_failures_before_them(door: RunningApi, demo: Demo, lines: Lines) -> None:
    async with door.client() as http:
        mox = Mox(http, demo.login, "wrong")
        answers = Counter([(await mox.raw("Send", HELLO)).status_code for _ in range(22)])
        await lines.say("EHLO c.test")
        replies = Counter([(await lines.say(plain(demo.login, "wrong")))[:3] for _ in range(12)])
        found = await series(http)
    # A window that turns meanwhile lets ten more be tried: how many are turned away is theirs to say, that all are counted is ours.
    assert answers.keys() == {401, 429}
    assert replies["454"] > 0
    expected = {
        "authentications_total{webapi,basic,wrong_password}": answers[401],
        "authentications_total{smtp,plain,wrong_password}": replies["535"],
        "authentication_ratelimited_total{webapi}": answers[429],
        "authentication_ratelimited_total{smtp}": replies["454"],
        "webapi_results_total{Send,badauth}": answers[401],
        "webapi_results_total{Send,ratelimited}": answers[429],
        "webapi_seconds_count{Send}": answers[401],
        "submissions_total{webapi,unauthenticated}": answers[401],
        "submissions_total{webapi,too_many_failures}": answers[429],
    }
    assert found == {name: value for name, value in expected.items() if value}


async def test_our_own_mistakes(door: RunningApi, demo: Demo, pool: Pool, sender: Lines) -> None:
    async with door.client(demo.account_key) as client, door.client() as http:
        mox = Mox(http, demo.login, demo.password)
        assert (await client.post("/v1/messages", json=REST_HELLO)).status_code == 202
        await mox.call("Send", HELLO)
        before = await series(http)
        await pool.execute("ALTER TABLE message RENAME TO message_gone")
        await pool.execute("ALTER TABLE domain RENAME TO domain_gone")
        assert (await client.post("/v1/messages", json=REST_HELLO)).status_code == 500
        assert await mox.fault("Send", HELLO) == "server"
        assert (await sender.say(f"MAIL FROM:<{FROM}>")).startswith("451")
        assert (await sender.send(mail="MAIL FROM:<>")).startswith("451")
        assert await moved(http, before) == {
            **one(
                "authentications_total{rest,bearer,ok}",
                "submissions_total{rest,internal}",
                "authentications_total{webapi,basic,ok}",
                "submissions_total{webapi,internal}",
                "webapi_results_total{Send,internal}",
                "webapi_seconds_count{Send}",
            ),
            "submissions_total{smtp,internal}": 2,
        }


async def test_a_database_that_is_away(
    start_api: StartApi, database_url: str, demo: Demo, tls_files: dict[str, object]
) -> None:
    smtp = {"submission_host": "127.0.0.1", "submissions_port": 0, **tls_files}
    async with CuttablePostgres(database_url) as postgres:
        api = await start_api(database_url=postgres.url, **smtp)
        lines = await Lines.connect(api.addresses["submissions"])
        await lines.say("EHLO c.test")
        async with api.client(demo.account_key) as client, api.client() as http:
            before = await series(http)
            postgres.down = True
            assert (await client.post("/v1/messages", json=REST_HELLO)).status_code == 503
            assert await Mox(http, demo.login, demo.password).fault("Send", HELLO) == "server"
            assert (await lines.say(plain(demo.login, demo.password))).startswith("454")
            assert (await lines.say(f"AUTH SCRAM-SHA-256 {FIRST}")).startswith("454")
            assert await moved(http, before) == one(
                "authentications_total{rest,bearer,database_unavailable}",
                "submissions_total{rest,database_unavailable}",
                "authentications_total{webapi,basic,database_unavailable}",
                "submissions_total{webapi,database_unavailable}",
                "webapi_results_total{Send,server}",
                "webapi_seconds_count{Send}",
                "authentications_total{smtp,plain,database_unavailable}",
                "authentications_total{smtp,scram-sha-256,database_unavailable}",
            )
            postgres.down = False
            lines.close()
            await api.finish()


FIRST = "biwsbj1kZW1vQHBvc3Rob3VzZS50ZXN0LHI9YWJjZGVmZ2hpamts"
"""``n,,n=demo@posthouse.test,r=abcdefghijkl``"""


async def test_sessions_and_replies(door: RunningApi, demo: Demo) -> None:
    async with door.client() as http:
        before = await series(http, SMTP)
        lines = await Lines.connect(door.addresses["submissions"])
        await lines.login(demo.login, demo.password)
        for recipient in ("x", GRACE):
            await lines.say(f"MAIL FROM:<{FROM}>")
            await lines.say(f"RCPT TO:<{recipient}>")
            await lines.say("RSET")
        assert (await lines.send(MAIL)).startswith("250")
        await lines.say("no command at all")
        assert (await moved(http, before, SMTP))["smtp_sessions{}"] == 1
        await lines.say("quit")
        expected = {
            **one("smtp_connections_total{served}", "smtp_replies_total{220,connect}", "smtp_replies_total{250,EHLO}"),
            **one("smtp_replies_total{235,AUTH}", "smtp_replies_total{250,DATA}", "smtp_replies_total{221,QUIT}"),
            **one("smtp_replies_total{501,RCPT}", "smtp_replies_total{500,other}"),
            "smtp_replies_total{250,MAIL}": 3,
            "smtp_replies_total{250,RCPT}": 2,
            "smtp_replies_total{250,RSET}": 2,
        }

        async def settled() -> bool:  # the session ends a moment after its last reply
            assert await moved(http, before, SMTP) == expected
            return True

        await eventually(settled)


async def test_connections_beyond_the_limit(start_api: StartApi, demo: Demo, tls_files: dict[str, object]) -> None:
    api = await start_api(submission_host="127.0.0.1", submission_port=0, submission_sessions=1, **tls_files)
    async with api.client() as http:
        lines = await Lines.connect(api.addresses["submission"], implicit=False)
        before = await series(http, SMTP)
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(api.addresses["submission"]))
        assert (await reader.readline()).startswith(b"421 4.3.2")
        assert await moved(http, before, SMTP) == one(
            "smtp_connections_total{turned_away}", "smtp_replies_total{421,connect}"
        )
        writer.close()
        lines.close()


async def hang_up_within(api: RunningApi, path: str, headers: dict[str, str]) -> None:
    """Announce a body, send its first octet, and leave."""
    host, port = api.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    given = {"Host": "test", "Content-Length": "100", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n{{".encode())
    await writer.drain()
    writer.close()


async def test_a_body_that_ends_before_it_should(api: RunningApi, demo: Demo) -> None:
    async with api.client() as http:
        before = await series(http)
        form = {**basic(demo.login, demo.password), "Content-Type": "application/x-www-form-urlencoded"}
        json = {"Authorization": f"Bearer {demo.account_key}", "Content-Type": "application/json"}
        await hang_up_within(api, "/v1/messages", json)
        await hang_up_within(api, "/webapi/v0/Send", form)

        async def counted() -> bool:
            assert await moved(http, before) == one(
                "authentications_total{rest,bearer,ok}",
                "submissions_total{rest,incomplete}",
                "authentications_total{webapi,basic,ok}",
                "submissions_total{webapi,incomplete}",
                "webapi_results_total{Send,incomplete}",
                "webapi_seconds_count{Send}",
            )
            return True

        await eventually(counted)
