"""Replies as the server writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.smtpd import Reply


def test_several_lines_carry_the_code_each() -> None:
    assert Reply(550, "5.1.1", "No\nsuch user").wire == b"550-5.1.1 No\r\n550 5.1.1 such user\r\n"


def test_a_reply_without_enhanced_code() -> None:
    assert Reply(354, "", "Go").wire == b"354 Go\r\n"


@pytest.mark.parametrize(("code", "enhanced"), [(550, "4.1.1"), (99, ""), (600, ""), (250, "2.0"), (250, "x")])
def test_what_does_not_fit_is_refused(code: int, enhanced: str) -> None:
    with pytest.raises(ValueError):
        Reply(code, enhanced, "text")


@given(st.text(max_size=2000))
def test_no_text_forges_a_reply(text: str) -> None:
    lines = Reply(451, "4.3.0", text).wire.split(b"\r\n")
    assert lines.pop() == b""
    assert all(
        line.startswith((b"451-4.3.0 ", b"451 4.3.0 ")) and len(line) <= 510 and line.isascii() for line in lines
    )
    assert [line[3:4] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]
    assert not any(octet < 32 for line in lines for octet in line)
