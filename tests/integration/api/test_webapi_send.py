"""Cases 29 to 56 of mox's behaviour: what Send takes and refuses. The numbers are theirs."""

import base64
import email
import email.policy
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any

import pytest
import pytest_asyncio

from integration.api.conftest import StartApi
from integration.api.mox import HELLO, TO, Mox, World, world
from posthouse.embedded.postgres import EmbeddedPostgres
from shared.db.demo import Demo
from shared.db.engine import Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(
    postgres_server: EmbeddedPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("webapi")
    async with world(postgres_server, template_database, "webapi_send", folder) as made:
        yield made


async def stored(pool: Pool, sent: Any) -> EmailMessage:
    rows = await pool.fetch(
        "SELECT b.bytes FROM message_body b JOIN delivery d USING (message_id) WHERE d.id = $1 ORDER BY b.seq",
        sent["Submissions"][0]["QueueMsgID"],
    )
    return email.message_from_bytes(b"".join(row["bytes"] for row in rows), policy=email.policy.default)


async def count(pool: Pool) -> int:
    found: int = await pool.fetchval("SELECT count(*) FROM delivery")
    return found


def ahead(**span: int) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


def to(address: str) -> dict[str, Any]:
    return {**HELLO, "To": [{"Address": address}]}


BAD = [{"Address": "bad"}]
OF_ANOTHER = [{"Address": "ada@other.example"}]
B64 = base64.b64encode(b"%PDF-1.7").decode()

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("29", {**TO, "From": BAD}, "missingBody"),
    ("29-empty", {"Text": "", "HTML": "", "To": BAD}, "missingBody"),
    ("30", {**HELLO, "From": [*OF_ANOTHER, *BAD], "To": BAD}, "multipleFrom"),
    ("31", {**HELLO, "From": OF_ANOTHER}, "badFrom"),
    ("31-unknown-domain", {**HELLO, "From": [{"Address": "a@nowhere.example"}]}, "badFrom"),
    ("31-not-of-the-login", {**HELLO, "From": [{"Address": "nobody@posthouse.test"}]}, "badFrom"),
    ("31-before-no-recipients", {"Text": "x", "From": OF_ANOTHER}, "badFrom"),
    ("31-before-reply-to", {**HELLO, "From": OF_ANOTHER, "ReplyTo": BAD}, "badFrom"),
    ("31-after-recipients", {**HELLO, "From": OF_ANOTHER, "BCC": BAD}, "badAddress"),
    ("32", {**HELLO, "From": [{"Address": "demo@off.example"}]}, "domainDisabled"),
    ("34", {"Text": "x"}, "noRecipients"),
    ("34-reply-to", {"Text": "x", "ReplyTo": [{"Address": "a@b.example"}]}, "noRecipients"),
    ("35-no-at", to("bad"), "badAddress"),
    ("35-brackets", to("<x@d.example>"), "badAddress"),
    ("35-two-dots", to("a..b@d.example"), "badAddress"),
    ("35-first-dot", to(".a@d.example"), "badAddress"),
    ("35-last-dot", to("x@d."), "badAddress"),
    ("35-ip", to("x@127.0.0.1"), "badAddress"),
    ("35-literal", to("x@[1.2.3.4]"), "badAddress"),
    ("35-space", to(" x@d.example"), "badAddress"),
    ("35-underscore", to("a@b_c.d"), "badAddress"),
    ("35-long", to("x" * 129 + "@d.example"), "badAddress"),
    ("35-cc", {**HELLO, "CC": BAD}, "badAddress"),
    ("35-from", {**HELLO, "From": BAD}, "badAddress"),
    ("35-reply-to", {**HELLO, "ReplyTo": BAD}, "badAddress"),
    ("37-no-domain", to("x@"), "badAddress"),
    ("38", {**HELLO, "MessageID": "a@b"}, "malformedMessageID"),
    ("38-half", {**HELLO, "MessageID": "<a@b"}, "malformedMessageID"),
    ("39-subject", {**HELLO, "Subject": "a\nb"}, "user"),
    ("39-subject-tab", {**HELLO, "Subject": "a\tb"}, "user"),
    ("39-name", {**HELLO, "To": [{"Name": "a\nb", "Address": "a@b.example"}]}, "user"),
    ("39-message-id", {**HELLO, "MessageID": "<a\nb@c>"}, "user"),
    ("39-reference", {**HELLO, "References": ["<a\tb@c>"]}, "user"),
    ("39-header-name", {**HELLO, "Headers": [["X-A\n", "b"]]}, "user"),
    ("39-header-value", {**HELLO, "Headers": [["X-A", "b\nBcc: x@y.example"]]}, "user"),
    ("39-content-type", {**HELLO, "AttachedFiles": [{"ContentType": "text/plain\n", "Data": B64}]}, "user"),
    ("39-content-id", {**HELLO, "InlineFiles": [{"ContentID": "a\nb", "Data": B64}]}, "user"),
    ("40", {**HELLO, "AttachedFiles": [{"Data": "not base64"}]}, "user"),
    ("40-padding", {**HELLO, "AlternativeFiles": [{"Data": "YQ"}]}, "user"),
    ("41", {**HELLO, "FutureRelease": ahead(days=61)}, "user"),
    ("43-release", {**HELLO, "FutureRelease": "tomorrow"}, "protocol"),
    ("43-release-no-zone", {**HELLO, "FutureRelease": "2026-11-20T13:00:00"}, "protocol"),
    ("43-date", {**HELLO, "Date": "2026-13-01T00:00:00Z"}, "protocol"),
    ("50-space", {**HELLO, "Headers": [["X A", "b"]]}, "user"),
    ("50-colon", {**HELLO, "Headers": [["X:A", "b"]]}, "user"),
    ("50-empty", {**HELLO, "Headers": [[]]}, "user"),
    ("50-from", {**HELLO, "Headers": [["From", "x@y.example"]]}, "user"),
]


@pytest.mark.parametrize(("request_", "code"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
async def test_what_send_refuses(there: World, request_: dict[str, Any], code: str) -> None:
    before = await count(there.pool)

    assert await there.mox.fault("Send", request_) == code
    assert await count(there.pool) == before


async def test_case_33_from_keeps_its_spelling(there: World) -> None:
    sent = await there.mox.call("Send", {**HELLO, "From": [{"Name": "Ada", "Address": "DEMO+x@posthouse.TEST"}]})
    assert (await stored(there.pool, sent))["From"] == "Ada <DEMO+x@posthouse.test>"


@pytest.mark.parametrize("field", ["CC", "BCC"])
async def test_case_34_one_kind_of_recipient_is_enough(there: World, field: str) -> None:
    sent = await there.mox.call("Send", {"Text": "x", field: [{"Address": "only@example.org"}]})
    assert [one["Address"] for one in sent["Submissions"]] == ["only@example.org"]
    message = await stored(there.pool, sent)
    assert message["To"] is None
    assert message["Bcc"] is None


@pytest.mark.parametrize("address", ['"a b"@d.example', "ü@d.example", "x@ü.example", "X@D.EXAMPLE", "x@localhost"])
async def test_case_36_the_answer_echoes_the_spelling(there: World, address: str) -> None:
    sent = await there.mox.call("Send", to(address))
    assert [one["Address"] for one in sent["Submissions"]] == [address]


async def test_cases_38_and_56_a_given_message_id_is_used_and_need_not_be_unique(there: World) -> None:
    for _ in range(2):
        sent = await there.mox.call("Send", {**HELLO, "MessageID": "<mine@example.org>"})
        assert sent["MessageID"] == "<mine@example.org>"
        assert (await stored(there.pool, sent))["Message-Id"] == "<mine@example.org>"
    made = await there.mox.call("Send", HELLO)
    assert re.fullmatch(r"<[\w-]{22}@mail\.posthouse\.test>", made["MessageID"])


async def test_case_41_a_release_in_59_days(there: World) -> None:
    release = ahead(days=59)
    sent = await there.mox.call("Send", {**HELLO, "FutureRelease": release})
    due = await there.pool.fetchval(
        "SELECT due_at FROM delivery_queue WHERE delivery_id = $1", sent["Submissions"][0]["QueueMsgID"]
    )
    assert due == datetime.fromisoformat(release)


async def test_case_67_save_sent_is_kept_and_the_mail_names_no_bcc(there: World) -> None:
    bcc = {"BCC": [{"Name": "Ada", "Address": "ada@example.org"}]}
    for request, kept in (({**HELLO, **bcc, "SaveSent": True}, True), ({**HELLO, **bcc}, False)):
        sent = await there.mox.call("Send", request)
        row = await there.pool.fetchrow("SELECT * FROM message WHERE message_id = $1", sent["MessageID"])
        assert row is not None
        assert row["save_sent"] is kept
        assert row["bcc"] == ('Bcc: "Ada" <ada@example.org>\r\n' if kept else None)
        body = await there.pool.fetchval("SELECT bytes FROM message_body WHERE message_id = $1", row["id"])
        assert b"ada@example.org" not in body


@pytest.mark.xfail(strict=True, reason="the mailboxes and the methods that read them are issue 5")
async def test_cases_66_and_67_the_copy_is_in_sent(there: World) -> None:
    bcc = {"BCC": [{"Address": "ada@example.org"}]}
    await there.mox.call("Send", {**HELLO, **bcc, "SaveSent": True})
    copy = await there.mox.call("MessageGet", {"MsgID": 1})
    assert copy["Meta"]["MailboxName"] == "Sent"
    assert {"\\seen", "$notjunk"} <= set(copy["Meta"]["Flags"])
    assert copy["Message"]["BCC"] == [{"Name": "", "Address": "ada@example.org"}]


async def test_case_42_a_release_in_the_past_is_now(there: World) -> None:
    sent = await there.mox.call("Send", {**HELLO, "FutureRelease": "2001-01-01T00:00:00.123456789Z"})
    queued = await there.pool.fetchval(
        "SELECT now() - due_at FROM delivery_queue WHERE delivery_id = $1", sent["Submissions"][0]["QueueMsgID"]
    )
    assert timedelta() <= queued < timedelta(minutes=5)


@pytest.mark.asyncio(loop_scope="function")
async def test_case_44_over_the_limit_nothing_is_queued(start_api: StartApi, demo: Demo, pool: Pool) -> None:
    api = await start_api(max_message_bytes=20_000)
    async with api.client() as http:
        mox = Mox(http, demo.login, demo.password)
        assert await mox.fault("Send", {**HELLO, "Text": "x" * 30_000}) == "messageTooLarge"
        assert await mox.fault("Send", {**HELLO, "Text": "x" * 19_900}) == "messageTooLarge"
    assert await count(pool) == 0


async def test_too_many_recipients_are_too_large(there: World) -> None:
    many = [{"Address": f"r{number}@example.org"} for number in range(1001)]
    assert await there.mox.fault("Send", {**HELLO, "To": many}) == "messageTooLarge"


@pytest.mark.parametrize(
    ("limit", "most", "sizes", "code"),
    [
        # Each call with how many new recipients it has, and whether it may have them.
        pytest.param("messages_per_day", 30, [(31, False), (30, True)], "messageLimitReached", id="45"),
        pytest.param("first_time_recipients_per_day", 10, [(11, False), (10, True)], "recipientLimitReached", id="46"),
        pytest.param(
            "first_time_recipients_per_day",
            200,
            [(185, True), (185, False), (185, False)],
            "recipientLimitReached",
            id="47",
        ),
    ],
)
@pytest.mark.asyncio(loop_scope="function")
async def test_limits_of_an_account(
    start_api: StartApi,
    demo: Demo,
    pool: Pool,
    limit: str,
    most: int,
    sizes: list[tuple[int, bool]],
    code: str,
) -> None:
    await pool.execute(f"UPDATE account SET {limit} = {most} WHERE id = $1", demo.account_id)
    api = await start_api()
    async with api.client() as http:
        mox = Mox(http, demo.login, demo.password)
        for call, (size, accepted) in enumerate(sizes):
            many = {**HELLO, "To": [{"Address": f"r{call}-{place}@example.org"} for place in range(size)]}
            if accepted:
                await mox.call("Send", many)
            else:
                assert await mox.fault("Send", many) == code


async def test_case_49_headers_of_one_and_of_three(there: World) -> None:
    sent = await there.mox.call("Send", {**HELLO, "Headers": [["X-One"], ["X-Two", "y", "z"], ["X-Two", "again"]]})
    message = await stored(there.pool, sent)
    assert message["X-One"] == ""
    assert message.get_all("X-Two") == ["y", "again"]


async def test_cases_51_and_52_order_and_duplicates(there: World) -> None:
    def boxes(*names: str) -> list[dict[str, str]]:
        return [{"Name": name, "Address": f"{name}@example.org"} for name in names]

    sent = await there.mox.call("Send", {"Text": "x", "BCC": boxes("d"), "CC": boxes("c"), "To": boxes("a", "b", "a")})
    ids = [one["QueueMsgID"] for one in sent["Submissions"]]
    assert [one["Address"][0] for one in sent["Submissions"]] == list("abacd")
    assert ids == list(range(ids[0], ids[0] + 5))


FROM_ID = re.compile(r"[A-Za-z0-9_-]{20,}")


@pytest.mark.parametrize(
    ("login", "used"),
    [
        pytest.param("plain@posthouse.test", False, id="53"),
        pytest.param("demo@posthouse.test", True, id="54"),
        pytest.param("DEMO@posthouse.test", False, id="55"),
        pytest.param("demo@POSTHOUSE.test", True, id="55-domain"),
        pytest.param("demo+x@posthouse.test", False, id="53-suffix"),
    ],
)
async def test_from_ids_are_for_the_login_that_has_them(there: World, login: str, *, used: bool) -> None:
    request = {**HELLO, "To": [{"Address": "a@example.org"}, {"Address": "b@example.org"}]}
    request["From"] = [{"Address": "demo@posthouse.test"}]
    sent = await there.mox.as_(login).call("Send", request)

    found = [one["FromID"] for one in sent["Submissions"]]
    paths = [
        await there.pool.fetchval("SELECT mail_from FROM delivery WHERE id = $1", one["QueueMsgID"])
        for one in sent["Submissions"]
    ]
    if used:
        assert all(FROM_ID.fullmatch(one) for one in found)
        assert found[0] != found[1]
        assert paths == [f"demo+{one}@posthouse.test" for one in found]
    else:
        assert found == ["", ""]
        assert paths == ["demo@posthouse.test"] * 2


async def test_a_whole_message_with_files_of_the_json_and_of_the_form(there: World) -> None:
    def file(name: str, **fields: str) -> dict[str, str]:
        return {"Name": name, "Data": base64.b64encode(name.encode()).decode(), **fields}

    sent = await there.mox.call(
        "Send",
        {
            "From": [{"Name": "Ada", "Address": "demo@posthouse.test"}],
            "To": [{"Name": "Grace", "Address": "grace@example.org"}],
            "ReplyTo": [{"Address": "answers@posthouse.test"}],
            "Subject": "Grüße",
            "Text": "text\n",
            "HTML": "<p>html</p>\n",
            "Date": "2026-11-20T13:00:00+05:00",
            "References": ["<a@example.org>", "<b@example.org>"],
            "Extra": {"a-b": "1", "UPPER": "2", "": ""},
            "Headers": [["X-Campaign", "autumn"]],
            "RequireTLS": False,
            "AlternativeFiles": [file("one.ics", ContentType="text/calendar")],
            "InlineFiles": [file("one.png", ContentType="image/png", ContentID="logo")],
            "AttachedFiles": [file("one.txt", ContentType="text/csv")],
        },
        [
            ("attachedfile", ("/home/ada/two.txt", b"two", "text/x-two")),
            ("alternativefile", ("two.ics", b"two", "text/calendar")),
            ("bogusfile", ("ignored", b"ignored", "text/plain")),
            ("inlinefile", ("two.png", b"two", "image/png")),
        ],
    )
    message = await stored(there.pool, sent)
    assert [(part.get_content_type(), part.get_filename()) for part in message.walk() if not part.is_multipart()] == [
        ("text/plain", None),
        ("text/html", None),
        ("text/calendar", "one.ics"),
        ("text/calendar", "two.ics"),
        ("image/png", "one.png"),
        ("image/png", "two.png"),
        ("text/csv", "one.txt"),
        ("text/x-two", "two.txt"),
    ]
    assert message["Date"] == "Fri, 20 Nov 2026 13:00:00 +0500"
    assert message["In-Reply-To"] == "<b@example.org>"
    assert message["Reply-To"] == "answers@posthouse.test"
    row = await there.pool.fetchrow(
        "SELECT m.door, m.extra::text, m.require_tls FROM message m JOIN delivery d ON d.message_id = m.id WHERE d.id = $1",
        sent["Submissions"][0]["QueueMsgID"],
    )
    assert row is not None
    assert (row["door"], row["extra"]) == ("webapi", '{"": "", "a-b": "1", "UPPER": "2"}')
    assert row["require_tls"] is False


@pytest.mark.parametrize(
    ("given", "stored_"),
    [
        pytest.param({"RequireTLS": True}, True, id="72-true"),
        pytest.param({"RequireTLS": False}, False, id="72-false"),
        pytest.param({}, None, id="72-absent"),
    ],
)
async def test_what_is_asked_of_tls_is_stored_and_no_header_says_it(
    there: World, given: dict[str, bool], *, stored_: bool | None
) -> None:
    sent = await there.mox.call("Send", {**HELLO, **given})
    found = await there.pool.fetchval(
        "SELECT m.require_tls FROM message m JOIN delivery d ON d.message_id = m.id WHERE d.id = $1",
        sent["Submissions"][0]["QueueMsgID"],
    )
    assert found is stored_
    assert (await stored(there.pool, sent))["TLS-Required"] is None
