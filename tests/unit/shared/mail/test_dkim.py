"""Signatures, judged by dkimpy; the streaming body hash, judged by RFC 6376 and by itself over any chunking."""

import base64
import hashlib
import re
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

import dkim as dkimpy  # type: ignore[import-untyped] # it has no types
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ValidationFailed
from shared.mail.address import parse
from shared.mail.compose import Composed, Draft, Mailbox, compose
from shared.mail.dkim import Algorithm, DkimKey, Signer, body_hash, dns_record, generate_key, sign

NOW = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)
ALGORITHMS: tuple[Algorithm, ...] = ("rsa-sha256", "ed25519-sha256")
PEMS = {algorithm: generate_key(algorithm) for algorithm in ALGORITHMS}
SIGNERS = {
    algorithm: Signer(DkimKey("posthouse.test", algorithm[:2], algorithm, PEMS[algorithm])) for algorithm in ALGORITHMS
}
ZONE = {
    f"{algorithm[:2]}._domainkey.posthouse.test.".encode(): dns_record(pem).encode() for algorithm, pem in PEMS.items()
}

# Blanks, bare CRs and LFs and line ends in every mixture.
bodies = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"\r", b"\n", b"a", b"word", b"\r\n\r\n", b"   "]), max_size=40
).map(b"".join)


def txt(name: bytes, **_: object) -> bytes | None:
    return ZONE.get(name)


def verified(message: bytes, index: int = 0) -> bool:
    try:
        return bool(dkimpy.DKIM(message).verify(index, dnsfunc=txt))
    except dkimpy.ValidationError:
        return False


def mail(**changes: object) -> Composed:
    box = Mailbox("Jürgen", parse("demo@posthouse.test"))
    given: dict[str, object] = {
        "sender": box,
        "to": (box,) * 5,
        "cc": (),
        "reply_to": (),
        "subject": "Grüße  aus Köln, " * 8,
        "text": "Hi  \t there \n\n\nü\n\n\n",
        "html": "<p>",
        "message_id": "<1@posthouse.test>",
        "date": NOW,
        "headers": (
            ("List-Unsubscribe", "<https://example.com/u>"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ),
    }
    return compose(Draft(**(given | changes)), boundaries=lambda: "b")  # type: ignore[arg-type] # a test names the fields it is about


def canonical(body: bytes) -> bytes:
    """RFC 6376 section 3.4.4 read literally, on the whole body."""
    lines = re.sub(rb"[ \t]+", b" ", body)
    lines = re.sub(rb" (?=\r\n|\Z)", b"", lines)
    lines = re.sub(rb"(?:\r\n)*\Z", b"", lines)
    return lines + b"\r\n" if lines else b""


def signed(composed: Composed, *algorithms: Algorithm) -> bytes:
    return sign([SIGNERS[algorithm] for algorithm in algorithms], composed.header, body_hash([composed.body]), now=NOW)


def tags(field: bytes) -> dict[str, str]:
    value = re.sub(rb"\s+", b"", field.partition(b":")[2]).decode()
    return {name: content for name, _, content in (tag.partition("=") for tag in value.split(";"))}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_verifies_and_a_changed_mail_does_not(algorithm: Algorithm) -> None:
    composed = mail()
    field = signed(composed, algorithm)
    assert verified(field + composed.message)
    assert not verified(field + composed.message.replace(b"<p>", b"<q>"))
    assert not verified(field + composed.message.replace(b"Message-Id: <1", b"Message-Id: <2"))


def test_each_signer_adds_a_signature_of_its_own() -> None:
    composed = mail()
    fields = signed(composed, *ALGORITHMS)
    assert fields.count(b"DKIM-Signature:") == 2
    assert [verified(fields + composed.message, index) for index in (0, 1)] == [True, True]


@pytest.mark.parametrize(
    "addition",
    [
        *(
            "From: evil@example.com",
            "Subject: evil",
            "To: evil@example.com",
            "Cc: evil@example.com",
            "Date: Mon, 1 Jan 2001 00:00:00 +0000",
        ),
        *(
            "Reply-To: evil@example.com",
            "Message-Id: <evil@d>",
            "In-Reply-To: <evil@d>",
            "References: <evil@d>",
            "MIME-Version: 1.0",
        ),
        *(
            "Content-Type: text/html",
            "Content-Transfer-Encoding: base64",
            "List-Unsubscribe: <https://evil.example>",
            "List-Unsubscribe-Post: x=y",
        ),
    ],
)
@pytest.mark.parametrize("place", ["top", "bottom"])
def test_a_field_added_later_breaks_the_signature(addition: str, place: Literal["top", "bottom"]) -> None:
    composed = mail()
    field = signed(composed, "ed25519-sha256")
    extra = addition.encode() + b"\r\n"
    header = extra + composed.header if place == "top" else composed.header + extra
    assert not verified(field + header + b"\r\n" + composed.body)


def test_an_unsigned_field_and_refolding_leave_the_signature_whole() -> None:
    composed = mail()
    field = signed(composed, "ed25519-sha256")
    header = b"Received: from a by b\r\n" + composed.header.replace(b"\r\n\t", b"\r\n  \t ").replace(
        b"Message-Id: ", b"MESSAGE-ID:\t"
    )
    assert verified(field + header + b"\r\n" + composed.body.replace(b"\r\n", b"  \r\n") + b"\r\n\r\n")


def test_a_mail_of_someone_else_with_repeated_fields_verifies() -> None:
    header = b"Received: x\r\nList-Id: <a>\r\nFROM : A\r\n <a@posthouse.test>\r\nList-Id: <b>\r\nSubject:\r\nComments: one\r\nComments: two\r\n"
    body = b"hi\r\n"
    field = sign([SIGNERS["ed25519-sha256"]], header, body_hash([body]), now=NOW)
    assert verified(field + header.replace(b"FROM :", b"From:") + b"\r\n" + body)


def test_the_field_says_what_was_done() -> None:
    field = signed(mail(), "rsa-sha256")
    found = tags(field)
    assert {name: found[name] for name in ("v", "a", "c", "d", "s", "t")} == {
        "v": "1",
        "a": "rsa-sha256",
        "c": "relaxed/relaxed",
        "d": "posthouse.test",
        "s": "rs",
        "t": str(int(NOW.timestamp())),
    }
    names = found["h"].split(":")
    for name in (
        "from",
        "to",
        "subject",
        "date",
        "message-id",
        "mime-version",
        "content-type",
        "list-unsubscribe",
        "list-unsubscribe-post",
    ):
        assert names.count(name) == 2
    for name in ("cc", "reply-to", "in-reply-to", "references", "content-transfer-encoding"):
        assert names.count(name) == 1
    assert "list-id" not in names
    assert max(map(len, field.split(b"\r\n"))) <= 77
    assert all(line.startswith(b"\t") for line in field.removesuffix(b"\r\n").split(b"\r\n")[1:])


@pytest.mark.parametrize(
    "header",
    [b"Subject: no from\r\n", b"From: a\nb: c\r\n", b"From: a@b", b"From: a@b\r\n\r\n", b" x\r\n", b"x\r\n", b""],
)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(ValidationFailed):
        sign([SIGNERS["ed25519-sha256"]], header, body_hash([]), now=NOW)


@given(bodies, st.lists(st.integers(0, 80), max_size=10))
def test_the_body_hash_does_not_depend_on_the_chunks(body: bytes, cuts: list[int]) -> None:
    expected = hashlib.sha256(canonical(body)).digest()
    places = [0, *sorted(cuts), len(body)]
    assert body_hash([body]) == expected
    assert body_hash(body[start:end] for start, end in pairwise(places)) == expected
    assert body_hash(bytes([octet]) for octet in body) == expected


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"word", b"--"]), max_size=30).map(b"".join))
def test_dkimpy_agrees_with_the_body_hash(body: bytes) -> None:
    # dkimpy hashes white space alone in the last line, without a line end, otherwise; SMTP always ends with one.
    header = b"From: a@posthouse.test\r\n"
    field = sign([SIGNERS["ed25519-sha256"]], header, body_hash([body, b"\r\n"]), now=NOW)
    assert verified(field + header + b"\r\n" + body + b"\r\n")


def test_an_empty_body_has_the_hash_of_nothing() -> None:
    # RFC 6376 section 3.4.4 gives it.
    nothing = base64.b64decode("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
    assert body_hash([]) == body_hash([b"", b"\r\n\r\n"]) == body_hash([b" \t\r\n"]) == nothing


def test_many_blank_lines_are_counted_not_kept() -> None:
    blank = b"\r\n" * 10_000
    assert body_hash([b"a", blank, b"b", blank]) == hashlib.sha256(b"a" + blank + b"b\r\n").digest()


def test_a_dns_record_has_the_public_key() -> None:
    record = dns_record(PEMS["rsa-sha256"])
    kind, public = re.fullmatch(r"v=DKIM1; k=(\w+); p=(\S+)", record).groups()  # type: ignore[union-attr] # the test fails on None
    loaded = serialization.load_der_public_key(base64.b64decode(public))
    assert kind == "rsa"
    assert isinstance(loaded, rsa.RSAPublicKey)
    assert loaded.key_size == 2048
    assert re.fullmatch(r"v=DKIM1; k=ed25519; p=[A-Za-z0-9+/]{43}=", dns_record(PEMS["ed25519-sha256"]))


def pem_of(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


# 512 bits: anyone can break it, and RFC 8301 forbids it.
WEAK_RSA_DER = base64.b64decode(
    "MIIBPAIBAAJBANC/p5dZhfI7eNnlIa5wsFQFepsaYsANLqFZkgzecDOkBhtcEcMSsvMp9iAWjXDru6WrmuFCCuloL1i6iwDx5d8C"
    "AwEAAQJBALJdcJfT+K23v1V/gT4KL8A7Rj3NV9995AAeBrtUPU8BJi1CJNr5yj0U4S9mm2MXaXgEUEHmDbRu1FnVMdalJmECIQD1"
    "Yh1kPEYoCefq9IcyzMu3klLI2wM/TeV1V6A6UvMQ1wIhANnHxZpwiqIMb5NR7Pxd++qDi0DBq4TM6KkMwNdqE0o5AiEAiGS9CZYn"
    "OOIoswSwkaAcLDF9Kn/yUiGuRYcrXL/2s4kCIDcs4eeK89SyieItM3mM5jI4OaOiba4rrBaIYKMzAMghAiEAu4klX71SYYi1m8mM"
    "eV4usYfTW1uGpaTkMDpEasuZs6Q="
)
WEAK_RSA = b"-----BEGIN RSA PRIVATE KEY-----\n" + base64.encodebytes(WEAK_RSA_DER) + b"-----END RSA PRIVATE KEY-----\n"
CURVE = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"nonsense",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        WEAK_RSA,
        pem_of(CURVE),
        pem_of(CURVE, b"secret"),
    ],
)
def test_what_is_no_key_for_dkim_is_refused(pem: bytes) -> None:
    for use in (lambda: dns_record(pem), lambda: Signer(DkimKey("d", "s", "rsa-sha256", pem))):
        with pytest.raises(ValidationFailed) as caught:
            use()
        assert caught.value.field == "private_key"


def test_a_key_must_fit_its_algorithm() -> None:
    with pytest.raises(ValidationFailed, match="rsa-sha256"):
        Signer(DkimKey("d", "s", "rsa-sha256", PEMS["ed25519-sha256"]))
    with pytest.raises(ValidationFailed, match="ed25519-sha256"):
        Signer(DkimKey("d", "s", "ed25519-sha256", PEMS["rsa-sha256"]))


def test_an_old_pkcs1_key_signs_too_and_no_key_is_shown() -> None:
    private = serialization.load_pem_private_key(PEMS["rsa-sha256"], password=None)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    key = DkimKey("posthouse.test", "rs", "rsa-sha256", pem)
    composed = mail()
    field = sign([Signer(key)], composed.header, body_hash([composed.body]), now=NOW)
    assert verified(field + composed.message)
    assert "PRIVATE" not in repr(key)
