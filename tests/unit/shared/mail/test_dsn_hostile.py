"""Reports as attackers and the world send them: nothing raises, everything is bounded, and real ones are understood."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.mail.arf import read_feedback
from shared.mail.dsn import MAX_RECIPIENTS, Dsn, read_dsn
from shared.mail.mime import read

DATA = sorted((Path(__file__).parents[3] / "data" / "dsn").glob("*.eml"))
CORPUS = Path(__file__).parents[5] / "shared" / "bounce-corpus"


def report(status: bytes) -> Dsn:
    dsn = read_dsn(
        read(
            b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
            + status
            + b"\n--b--\n"
        )
    )
    assert dsn is not None
    return dsn


def check(dsn: Dsn | None) -> None:
    """What every reading keeps to, whatever was read."""
    if dsn is None:
        return
    assert len(dsn.returned_headers) <= 65_536
    assert len(dsn.recipients) <= MAX_RECIPIENTS
    for one in dsn.recipients:
        for text in (
            one.final_recipient,
            one.original_recipient,
            one.diagnostic,
            one.remote_mta,
            one.enhanced,
            one.status,
        ):
            assert len(text.encode()) <= 4096
            assert "\0" not in text
        assert (one.action is None) == (one.status == "")
        assert one.reply_code == 0 or 200 <= one.reply_code <= 599


FIELDS = st.sampled_from(
    [
        *(
            "Final-Recipient: rfc822; ",
            "Original-Recipient: utf-8; \\x{",
            "Action: ",
            "Status: ",
            "Diagnostic-Code: smtp; ",
            "Reporting-MTA: dns; ",
        ),
        *(
            "Arrival-Date: ",
            "Last-Attempt-Date: Fri, ",
            "failed",
            "delayed",
            "5.1.1",
            "550 ",
            "550-",
            "4.2.2 ",
            "said: ",
            "a@b.example",
            "(",
            ")",
            '"',
            "<",
            ">",
        ),
        *("\n", "\n\n", "\r\n", "\n ", ";", ":", "\x00", "\\", "}", "20 Nov 2026 13:00:00 +0000", "=?utf-8?q?=00?="),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(), st.lists(FIELDS, max_size=50).map(lambda pieces: "".join(pieces).encode())))
def test_no_fields_make_reading_fail(status: bytes) -> None:
    check(report(status))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(DATA), st.integers(0, 5000), st.integers(0, 200), st.binary(max_size=20))
def test_no_damage_to_a_report_makes_reading_fail(path: Path, at: int, cut: int, put: bytes) -> None:
    raw = path.read_bytes()
    message = read(raw[:at] + put + raw[at + cut :])
    check(read_dsn(message))
    read_feedback(message)


@pytest.mark.parametrize(
    "status",
    [
        b"Final-Recipient: rfc822; a@b.example\nAction: failed\n\n" * 20_000,
        b"a: b\n\n" * 100_000,
        b"Diagnostic-Code: smtp; 550 " + b"x" * 1_000_000,
        b"Diagnostic-Code: smtp; " + b"550-5.1.1 " * 100_000,
        b"Diagnostic-Code: smtp; " + b"said: 99 " * 100_000,
        b"Status: 5.1.1 " + b"(" * 1_000_000,
        b"Action: failed\n" + b"more\n" * 200_000,
        b"Final-Recipient: rfc822; " + b"\\x{41}" * 150_000,
        b'Final-Recipient: rfc822; "' + b'\\"' * 400_000,
        b"Final-Recipient: " + b"x;" * 400_000,
    ],
    ids=[
        "recipients",
        "blocks",
        "text",
        "codes",
        "announcements",
        "parentheses",
        "lines",
        "escapes",
        "quotes",
        "types",
    ],
)
def test_a_bomb_of_a_report_is_read_within_bounds(status: bytes) -> None:
    check(report(status))


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the bounce corpus is not next to this tree")
def test_real_reports_name_their_recipients() -> None:
    """Of the reports by Postfix and of those without a known origin that are built as RFC 3464 asks, at least nine in ten."""
    labels = json.loads((CORPUS / "labels.json").read_text())
    wrong, seen = [], 0
    for name, expected in labels.items():
        dsn = read_dsn(read((CORPUS / "messages" / name).read_bytes()))
        check(dsn)
        if dsn is None or not name.startswith(("rfc3464-", "lhost-postfix-")):
            continue
        seen += 1
        if len(dsn.recipients) != len(expected):
            wrong.append(name)
    assert seen >= 40
    assert len(wrong) <= seen // 10, wrong
