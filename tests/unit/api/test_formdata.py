"""Forms as clients write them, and as nobody should."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.formdata import FormPart, boundary_of, read_form
from shared.errors import BadInput, TooLarge, ValidationFailed

B = "frontier"


def form(*lines: str) -> bytes:
    return "\r\n".join(lines).encode()


def parts(body: bytes) -> list[tuple[str, str, bytes]]:
    return [(part.name, part.filename, bytes(part.content)) for part in read_form(body, B)]


def only(body: bytes) -> FormPart:
    (part,) = read_form(body, B)
    return part


VALUE = 'Content-Disposition: form-data; name="request"'


def test_values_and_files_come_in_order() -> None:
    body = form(
        "a preamble",
        f"--{B}",
        VALUE,
        "",
        "{}",
        f"--{B} \t",
        'content-disposition: form-data; name="attachedfile"; filename="/etc/a \\"b\\".txt"',
        "Content-Type: text/csv; charset=utf-8",
        "Content-ID: <x@y>",
        "",
        f"line --{B}",
        f"--{B}x",
        "",
        f"--{B}--",
        "an epilogue",
    )
    first, second = read_form(body, B)
    assert (first.name, first.filename, bytes(first.content), first.content_type) == ("request", "", b"{}", None)
    assert (second.name, second.filename) == ("attachedfile", 'a "b".txt')
    assert (second.content_type, second.content_id) == ("text/csv; charset=utf-8", "<x@y>")
    assert bytes(second.content) == f"line --{B}\r\n--{B}x\r\n".encode()


def test_names_of_files_in_any_script() -> None:
    plain = form(f"--{B}", 'Content-Disposition: form-data; name=a; filename="grüße.txt"', "", "", f"--{B}--")
    extended = form(
        f"--{B}", "Content-Disposition: form-data; name=a; filename*=UTF-8''gr%C3%BC.txt", "", "", f"--{B}--"
    )

    assert only(plain).filename == "grüße.txt"
    assert only(extended).filename == "grü.txt"


def test_empty_things() -> None:
    assert parts(form(f"--{B}--", "")) == []
    assert parts(form(f"--{B}", VALUE, "", "", f"--{B}--")) == [("request", "", b"")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary at all",
        form(f"--{B}", VALUE, "", "cut off"),
        form(f"--{B}", VALUE, "no empty line", f"--{B}--"),
        form(f"--{B}", "Content-Type: text/plain", "", "no name", f"--{B}--"),
        form(f"--{B}", 'Content-Disposition: attachment; name="a"', "", "no form-data", f"--{B}--"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationFailed):
        parts(body)


def test_a_form_has_bounds() -> None:
    with pytest.raises(TooLarge):
        parts(form(f"--{B}", VALUE, "X: " + "x" * 20_000, "", "", f"--{B}--"))
    with pytest.raises(TooLarge):
        parts(form(*[f"--{B}", VALUE, "", ""] * 1_101, f"--{B}--"))


@pytest.mark.parametrize(
    "value", ["multipart/form-data", "multipart/form-data; boundary=", f"a/b; boundary={'x' * 71}"]
)
def test_a_boundary_is_needed(value: str) -> None:
    with pytest.raises(ValidationFailed):
        boundary_of(value)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.text(max_size=200))
def test_what_a_client_library_writes_is_what_is_read(contents: list[bytes], value: str) -> None:
    files = [("attachedfile", (f"{place}.bin", content, "text/x-a")) for place, content in enumerate(contents)]
    request = httpx.Request("POST", "http://test/", data={"request": value}, files=files)
    found = list(read_form(request.read(), boundary_of(request.headers["content-type"])))

    assert [bytes(part.content) for part in found] == [value.encode("utf-8"), *contents]
    assert [part.filename for part in found[1:]] == [name for _, (name, _, _) in files]


@given(st.binary(max_size=300))
def test_nothing_but_our_errors_whatever_comes(noise: bytes) -> None:
    for body in (noise, b"--frontier\r\n" + noise, b"--frontier\r\n" + noise + b"\r\n--frontier--"):
        try:
            list(read_form(body, B))
        except BadInput:
            continue
