"""Logging in at the SMTP door."""

import smtplib

import aiosmtplib
import pytest

from fakes.certificates import trusting_context
from integration.api.conftest import RunningApi, StartApi
from integration.api.submission_client import (
    FROM,
    MAIL,
    TO,
    Lines,
    b64,
    challenge,
    plain,
    port_of,
    scram_final,
    with_smtplib,
)
from integration.api.submission_door import door, lines, tls_files
from shared.db.demo import Demo
from shared.db.engine import Pool

__all__ = ["door", "lines", "tls_files"]


async def messages(pool: Pool) -> int:
    return int(await pool.fetchval("SELECT count(*) FROM message"))


def users(demo: Demo) -> dict[str, tuple[str, str]]:
    """Every way to say who one is."""
    _, key_id, secret = demo.account_key.split("_", 2)
    return {
        "login": (demo.login, demo.password),
        "login in capitals": (demo.login.upper(), demo.password),
        "key id and secret": (key_id, secret),
        "key id and whole key": (key_id, demo.account_key),
    }


@pytest.mark.parametrize("who", ["login", "login in capitals", "key id and secret", "key id and whole key"])
@pytest.mark.parametrize("implicit", [True, False], ids=["implicit TLS", "STARTTLS"])
async def test_smtplib_sends(door: RunningApi, demo: Demo, pool: Pool, who: str, implicit: object) -> None:
    user, password = users(demo)[who]

    def work(client: smtplib.SMTP) -> object:
        client.login(user, password)
        return client.sendmail(FROM, [TO], MAIL)

    name = "submissions" if implicit else "submission"
    assert await with_smtplib(door.addresses[name], work, implicit=bool(implicit)) == {}
    row = await pool.fetchrow("SELECT door, account_id, credential_id FROM message")
    assert (row["door"], row["account_id"]) == ("smtp", demo.account_id)
    assert row["credential_id"] is not None


@pytest.mark.parametrize("mechanism", ["plain", "login"])
async def test_aiosmtplib_sends(door: RunningApi, demo: Demo, pool: Pool, mechanism: str) -> None:
    client = aiosmtplib.SMTP(
        hostname="localhost",
        port=port_of(door.addresses["submission"]),
        start_tls=True,
        tls_context=trusting_context(),
    )
    async with client:
        await client.ehlo()
        await getattr(client, f"auth_{mechanism}")(demo.login, demo.password)
        await client.sendmail(FROM, [TO], MAIL)
    assert await messages(pool) == 1


@pytest.mark.parametrize("who", ["login", "key id and whole key"])
async def test_scram(lines: Lines, demo: Demo, pool: Pool, who: str) -> None:
    user, password = users(demo)[who]
    assert "AUTH SCRAM-SHA-256 PLAIN LOGIN" in await lines.say("EHLO c.test")
    bare = f"n={user},r=fyko+d2lbbFgONRv9qkxdawL"
    final, proof = scram_final(password, bare, challenge(await lines.say(f"AUTH SCRAM-SHA-256 {b64('n,,' + bare)}")))
    assert challenge(await lines.say(b64(final))) == proof
    assert (await lines.say("")).startswith("235 2.7.0")
    assert (await lines.send()).startswith("250 2.2.0")
    assert await messages(pool) == 1


@pytest.mark.parametrize("user", [FROM, "nobody@posthouse.test", "aaaaaaaaaaaa"])
async def test_scram_says_of_nobody_who_exists(lines: Lines, user: str) -> None:
    await lines.say("EHLO c.test")
    salts = set()
    for _ in range(2):
        bare = f"n={user},r=fyko+d2lbbFgONRv9qkxdawL"
        first = challenge(await lines.say(f"AUTH SCRAM-SHA-256 {b64('n,,' + bare)}"))
        salts.add(first.split(",", 1)[1])
        final, _ = scram_final("wrong", bare, first)
        assert await lines.say(b64(final)) == "535 5.7.8 User name or password is wrong"
    assert len(salts) == 1


@pytest.mark.parametrize(
    ("user", "password"), [(FROM, "wrong"), ("nobody@posthouse.test", "x"), ("aaaaaaaaaaaa", "x"), ("no address@", "x")]
)
async def test_wrong_is_wrong_whatever_is_wrong(lines: Lines, user: str, password: str) -> None:
    await lines.say("EHLO c.test")
    assert await lines.say(plain(user, password)) == "535 5.7.8 User name or password is wrong"
    assert (await lines.say(f"MAIL FROM:<{FROM}>")).startswith("530 5.7.0")


@pytest.mark.parametrize(
    ("response", "reply"),
    [
        ("\0", "501 5.5.2"),
        ("just text", "501 5.5.2"),
        ("a\0b\0c\0d", "501 5.5.2"),
        ("other@posthouse.test\0demo@posthouse.test\0posthouse-demo", "535 5.7.8"),
    ],
)
async def test_plain_has_three_words_and_one_identity(lines: Lines, demo: Demo, response: str, reply: str) -> None:
    await lines.say("EHLO c.test")
    assert (await lines.say(f"AUTH PLAIN {b64(response)}")).startswith(reply)


async def test_an_operators_key_sends_nothing(lines: Lines, demo: Demo) -> None:
    await lines.say("EHLO c.test")
    _, key_id, secret = demo.admin_key.split("_", 2)
    assert "belongs to no account" in await lines.say(plain(key_id, secret))


async def test_nobody_says_a_password_without_tls(door: RunningApi, demo: Demo) -> None:
    lines = await Lines.connect(door.addresses["submission"], implicit=False)
    offer = await lines.say("EHLO c.test")
    assert "STARTTLS" in offer
    assert "AUTH" not in offer
    assert "REQUIRETLS" not in offer
    assert (await lines.say(plain(demo.login, demo.password))).startswith("538 5.7.11")
    lines.close()


async def test_the_local_stack_takes_a_password_without_tls(start_api: StartApi, demo: Demo, pool: Pool) -> None:
    api = await start_api(env="local", submission_host="127.0.0.1", submission_port=0)
    assert "submissions" not in api.addresses
    lines = await Lines.connect(api.addresses["submission"], implicit=False)
    await lines.login(demo.login, demo.password)
    assert (await lines.send()).startswith("250")
    assert (await lines.send(mail=f"MAIL FROM:<{FROM}> REQUIRETLS")).startswith("523 5.7.10")
    lines.close()
    assert await messages(pool) == 1


async def test_after_ten_failures_even_the_right_password_has_to_wait(lines: Lines, demo: Demo) -> None:
    await lines.say("EHLO c.test")
    replies = [(await lines.say(plain(demo.login, "wrong")))[:3] for _ in range(12)]
    assert "454" in replies  # the window may have turned once meanwhile, but not twice
    assert replies[:10].count("535") >= 1
    if replies[-1] == "454":
        assert (await lines.say(plain(demo.login, demo.password))).startswith("454 4.7.0")


async def test_a_revoked_key_sends_no_more_on_a_session_that_stands(door: RunningApi, demo: Demo, lines: Lines) -> None:
    _, key_id, secret = demo.account_key.split("_", 2)
    await lines.login(key_id, secret)
    assert (await lines.send()).startswith("250")
    async with door.client(demo.admin_key) as client:
        listed = (await client.get(f"/v1/accounts/{demo.account_id}/keys")).json()
        (mine,) = [item["id"] for item in listed["data"] if item["key_id"] == key_id]
        answer = await client.delete(f"/v1/accounts/{demo.account_id}/keys/{mine}")
        assert answer.status_code < 300, answer.text
    assert (await lines.say(f"MAIL FROM:<{FROM}>")).startswith("530 5.7.0")
