"""The demo judges by itself, so what it judges with is held against other people's software."""

import base64
import email
import hashlib
import time
from datetime import UTC, datetime

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from standardwebhooks.webhooks import Webhook

from posthouse.demo.dkim_check import verified
from posthouse.demo.receiver import fault_of
from posthouse.demo.remote import Mail
from posthouse.demo.report import write_report
from posthouse.demo.story import stamp
from shared.mail.dsn import Action, read_dsn
from shared.mail.mime import read

MAIL = (
    b"From: Ada <ada@example.com>\r\nTo: grace@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\tund mehr\r\n"
    b"Date: Fri, 20 Nov 2026 13:00:00 +0000\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\nHello,  \t Grace \r\n\r\n.\r\n\r\n\r\n"
)
PATH = "demo+mzxw6ytboi2gk3tunbuw4zzanf@posthouse.test"


@pytest.fixture(scope="module")
def signed() -> tuple[bytes, dict[str, str]]:
    """A mail with an RSA and an Ed25519 signature by dkimpy, and the records of the keys."""
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = rsa_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    der = rsa_key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ed_key = ed25519.Ed25519PrivateKey.generate()
    headers = [b"from", b"to", b"subject", b"date", b"x-twice", b"x-twice", b"x-never"]
    canonical = (b"relaxed", b"relaxed")
    one = dkim.sign(MAIL, b"r", b"example.com", pem, canonicalize=canonical, include_headers=headers)
    two = dkim.sign(
        MAIL,
        b"e",
        b"example.com",
        base64.b64encode(ed_key.private_bytes_raw()),
        canonicalize=canonical,
        include_headers=headers,
        signature_algorithm=b"ed25519-sha256",
    )
    records = {
        "r._domainkey.example.com": f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}",
        "e._domainkey.example.com": f"v=DKIM1; k=ed25519; p={base64.b64encode(ed_key.public_key().public_bytes_raw()).decode()}",
    }
    return two + one + MAIL, records


def test_signatures_of_others_hold(signed: tuple[bytes, dict[str, str]]) -> None:
    mail, records = signed
    assert verified(mail, records) == ["ed25519-sha256 by example.com", "rsa-sha256 by example.com"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"Hello,", b"Hullo,", "body"),
        (b"To: grace", b"To: Grace", "does not hold"),
        (b"X-Twice: 1", b"X-Twice: 3", "does not hold"),
        (b"From: Ada", b"X-Never: 1\r\nFrom: Ada", "does not hold"),
        (b"d=example.com", b"d=example.net", "no DNS record"),
        (b"c=relaxed/relaxed", b"c=simple/simple", "another kind"),
        (b"DKIM-Signature:", b"X-Signature:", "no DKIM signature"),
        (b" h=from :", b" h=", "does not cover From"),
    ],
)
def test_a_changed_mail_is_told(signed: tuple[bytes, dict[str, str]], old: bytes, new: bytes, says: str) -> None:
    mail, records = signed
    assert old in mail
    with pytest.raises(ValueError, match=says):
        verified(mail.replace(old, new), records)


def test_a_signature_of_another_key_does_not_hold(signed: tuple[bytes, dict[str, str]]) -> None:
    mail, records = signed
    other = base64.b64encode(ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    with pytest.raises(ValueError, match="does not hold"):
        verified(mail, {**records, "e._domainkey.example.com": f"v=DKIM1; k=ed25519; p={other}"})


def test_webhooks_of_others_are_believed_and_forged_ones_are_not() -> None:
    secret, body, now = bytes(range(32)), b'{"type": "delivered"}', int(time.time())
    oracle = Webhook("whsec_" + base64.b64encode(secret).decode())
    signature = oracle.sign("msg_1", datetime.fromtimestamp(now, UTC), body.decode())

    def fault(**other: str | bytes) -> str | None:
        given = {"secret": secret, "identifier": "msg_1", "timestamp": str(now), "signature": signature, "body": body}
        return fault_of(**{**given, **other})  # type: ignore[arg-type]  # each of its own type

    assert fault() is None
    assert fault(signature=f"v1,AAAA {signature}") is None
    assert "signature" in (fault(body=body + b" ") or "")
    assert "signature" in (fault(identifier="msg_2") or "")
    assert "signature" in (fault(signature="") or "")
    assert "signature" in (fault(secret=hashlib.sha256(secret).digest()) or "")
    assert "time" in (fault(timestamp=str(now - 3600)) or "")
    assert "time" in (fault(timestamp="") or "")


def test_the_report_is_one_to_its_readers() -> None:
    raw = write_report(Mail(PATH, "grace@customer.example", MAIL, "250 2.0.0 Ok"))
    assert b"\n" not in raw.replace(b"\r\n", b"")
    parsed = email.message_from_bytes(raw)
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert parsed["To"] == PATH
    assert [part.get_content_type() for part in parsed.get_payload()] == [  # type: ignore[union-attr]  # a multipart's are parts
        *("text/plain", "message/delivery-status", "text/rfc822-headers")
    ]
    dsn = read_dsn(read(raw))
    assert dsn is not None
    (recipient,) = dsn.recipients
    assert (recipient.final_recipient, recipient.action, recipient.status, recipient.reply_code) == (
        *("grace@customer.example", Action.FAILED, "5.1.1", 550),
    )
    assert dsn.returned_headers.startswith(b"From: Ada")


def test_the_stamp_is_a_picture() -> None:
    picture = stamp()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.endswith(b"IEND\xaeB`\x82")
