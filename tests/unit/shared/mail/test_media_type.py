"""The type of a file without one, table by table of the WHATWG MIME Sniffing Standard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.mail.media_type import media_type, sniff


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "application/pdf"),
        (b"%!PS-Adobe-3.0", "application/postscript"),
        (b"\x89PNG\r\n\x1a\n\0\0", "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        (b"GIF87a\1\0", "image/gif"),
        (b"GIF89a\1\0", "image/gif"),
        (b"RIFF\x24\x01\0\0WEBPVP8 ", "image/webp"),
        (b"BM\x36\0", "image/bmp"),
        (b"\0\0\1\0\1\0", "image/x-icon"),
        (b"RIFF\x24\x01\0\0WAVEfmt ", "audio/wave"),
        (b"RIFF\x24\x01\0\0AVI LIST", "video/avi"),
        (b"RIFF\x24\x01\0\0XXXX\0", "application/octet-stream"),
        (b"FORM\0\0\1\0AIFF", "audio/aiff"),
        (b"ID3\4\0", "audio/mpeg"),
        (b"OggS\0\2", "application/ogg"),
        (b"MThd\0\0\0\6\0\1", "audio/midi"),
        (b"\x1aE\xdf\xa3\x01", "video/webm"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "video/mp4"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "video/mp4"),
        (b"\0\0\0\x18ftypqt  \0\0\0\0qt  qt  ", "application/octet-stream"),
        (b"\0\0\0\x19ftypmp42\0\0\0\0isommp42x", "application/octet-stream"),
        (b"\0" * 34 + b"LP", "application/vnd.ms-fontobject"),
        (b"\0\1\0\0\0\x0f", "font/ttf"),
        (b"OTTO\0", "font/otf"),
        (b"wOF2\0\1", "font/woff2"),
        (b"wOFF\0\1", "font/woff"),
        (b"\x1f\x8b\x08\0", "application/x-gzip"),
        (b"PK\3\4\x14\0", "application/zip"),
        (b"Rar!\x1a\x07\0", "application/x-rar-compressed"),
        (b"\n\t <!doctype html><p>", "text/html"),
        (b"<HtMl >", "text/html"),
        (b"<p>Hello", "text/html"),
        (b"<!-- x -->", "text/html"),
        (b"<pre>", "text/plain"),
        (b"  <?xml version='1.0'?>", "text/xml"),
        (b"\xfe\xff\0H", "text/plain; charset=utf-16be"),
        (b"\xff\xfeH\0", "text/plain; charset=utf-16le"),
        (b"\xef\xbb\xbfH", "text/plain; charset=utf-8"),
        (b"", "text/plain"),
        (b"Hello, world.\r\n\x1b[1m\x0c", "text/plain"),
        ("Grüße".encode("latin-1"), "text/plain"),
        (b"Hello\0", "application/octet-stream"),
        (b"\x01\x02", "application/octet-stream"),
        (b"x" * 512 + b"\0", "text/plain"),
        (b"x" * 511 + b"\0", "application/octet-stream"),
    ],
)
def test_the_first_octets_tell_the_type(content: bytes, expected: str) -> None:
    assert sniff(content) == expected


@pytest.mark.parametrize(
    ("filename", "content", "expected"),
    [
        ("scan", b"%PDF-1.4", "application/pdf"),
        ("scan.txt", b"%PDF-1.4", "application/pdf"),
        ("a.png", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("a.docx", b"PK\3\4", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.tar.gz", b"\x1f\x8b\x08", "application/gzip"),
        ("unknown.zzz", b"PK\3\4", "application/zip"),
        ("a.svg", b"<?xml version='1.0'?><svg/>", "image/svg+xml"),
        ("a.csv", b"a,b\n", "text/csv; charset=utf-8"),
        ("a.CSV", "a;ü\n".encode("latin-1"), "text/csv"),
        ("invite.ics", "BEGIN:VCALENDAR\nSUMMARY:Grüße\n".encode(), "text/calendar; charset=utf-8"),
        ("a.html", b"Hello", "text/html"),
        ("a.pdf", b"", "application/pdf"),
        ("", b"", "text/plain; charset=utf-8"),
        ("notes", "Grüße".encode(), "text/plain; charset=utf-8"),
        ("notes", "Grüße".encode("latin-1"), "text/plain"),
        ("a.txt", b"\0\1\2", "application/octet-stream"),
        ("a.bin", b"\0\1\2", "application/octet-stream"),
        ("", b"\0\1\2", "application/octet-stream"),
        ("data:text/html,x", b"\0", "application/octet-stream"),
    ],
)
def test_the_name_counts_where_the_octets_leave_it_open(filename: str, content: bytes, expected: str) -> None:
    assert media_type(filename, content) == expected


@given(st.text(max_size=20), st.binary(max_size=600))
def test_there_is_always_a_type_that_can_stand_in_a_header(filename: str, content: bytes) -> None:
    found = media_type(filename, content)
    assert found.isascii()
    assert found.isprintable()
    assert found.count("/") == 1
    assert sniff(content) == sniff(content[:512])
