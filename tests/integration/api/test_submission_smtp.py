"""Handing in by SMTP: the cases of mox-behaviour 11.6, numbered as there."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integration.api.conftest import RunningApi, StartApi
from integration.api.submission_client import FROM, MAIL, TO, Lines
from integration.api.submission_door import door, lines, only, sender, stored, tls_files
from shared.db.accounts import AccountOptions, create_account
from shared.db.demo import Demo
from shared.db.domains import create_domain, find_domain, mark_verified, set_domain_disabled
from shared.db.engine import Pool, create_engine, session_factory
from shared.mail.mime import read

__all__ = ["door", "lines", "sender", "tls_files"]


def with_fields(*fields: str) -> str:
    return "".join(f"{field}\r\n" for field in fields) + MAIL


async def test_99_and_101_metadata(sender: Lines, pool: Pool) -> None:
    content = with_fields(
        "X-Mox-Extra-Test: testvalue",
        "X-Mox-Extra-a: 123",
        "X-Mox-Extra-☺: ☹",
        "X-Mox-Extra-x-cANONICAL-z: ok",
        "X-Posthouse-Extra-Order: 4711",
        "X-Posthouse-Other: private",
        "Bcc: hidden@example.org",
        "Return-Path: <x@example.org>",
    )
    assert (await sender.send(content)).startswith("250 2.2.0")
    message = await only(pool)
    assert json.loads(message["extra"]) == {
        "Test": "testvalue",
        "A": "123",
        "☺": "☹",
        "X-Canonical-Z": "ok",
        "Order": "4711",
    }
    part = read(message["content"])
    assert part.header("X-Mox-Extra-Test") == "testvalue"
    assert part.header("X-Mox-Extra-a") == "123"
    names = {name.lower() for name, _ in part.fields}
    assert not names & {"bcc", "return-path", "x-posthouse-extra-order", "x-posthouse-other"}
    assert b"hidden" not in message["content"]


@pytest.mark.parametrize("second", ["X-Mox-Extra-A: 1", "X-Mox-Extra-a: 2", "X-Posthouse-Extra-a: 1"])
async def test_100_a_key_twice(sender: Lines, pool: Pool, second: str) -> None:
    assert (await sender.send(with_fields("X-Mox-Extra-A: 1", second))).startswith("554 5.6.0")
    assert await stored(pool) == []


def until(**ahead: float) -> datetime:
    return datetime.now(UTC) + timedelta(**ahead)


@pytest.mark.parametrize("fraction", ["", ".25"])
async def test_102_held(sender: Lines, pool: Pool, fraction: str) -> None:
    moment = until(hours=1)
    for parameter in ("HOLDFOR=1", f"HOLDUNTIL={moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"):
        assert (await sender.send(mail=f"MAIL FROM:<{FROM}> {parameter}")).startswith("250")
    first, second = [message["deliveries"][0] for message in await stored(pool)]
    assert (await pool.fetchval("SELECT created_at FROM message ORDER BY id LIMIT 1")) < first["due_at"]
    assert second["due_at"] == moment.replace(microsecond=250_000 if fraction else 0)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        pytest.param("HOLDFOR=0", "501", id="103-zero"),
        pytest.param("HOLDUNTIL=2099-01-01T00:00:00+00:00", "501", id="103-offset"),
        pytest.param("HOLDUNTIL=26-11-20T12:00:00Z", "501", id="103-two-digit-year"),
        pytest.param("HOLDFOR=1 HOLDFOR=1", "501", id="103-twice"),
        pytest.param("HOLDFOR=1 HOLDUNTIL=2099-01-01T00:00:00Z", "501", id="103-both"),
        pytest.param("HOLDFOR=5184000", "250", id="104-longest"),
        pytest.param("HOLDFOR=5184001", "554", id="104-too-long"),
        pytest.param("HOLDUNTIL=2020-01-01T00:00:00Z", "554", id="104-past"),
        pytest.param("HOLDUNTIL=2099-01-01T00:00:00Z", "554", id="104-too-far"),
        pytest.param("SIZE=52428801", "552", id="2.2-size"),
        pytest.param("SIZE=x", "501", id="2.2-size-syntax"),
        pytest.param("BODY=8BITMIME", "250", id="2.2-8bitmime"),
        pytest.param("BODY=BINARYMIME", "555", id="2.2-binarymime"),
        pytest.param("AUTH=<>", "250", id="2.2-auth-ignored"),
        pytest.param("SMTPUTF8", "250", id="2.2-smtputf8"),
        pytest.param("REQUIRETLS", "250", id="2.2-requiretls"),
        pytest.param("REQUIRETLS=yes", "501", id="2.2-requiretls-value"),
        pytest.param("RET=FULL", "555", id="2.2-unknown"),
    ],
)
async def test_parameters_of_mail(sender: Lines, parameters: str, code: str) -> None:
    assert (await sender.say(f"MAIL FROM:<{FROM}> {parameters}")).startswith(code)


async def test_105_the_offer(lines: Lines) -> None:
    offer = (await lines.say("EHLO c.test")).split("\n")
    words = [line[4:] for line in offer]
    (release,) = [word for word in words if word.startswith("FUTURERELEASE ")]
    _, seconds, latest = release.split(" ")
    assert seconds == "5184000"
    assert datetime.fromisoformat(latest) > until(days=59)
    wanted = {"PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES", "REQUIRETLS"}
    assert wanted | {"SIZE 52428800", "LIMITS RCPTMAX=1000", "AUTH SCRAM-SHA-256 PLAIN LOGIN"} <= set(words)
    assert not {"STARTTLS", "DSN"} & set(words)


@pytest.mark.parametrize(
    ("parameter", "fields", "wanted"),
    [
        (" REQUIRETLS", ["TLS-Required: No"], True),
        (" REQUIRETLS", [], True),
        ("", ["TLS-Required: No"], False),
        ("", ["TLS-Required: No", "TLS-Required: no"], False),
        ("", ["TLS-Required: No", "TLS-Required: bogus"], None),
        ("", [], None),
    ],
)
async def test_106_tls(sender: Lines, pool: Pool, parameter: str, fields: list[str], wanted: object) -> None:
    assert (await sender.send(with_fields(*fields), mail=f"MAIL FROM:<{FROM}>{parameter}")).startswith("250")
    assert (await only(pool))["require_tls"] is wanted


async def test_110_what_is_missing_is_added_and_the_rest_stays(sender: Lines, pool: Pool) -> None:
    assert (await sender.send(MAIL + "..dot\r\n")).startswith("250")
    message = await only(pool)
    part = read(message["content"])
    assert part.header("Message-Id") == message["message_id"] != ""
    assert part.header("Date")
    assert part.fields[0][0] == "Received"
    received = part.header("Received")
    assert received.startswith(f"by mail.posthouse.test id {message['id']}\tfor <{TO}>;")
    assert "127.0.0.1" not in received
    assert message["content"].endswith(b"\r\n\r\nHello, Grace.\r\n.dot\r\n")
    assert (message["subject"], message["sender"], message["door"]) == ("Hello", FROM, "smtp")


async def test_what_is_given_stays(sender: Lines, pool: Pool) -> None:
    content = with_fields("Message-ID: <mine@posthouse.test>", "Date: Fri, 20 Nov 2026 12:00:00 +0000")
    assert (await sender.send(content, to=[TO, "ada@example.org"])).startswith("250")
    message = await only(pool)
    assert message["message_id"] == "<mine@posthouse.test>"
    assert message["content"].endswith(content.encode())
    assert b"for <" not in message["content"]


OTHER = "From: x@other.test\r\n"


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        pytest.param(OTHER + "Subject: x\r\n\r\nx\r\n", "550 5.7.1", id="from-of-another-account"),
        pytest.param(OTHER + MAIL, "550 5.6.0", id="two-from-fields"),
        pytest.param(f"From: {FROM}, x@posthouse.test\r\n\r\nx\r\n", "550 5.6.0", id="two-addresses-in-from"),
        pytest.param("From: nonsense\r\n\r\nx\r\n", "550 5.6.0", id="no-address-in-from"),
        pytest.param("Subject: x\r\n\r\nx\r\n", "550 5.6.0", id="no-from"),
        pytest.param(f"From: {FROM}\r\nSubject: x\r\n", "554 5.6.0", id="no-body"),
        pytest.param(f"From: {FROM}\r\nno field\r\n\r\nx\r\n", "554 5.6.0", id="no-header"),
        pytest.param("", "554 5.6.0", id="nothing"),
        pytest.param("\r\n", "550 5.6.0", id="no-fields"),
        pytest.param(
            with_fields(*(f"X-Long-{n}: {'x' * 900}" for n in range(400))), "552 5.3.4", id="a-header-beyond-reason"
        ),
        pytest.param(with_fields(*(f"X-Mox-Extra-{n}: v" for n in range(101))), "552 5.3.4", id="too-much-metadata"),
    ],
)
async def test_111_messages_that_are_refused(sender: Lines, pool: Pool, content: str, reply: str) -> None:
    assert (await sender.send(content)).startswith(reply)
    assert await stored(pool) == []
    assert (await sender.send()).startswith("250")


@pytest.mark.parametrize("mail_from", ["x@other.test", "other@posthouse.test", "x@[127.0.0.1]", "a..b@posthouse.test"])
async def test_111_senders_that_are_refused(sender: Lines, mail_from: str) -> None:
    assert (await sender.say(f"MAIL FROM:<{mail_from}>")).startswith("550 5.7.1")


async def test_an_api_key_sends_from_every_address_of_its_domain(lines: Lines, demo: Demo, pool: Pool) -> None:
    await lines.login(demo.account_key.split("_")[1], demo.account_key)
    content = MAIL.replace(FROM, "other@posthouse.test")
    assert (await lines.send(content, mail="MAIL FROM:<other@posthouse.test>")).startswith("250")
    assert (await lines.say("MAIL FROM:<x@other.test>")).startswith("550 5.7.1")
    assert (await only(pool))["sender"] == "other@posthouse.test"


async def test_a_domain_that_is_switched_off_is_for_later(sender: Lines, demo: Demo, database_url: str) -> None:
    engine = create_engine(database_url, size=1, service="test")
    async with session_factory(engine)() as session, session.begin():
        domain = await find_domain(session, demo.account_id, "posthouse.test")
        assert domain is not None
        await set_domain_disabled(session, demo.account_id, domain.id, disabled=True)
        second = await create_domain(session, demo.account_id, "second.test")
        await mark_verified(session, demo.account_id, second.id)
        await create_account(session, "Other", AccountOptions())
    await engine.dispose()
    assert (await sender.say(f"MAIL FROM:<{FROM}>")).startswith("451 4.3.0")
    assert (await sender.send(mail="MAIL FROM:<>")).startswith("451 4.3.0")


@pytest.mark.parametrize("recipient", ["x@[192.0.2.1]", "x@127.0.0.1", "a..b@example.org", "postmaster"])
async def test_recipients_that_are_no_addresses(sender: Lines, recipient: str) -> None:
    await sender.say(f"MAIL FROM:<{FROM}>")
    assert (await sender.say(f"RCPT TO:<{recipient}>")).startswith("501 5.1.3")


async def test_112_recipients_are_counted(start_api: StartApi, demo: Demo, tls_files: Any, pool: Pool) -> None:
    api = await start_api(submission_host="127.0.0.1", submissions_port=0, max_recipients=3, **tls_files)
    lines = await Lines.connect(api.addresses["submissions"])
    await lines.login(demo.login, demo.password)
    to = [f"r{number}@example.org" for number in range(3)]
    await lines.say(f"MAIL FROM:<{FROM}>")
    for recipient in to:
        assert (await lines.say(f"RCPT TO:<{recipient}>")).startswith("250")
    assert (await lines.say("RCPT TO:<more@example.org>")).startswith("452 4.5.3")
    assert (await lines.say("DATA")).startswith("354")
    assert (await lines.say(MAIL + ".")).startswith("250")
    lines.close()
    assert [d["recipient"] for d in (await only(pool))["deliveries"]] == to


async def test_113_a_suppressed_recipient_is_taken_and_settled(
    door: RunningApi, sender: Lines, demo: Demo, pool: Pool
) -> None:
    async with door.client(demo.account_key) as client:
        answer = await client.post("/v1/suppressions", json={"address": TO})
        assert answer.status_code == 201, answer.text
    assert (await sender.send()).startswith("250")
    assert [d["state"] for d in (await only(pool))["deliveries"]] == ["suppressed"]
    assert await pool.fetchval("SELECT type FROM event") == "suppressed"


async def test_an_internationalised_message(sender: Lines, pool: Pool) -> None:
    content = MAIL.replace("Subject: Hello", "Subject: Grüße")
    mail = f"MAIL FROM:<{FROM}> SMTPUTF8"
    assert (await sender.send(content, mail=mail, to=["jürgen@exämple.org"])).startswith("250")
    assert (await sender.send(mail=mail)).startswith("250")
    first, second = await stored(pool)
    assert first["smtputf8"] is True
    assert first["subject"] == "Grüße"
    assert first["deliveries"][0]["recipient"] == "jürgen@xn--exmple-cua.org"
    assert second["smtputf8"] is False


async def test_a_group_of_commands_and_chunks(sender: Lines, pool: Pool) -> None:
    half = len(MAIL) // 2
    group = f"MAIL FROM:<{FROM}>\r\nRCPT TO:<{TO}>\r\nBDAT {half}\r\n{MAIL[:half]}BDAT {len(MAIL) - half} LAST\r\n{MAIL[half:]}"
    sender.writer.write(group.encode())
    assert [(await sender.reply())[:3] for _ in range(4)] == ["250"] * 4
    assert (await only(pool))["content"].endswith(b"\r\n\r\nHello, Grace.\r\n")


async def test_nothing_can_be_smuggled_in(sender: Lines, pool: Pool) -> None:
    await sender.envelope()
    assert (await sender.say(MAIL + f"\n.\nMAIL FROM:<{FROM}>\r\n.")).startswith("500 5.5.2")
    assert await stored(pool) == []


async def test_too_large_a_message(start_api: StartApi, demo: Demo, tls_files: Any, pool: Pool) -> None:
    api = await start_api(submission_host="127.0.0.1", submissions_port=0, max_message_bytes=4096, **tls_files)
    lines = await Lines.connect(api.addresses["submissions"])
    await lines.login(demo.login, demo.password)
    assert (await lines.send(MAIL + "x" * 70 * 80 + "\r\n")).startswith("552 5.3.4")
    assert (await lines.send()).startswith("250")
    lines.close()
    assert len(await stored(pool)) == 1


@pytest.mark.parametrize("setting", ["submission_port", "submissions_port"])
async def test_a_port_without_a_certificate_is_refused_at_the_start(start_api: StartApi, setting: str) -> None:
    with pytest.raises(Exception, match=f"POSTHOUSE_{setting.upper()} needs POSTHOUSE_TLS_CERT_FILE"):
        await start_api(submission_host="127.0.0.1", **{setting: 0})
