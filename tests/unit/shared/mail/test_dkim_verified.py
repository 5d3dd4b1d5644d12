"""Every form of mail that we sign, under every set of keys, verified by dkimpy as its receivers would."""

import re
from collections.abc import Sequence
from datetime import timedelta

import dkim as dkimpy  # type: ignore[import-untyped] # it has no types
import pytest

from shared.clock import utc_now
from shared.mail.dkim import Algorithm, DkimKey, Signer, body_hash, dns_record, generate_key, sign

ALGORITHMS: tuple[Algorithm, ...] = ("rsa-sha256", "ed25519-sha256")
PEMS = {algorithm: generate_key(algorithm) for algorithm in ALGORITHMS}
SIGNERS = {
    algorithm: Signer(DkimKey("ours.test", algorithm[:2], algorithm, PEMS[algorithm])) for algorithm in ALGORITHMS
}
ZONE = {f"{algorithm[:2]}._domainkey.ours.test.".encode(): dns_record(pem).encode() for algorithm, pem in PEMS.items()}
KEYS: list[tuple[Algorithm, ...]] = [("rsa-sha256",), ("ed25519-sha256",), ALGORITHMS, ALGORITHMS[::-1]]

PLAIN = (
    b"Received: by ours.test id 7\r\n\tfor <b@theirs.test>; Fri, 20 Nov 2026 13:00:00 +0000\r\n"
    b"From: <a@ours.test>\r\nTo: <b@theirs.test>\r\nSubject: Hello\r\nDate: Fri, 20 Nov 2026 13:00:00 +0000\r\n"
    b"Message-Id: <1@ours.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
    b"Content-Transfer-Encoding: 7bit\r\n"
)
HEADERS = {
    "plain": PLAIN,
    "folded": PLAIN.replace(b"Hello", b"Hello,\r\n dear\r\n\t reader\r\n  of  long \t lines").replace(
        b"<b@theirs.test>\r\nSubject", b"<b@theirs.test>,\r\n\t<c@theirs.test>\r\nSubject"
    ),
    "utf8": PLAIN.replace(b"<a@ours.test>", "Jörg <jörg@ours.test>".encode()).replace(
        b"Hello", "Grüße aus 東京".encode()
    ),
    "list": PLAIN
    + b"List-Unsubscribe: <https://ours.test/u/1>,\r\n\t<mailto:u@ours.test>\r\n"
    + b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
    "repeated": PLAIN + b"Comments: one\r\nList-Id: <one.ours.test>\r\nComments: two\r\nList-Id: <two.ours.test>\r\n",
    "empty fields": PLAIN + b"Cc:\r\nReferences: \r\n",
}
BODIES = {
    "text": b"Hello\r\n",
    "empty": b"",
    "only line ends": b"\r\n\r\n\r\n",
    "line ends at the end": b"Hello\r\n\r\n\r\n\r\n",
    "no line end": b"Hello",
    "white space": b" Hello \t  there  \r\n\t\r\n  \r\nend \r\n",
    "eight bits": "Grüße\r\n東京\r\n".encode(),
    "long": b"0123456789 " * 90 + b"\r\n" + b"x" * 200_000 + b"\r\n",
}


def txt(name: bytes, **_: object) -> bytes | None:
    return ZONE.get(name)


def verified(message: bytes, index: int = 0) -> bool:
    try:
        return bool(dkimpy.DKIM(message).verify(index, dnsfunc=txt))
    except dkimpy.ValidationError:
        return False


def signed(
    header: bytes, body: bytes, keys: Sequence[Algorithm], *, age: timedelta = timedelta(), **more: object
) -> bytes:
    signers = [SIGNERS[algorithm] for algorithm in keys]
    return sign(signers, header, body_hash([body]), now=utc_now() - age, **more)  # type: ignore[arg-type] # passed on


@pytest.mark.parametrize("keys", KEYS, ids="+".join)
@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("body", BODIES)
def test_every_signature_verifies(keys: tuple[Algorithm, ...], header: str, body: str) -> None:
    fields = signed(HEADERS[header], BODIES[body], keys, expires_after=timedelta(days=7))
    message = fields + HEADERS[header] + b"\r\n" + BODIES[body]
    assert [verified(message, index) for index in range(len(keys))] == [True] * len(keys)
    algorithms = re.findall(rb"a=([a-z0-9-]+);", fields)
    assert [algorithm.decode() for algorithm in algorithms] == list(keys)


@pytest.mark.parametrize("keys", KEYS[:3], ids="+".join)
@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_changed_verifies_under_none(keys: tuple[Algorithm, ...], body: str) -> None:
    fields = signed(PLAIN, BODIES[body], keys)
    changed = fields + PLAIN + b"\r\n" + BODIES[body] + b"more\r\n"
    assert not any(verified(changed, index) for index in range(len(keys)))


@pytest.mark.parametrize(
    "addition",
    [
        b"From: <eve@evil.test>",
        b"To: <eve@evil.test>",
        b"Cc: <eve@evil.test>",
        b"Reply-To: <eve@evil.test>",
        b"Subject: evil",
        b"Date: Mon, 1 Jan 2001 00:00:00 +0000",
        b"Message-Id: <evil@evil.test>",
        b"In-Reply-To: <evil@evil.test>",
        b"References: <evil@evil.test>",
        b"MIME-Version: 1.0",
        b"Content-Type: text/html",
        b"Content-Transfer-Encoding: base64",
        b"List-Unsubscribe: <https://evil.test>",
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click",
    ],
)
def test_what_is_added_under_way_breaks_both_signatures(addition: bytes) -> None:
    header = HEADERS["list"]
    fields = signed(header, b"Hello\r\n", ALGORITHMS)
    assert verified(fields + header + b"\r\nHello\r\n")
    for changed in (addition + b"\r\n" + header, header + addition + b"\r\n"):
        message = fields + changed + b"\r\nHello\r\n"
        assert [verified(message, index) for index in (0, 1)] == [False, False]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_holds_until_it_expires(algorithm: Algorithm) -> None:
    week = timedelta(days=7)

    def holds(age: timedelta, expires_after: timedelta | None) -> bool:
        fields = signed(PLAIN, b"Hello\r\n", (algorithm,), age=age, expires_after=expires_after)
        return verified(fields + PLAIN + b"\r\nHello\r\n")

    assert holds(timedelta(days=6), week)
    assert not holds(timedelta(days=8), week)
    assert holds(timedelta(days=400), None)


def test_the_times_are_whole_seconds_and_the_end_is_signed() -> None:
    fields = signed(PLAIN, b"Hello\r\n", ALGORITHMS, expires_after=timedelta(days=7, milliseconds=1))
    times = re.findall(rb"t=(\d+); x=(\d+);", fields)
    assert [int(x) - int(t) for t, x in times] == [604_800, 604_800]
    later = re.sub(rb"x=\d+", lambda found: b"x=%d" % (int(found[0][2:]) + 1), fields)
    assert not verified(later + PLAIN + b"\r\nHello\r\n")
    assert b"x=" not in signed(PLAIN, b"Hello\r\n", ("ed25519-sha256",))
