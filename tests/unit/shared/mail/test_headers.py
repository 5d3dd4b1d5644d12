"""Header fields: nothing breaks out of one, lines stay short, and every text reads back as it was."""

import email
import re
from datetime import UTC, datetime, timedelta, timezone
from email import policy
from email.header import decode_header, make_header
from email.utils import getaddresses, parsedate_to_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import ValidationFailed
from shared.mail import headers
from shared.mail.address import parse
from shared.mail.headers import Mailbox

ADDRESS = parse("bob@example.com")
line_text = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029"), max_size=200)
wordy = st.lists(
    st.sampled_from(["a", "word", "ü", "日本語", "=?utf-8?q?x?=", "", "x" * 90, "“quoted”", "_", "=", "?"]), max_size=30
).map(" ".join)


def value_of(field: bytes) -> str:
    """Unfold and decode a field as RFC 5322 section 2.2.3 and RFC 2047 say, with the standard library's compat32 parser."""
    raw = email.message_from_bytes(field + b"\r\n").items()[0][1]
    return str(make_header(decode_header(re.sub(r"\r\n(?=[ \t])", "", raw))))


def longest_line(field: bytes) -> int:
    return max(len(line) for line in field.split(b"\r\n"))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("Hello", b"Subject: Hello\r\n"),
        ("", b"Subject:\r\n"),
        ("Grüße aus Köln", b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= aus =?utf-8?q?K=C3=B6ln?=\r\n"),
        ("für Österreich x", b"Subject: =?utf-8?q?f=C3=BCr_=C3=96sterreich?= x\r\n"),
        ("a  b", b"Subject: a  b\r\n"),
        ("a  ü  b", b"Subject: a =?utf-8?q?_=C3=BC_?= b\r\n"),
        (" a", b"Subject: =?utf-8?q?_a?=\r\n"),
        ("=?utf-8?q?x?=", b"Subject: =?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?=\r\n"),
        ("word " * 20 + "end", b"Subject: " + b"word " * 12 + b"word\r\n " + b"word " * 7 + b"end\r\n"),
    ],
)
def test_only_words_that_need_it_are_encoded(text: str, field: bytes) -> None:
    assert headers.unstructured("Subject", text) == field


@given(wordy | line_text)
@example("ü a ")
@example("a  b ")
def test_a_text_reads_back_exactly(text: str) -> None:
    field = headers.unstructured("Subject", text)
    assert field.isascii()
    assert value_of(field) == text
    assert field.count(b"\r\n") == len(re.findall(rb"\r\n[ \t]", field)) + 1


@given(wordy | line_text)
def test_a_text_of_short_words_has_short_lines(text: str) -> None:
    if all(len(word) <= 60 for word in text.split(" ")):
        assert longest_line(headers.unstructured("Subject", text)) <= 77


@given(st.text("aü日€😀", min_size=30, max_size=300).map("ü".__add__))
def test_each_encoded_word_is_whole_by_itself(text: str) -> None:
    words = re.findall(rb"=\?utf-8\?[qb]\?[^ ?]*\?=", headers.unstructured("Subject", text))
    assert words
    for word in words:
        assert len(word) <= 75
        assert "\ufffd" not in str(make_header(decode_header(word.decode())))


def test_a_script_without_latin_letters_is_written_in_base64_when_it_is_long() -> None:
    assert b"=?utf-8?b?" in headers.unstructured("Subject", "日本語" * 20)
    assert b"=?utf-8?q?" in headers.unstructured("Subject", "☺")


def test_an_internationalised_message_has_raw_text_and_unicode_domains() -> None:
    assert headers.unstructured("Subject", "Grüße aus Köln", utf8=True) == "Subject: Grüße aus Köln\r\n".encode()
    assert headers.address_list("To", [Mailbox("", parse("ü@ö.d"))], utf8=True) == "To: ü@ö.d\r\n".encode()
    assert longest_line(headers.unstructured("Subject", "wörter " * 40 + "x", utf8=True)) <= 77


def test_an_address_list_quotes_or_encodes_names() -> None:
    boxes = [Mailbox("", ADDRESS), Mailbox('Bob "B" \\', ADDRESS), Mailbox("Jürgen, Müller", parse("x@ö.d"))]
    field = headers.address_list("To", boxes)
    assert field == (
        b'To: bob@example.com, "Bob \\"B\\" \\\\" <bob@example.com>,\r\n\t=?utf-8?q?J=C3=BCrgen=2C_M=C3=BCller?= <x@xn--nda.d>\r\n'
    )


def test_a_display_name_that_looks_like_an_encoded_word_is_not_decoded_by_readers() -> None:
    assert (
        headers.address_list("To", [Mailbox("=?utf-8?q?x?=", ADDRESS)])
        == b"To: =?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?= <bob@example.com>\r\n"
    )


@given(st.lists(line_text, min_size=1, max_size=5))
def test_display_names_read_back(names: list[str]) -> None:
    field = headers.address_list("To", [Mailbox(name, ADDRESS) for name in names])
    raw = email.message_from_bytes(field + b"\r\n")["To"]
    pairs = getaddresses([re.sub(r"\r\n(?=[ \t])", "", raw)])
    assert [address for _, address in pairs] == ["bob@example.com"] * len(names)
    assert [str(make_header(decode_header(name))) for name, _ in pairs] == names
    assert longest_line(field) <= 77


def test_many_addresses_are_folded_with_a_tab() -> None:
    field = headers.address_list("To", [Mailbox("Somebody", ADDRESS)] * 20)
    lines = field.removesuffix(b"\r\n").split(b"\r\n")
    assert len(lines) > 5
    assert all(line.startswith(b"\t") for line in lines[1:])
    assert longest_line(field) <= 77


@pytest.mark.parametrize(
    ("filename", "written"),
    [
        ("a.pdf", b"filename=a.pdf"),
        ("", b'filename=""'),
        ("my report.pdf", b'filename="my report.pdf"'),
        ('a"b\\c.txt', b'filename="a\\"b\\\\c.txt"'),
        ("Übersicht 1.pdf", b"filename*=utf-8''%C3%9Cbersicht%201.pdf"),
    ],
)
def test_a_parameter_is_a_token_quoted_or_encoded(filename: str, written: bytes) -> None:
    field = headers.with_parameters("Content-Disposition", "attachment", [("filename", filename)])
    assert field == b"Content-Disposition: attachment; " + written + b"\r\n"


@given(line_text)
def test_a_filename_of_any_length_reads_back(filename: str) -> None:
    field = headers.with_parameters("Content-Disposition", "attachment", [("filename", filename)])
    assert longest_line(field) <= 77
    if filename.strip() == filename:
        # The standard library strips what it unquotes; the bytes are right all the same.
        assert (email.message_from_bytes(field + b"\r\n").get_filename() or "") == filename


def test_a_value_the_caller_wrote_is_only_folded() -> None:
    assert headers.literal("X-A", " =?utf-8?q?x?=  b ") == b"X-A: =?utf-8?q?x?=  b\r\n"
    assert headers.literal("X-A", "") == b"X-A:\r\n"
    assert headers.literal("X-A", "ü b") == b"X-A: =?utf-8?q?=C3=BC?= b\r\n"
    urls = ", ".join(f"<https://example.com/{number}/unsubscribe>" for number in range(5))
    field = headers.literal("List-Unsubscribe", urls)
    assert longest_line(field) <= 77
    assert re.sub(rb"\r\n(?= )", b"", field) == f"List-Unsubscribe: {urls}\r\n".encode()
    with pytest.raises(ValidationFailed, match="998"):
        headers.literal("X-A", "x" * 901)


def test_message_ids_stand_one_on_a_line() -> None:
    assert headers.tokens("References", ["<a@b>", "<c@d>"]) == b"References: <a@b>\r\n\t<c@d>\r\n"


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\t", "\x0b", "\x1b", "\x7f", "\x85", "\ud800"])
def test_no_control_character_and_no_half_character_gets_into_a_field(character: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        headers.check_text(f"a{character}Bcc: x@y", what="the subject", field="subject")
    assert caught.value.field == "subject"
    assert "the subject" in caught.value.message


@pytest.mark.parametrize("name", ["", "X Y", "X:", "Ü", "X\r\nY", "X\n", "x" * 77, "\x7f"])
def test_a_header_name_is_ftext(name: str) -> None:
    with pytest.raises(ValidationFailed):
        headers.check_name(name)


def test_usual_header_names_and_texts_pass() -> None:
    headers.check_name("X-Custom_1")
    headers.check_text("Grüße, \u00a0日本語 😀", what="the subject")


def test_a_date_has_its_weekday_and_keeps_its_zone() -> None:
    assert headers.date(datetime(2026, 11, 20, 13, 0, tzinfo=UTC)) == "Fri, 20 Nov 2026 13:00:00 +0000"
    west = timezone(-timedelta(hours=3, minutes=30))
    assert headers.date(datetime(2026, 1, 2, 3, 4, 5, tzinfo=west)) == "Fri, 2 Jan 2026 03:04:05 -0330"
    for wrong in (datetime(2026, 1, 1), datetime(1899, 1, 1, tzinfo=UTC)):  # noqa: DTZ001 - a date without a zone is the case
        with pytest.raises(ValidationFailed):
            headers.date(wrong)


@given(
    st.datetimes(
        min_value=datetime(1900, 1, 2),  # noqa: DTZ001 - a bound
        timezones=st.integers(-840, 840).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    )
)
def test_a_date_reads_back(moment: datetime) -> None:
    read = parsedate_to_datetime(headers.date(moment))
    assert read == moment.replace(microsecond=0)
    assert read.utcoffset() == moment.utcoffset()


def test_a_message_id_is_made_of_the_random_octets_and_our_name() -> None:
    assert headers.message_id(b"\xff" * 16, "mail.example.com") == "<_____________________w@mail.example.com>"


def test_the_modern_parser_of_the_standard_library_reads_subjects_and_names_too() -> None:
    field = headers.address_list("To", [Mailbox("Jürgen Müller", ADDRESS)]) + headers.unstructured(
        "Subject", "Grüße aus Köln"
    )
    message = email.message_from_bytes(field + b"\r\n", policy=policy.default)
    assert message["Subject"] == "Grüße aus Köln"
    assert str(message["To"]) == "Jürgen Müller <bob@example.com>"
