"""Where the operator commands go, and how they write DNS records and text from elsewhere."""

import json
from pathlib import Path

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.operator.domains import zone_line
from posthouse.operator.place import find_place
from posthouse.operator.show import plain
from shared.errors import ConfigurationError

URL, KEY = "https://mail.example.com", "ph_a_b"


def test_options_come_before_the_environment() -> None:
    environment = {"POSTHOUSE_URL": "https://other.example", "POSTHOUSE_KEY": "ph_other_key"}
    assert find_place(URL, KEY, None, environment).url == URL
    place = find_place(None, None, None, environment)
    assert (place.url, place.key) == ("https://other.example", "ph_other_key")
    assert "ph_other_key" not in repr(place)


@pytest.mark.parametrize("url", [URL, URL + "/", URL + "/v1", URL + "/v1/"])
def test_a_url_is_taken_as_people_write_it(url: str) -> None:
    assert find_place(url, KEY, None, {}).url == URL


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        ("http://127.0.0.1:8080", False),
        ("http://[::1]:8080", False),
        ("http://localhost:8080", False),
        ("http://mail.example.com", True),
        ("http://10.0.0.1", True),
        (URL, False),
    ],
)
def test_a_key_in_the_clear_is_noticed(url: str, exposed: bool) -> None:
    assert find_place(url, KEY, None, {}).is_exposed is exposed


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "mail.example.com",
            "ftp://mail.example.com",
            "https://",
            "https://u:secret@mail.example.com",
            "https://[::1",
        ),
        *("https://a b", "https://a:99999", "https://a:0", "https://a?b=c", "https://a#b", "https://a\n"),
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_place(url, KEY, None, {})
    assert "--url" in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("key", ["", " ", "ph a", "schlüssel", "ph_\r\nX: y"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="POSTHOUSE_KEY"):
        find_place(URL, key, None, {})


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "{", '{"http_url": 1, "admin_key": 2}', json.dumps({"http_url": URL, "admin_key": None})],
)
def test_a_damaged_announcement_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "local.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"local\.json"):
        find_place(None, None, tmp_path, {})


def test_a_data_folder_excludes_the_other_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--local"):
        find_place(URL, None, tmp_path, {})


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=900))
def test_a_zone_line_says_the_same_to_a_name_server(value: str) -> None:
    line = zone_line({"name": "a.example", "type": "TXT", "value": value or "x"})
    zone = dns.zone.from_text(line + "\n", origin="example.", relativize=False, check_origin=False)
    read = zone.get_rdataset("a.example.", "TXT")[0]  # type: ignore[index]  # it is there, or the test has failed
    assert b"".join(read.strings).decode() == (value or "x")


def test_an_mx_is_written_as_a_full_name() -> None:
    record = {"name": "b.example", "type": "MX", "value": "10 mail.example"}
    assert zone_line(record) == "b.example. 3600 IN MX 10 mail.example."


@given(st.text())
def test_text_from_elsewhere_commands_no_terminal(text: str) -> None:
    assert plain(text).isprintable()


def test_values_are_written_for_people() -> None:
    assert [plain(value) for value in (None, True, False, 7, ["+", "-"], "ä\x1b[2J")] == [
        *("-", "yes", "no", "7", "+ -", "ä\ufffd[2J"),
    ]
