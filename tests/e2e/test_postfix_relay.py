"""A real Postfix as relay client: what an application hands it on its own machine comes to us by SMTP submission, and out again.

Left out where there is no Postfix to run: ``.ci/run`` fetches one.
"""

import email
import email.policy
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from fakes.local_stack import LocalStack
from fakes.postfix import Postfix, Relay
from fakes.smtp_server import ScriptedSmtpServer, smtp_server_thread
from fakes.waiting import eventually_sync

FROM = "demo@posthouse.test"
RECIPIENTS = ["ada@example.org", "grace@example.org", "edsger@example.net"]
OpenPostfix = Callable[..., Postfix]


@pytest.fixture(scope="module")
def stack(postfix_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("relay") / "data") as stack:
        yield stack


@pytest.fixture
def returns() -> Iterator[ScriptedSmtpServer]:
    """The mailbox host of the sender: what Postfix cannot send comes back to it."""
    with smtp_server_thread() as server:
        yield server


@pytest.fixture
def open_postfix(postfix_package: Path, stack: LocalStack, returns: ScriptedSmtpServer) -> Iterator[OpenPostfix]:
    """Starts a Postfix that relays through the stack."""
    with ExitStack() as opened:

        def start(user: str, password: str, mechanisms: str = "") -> Postfix:
            port = int(stack.info["submission"].rpartition(":")[2])
            relay = Relay(port, stack.folder / "tls" / "certificate.pem", mechanisms)
            postfix = opened.enter_context(Postfix(postfix_package, relay, ("posthouse.test", returns.port)))
            postfix.log_in_as(user, password)
            return postfix

        yield start


def mail(subject: str, to: str = "everybody@example.org", sender: str = FROM) -> bytes:
    return f"From: {sender}\nTo: {to}\nSubject: {subject}\n\nHanded in by Postfix.\n.\nEnd.\n".encode()


def credentials(stack: LocalStack, who: str) -> tuple[str, str]:
    info = stack.info
    if who == "login":
        return info["login"], info["password"]
    return info["account_key"].split("_")[1], info["account_key"]


def delivered(stack: LocalStack, subject: str) -> set[str]:
    """Return the recipients to whom the message of this subject was delivered."""
    headers = {"Authorization": f"Bearer {stack.info['account_key']}"}
    answer = httpx.get(stack.info["http_url"] + "/v1/events", headers=headers, params={"limit": 200})
    assert answer.status_code == 200, answer.text
    return {
        event["data"]["recipient"]
        for event in answer.json()["data"]
        if event["type"] == "delivered" and event["data"]["subject"] == subject
    }


def logins(stack: LocalStack, mechanism: str, result: str = "ok") -> float:
    """Return how many have logged in so."""
    series = f'posthouse_api_authentications_total{{door="smtp",mechanism="{mechanism}",result="{result}"}} '
    lines = httpx.get(stack.info["http_url"] + "/metrics").text.splitlines()
    return sum(float(line.removeprefix(series)) for line in lines if line.startswith(series))


def settled(postfix: Postfix, queue_id: str, *recipients: str) -> list[str]:
    """Return what became of these recipients, once Postfix has nothing left to do for them."""
    eventually_sync(lambda: postfix.gone(queue_id), timeout=60, what=f"the end of {queue_id}")
    results = postfix.results(queue_id)
    return [results[recipient] for recipient in recipients]


@pytest.mark.parametrize(
    ("who", "mechanism"),
    [
        ("login", "scram-sha-256"),
        ("login", "plain"),
        ("login", "login"),
        ("API key", "scram-sha-256"),
        ("API key", "plain"),
        ("API key", "login"),
    ],
)
def test_it_logs_in_and_hands_on(stack: LocalStack, open_postfix: OpenPostfix, who: str, mechanism: str) -> None:
    before = logins(stack, mechanism)
    postfix = open_postfix(*credentials(stack, who), mechanism)
    subject = f"{who} by {mechanism}"
    queue_id = postfix.send(FROM, RECIPIENTS, mail(subject))
    for result in settled(postfix, queue_id, *RECIPIENTS):
        assert result.startswith("sent (250 2.2.0 Accepted as message "), result
    assert "Verified TLS connection established to localhost" in postfix.log
    assert logins(stack, mechanism) == before + 1
    eventually_sync(lambda: delivered(stack, subject) == set(RECIPIENTS), timeout=60)


def test_by_itself_it_chooses_scram_and_pipelines(stack: LocalStack, open_postfix: OpenPostfix) -> None:
    before = logins(stack, "scram-sha-256")
    postfix = open_postfix(*credentials(stack, "login"))
    queue_id = postfix.send(FROM, RECIPIENTS, mail("by itself"))
    settled(postfix, queue_id, *RECIPIENTS)
    assert logins(stack, "scram-sha-256") == before + 1
    said = re.findall(r"/smtp\[\d+\]: ([<>]) localhost\S+: (\S+)", postfix.log)
    begun = said.index((">", "MAIL"))
    # Everything up to DATA is said before the answer to MAIL is waited for.
    assert said[begun : begun + 5] == [(">", "MAIL"), *[(">", "RCPT")] * 3, (">", "DATA")]
    assert said[begun + 5 : begun + 10] == [*[("<", "250")] * 4, ("<", "354")]


def bounce(returns: ScriptedSmtpServer) -> tuple[dict[str, str], str]:
    """Return the fields of the only recipient in the report that came back, and its text for people."""
    (message,) = eventually_sync(lambda: returns.messages, timeout=30, what="what comes back to the sender")
    assert (message.mail_from, message.recipients) == ("", [FROM])
    report = email.message_from_bytes(message.content, policy=email.policy.default)
    text, status, *_ = report.iter_parts()
    _, recipient = status.iter_parts()
    return {name: " ".join(str(value).split()) for name, value in recipient.items()}, text.get_content()


@pytest.mark.parametrize("who", ["login", "API key"])
def test_what_we_refuse_comes_back_to_its_sender(
    stack: LocalStack, open_postfix: OpenPostfix, returns: ScriptedSmtpServer, who: str
) -> None:
    postfix = open_postfix(*credentials(stack, who))
    queue_id = postfix.send(FROM, RECIPIENTS[:1], mail("of another", sender="ada@other.example"))
    (result,) = settled(postfix, queue_id, RECIPIENTS[0])
    assert result.startswith("bounced (host localhost[127.0.0.1] said: 550 5.7.1 ")
    assert result.endswith("(in reply to end of DATA command))")
    fields, text = bounce(returns)
    assert fields["Final-Recipient"] == f"rfc822; {RECIPIENTS[0]}"
    assert (fields["Action"], fields["Status"]) == ("failed", "5.7.1")
    assert fields["Diagnostic-Code"].startswith("smtp; 550 5.7.1 ")
    assert "other.example" in text or "none of them" in text
    assert delivered(stack, "of another") == set()


def test_a_sender_that_is_not_allowed_is_refused_at_once(stack: LocalStack, open_postfix: OpenPostfix) -> None:
    postfix = open_postfix(*credentials(stack, "login"))
    queue_id = postfix.send("ada@posthouse.test", RECIPIENTS[:1], mail("at once"))
    (result,) = settled(postfix, queue_id, RECIPIENTS[0])
    assert result.startswith("bounced (host localhost[127.0.0.1] said: 550 5.7.1 ")
    assert result.endswith("(in reply to MAIL FROM command))")


def test_one_bad_recipient_comes_back_and_the_others_are_sent(
    stack: LocalStack, open_postfix: OpenPostfix, returns: ScriptedSmtpServer
) -> None:
    postfix = open_postfix(*credentials(stack, "login"))
    bad = "who@not_a_host.example"
    queue_id = postfix.send(FROM, [*RECIPIENTS, bad], mail("one is bad"))
    *good, refused = settled(postfix, queue_id, *RECIPIENTS, bad)
    assert {result.split()[0] for result in good} == {"sent"}
    assert refused.startswith("bounced (host localhost[127.0.0.1] said: 501 5.1.3 ")
    fields, _ = bounce(returns)
    assert (fields["Final-Recipient"], fields["Status"]) == (f"rfc822; {bad}", "5.1.3")
    eventually_sync(lambda: delivered(stack, "one is bad") == set(RECIPIENTS), timeout=60)


def test_with_a_wrong_password_it_keeps_the_mail_and_sends_it_once_it_has_the_right_one(
    stack: LocalStack, open_postfix: OpenPostfix, returns: ScriptedSmtpServer
) -> None:
    login, password = credentials(stack, "login")
    postfix = open_postfix(login, "wrong")
    queue_id = postfix.send(FROM, RECIPIENTS[:1], mail("kept"))
    (result,) = eventually_sync(lambda: list(postfix.results(queue_id).values()), timeout=30)
    assert result.startswith("deferred (SASL authentication failed; server localhost[127.0.0.1] said: 535 5.7.8 ")
    assert logins(stack, "scram-sha-256", "wrong_proof") >= 1
    postfix.log_in_as(login, password)
    (result,) = settled(postfix, queue_id, RECIPIENTS[0])
    assert result.startswith("sent (250 2.2.0 ")
    assert returns.messages == []
    eventually_sync(lambda: delivered(stack, "kept") == set(RECIPIENTS[:1]), timeout=60)


def test_an_internationalised_message(stack: LocalStack, open_postfix: OpenPostfix) -> None:
    postfix = open_postfix(*credentials(stack, "login"))
    recipient = "jürgen@bücher.example"
    queue_id = postfix.send(FROM, [recipient], mail("Grüße", to=recipient))
    (result,) = settled(postfix, queue_id, recipient)
    assert result.startswith("sent (250 2.2.0 ")
    assert re.search(r"> localhost\S+: MAIL FROM:<demo@posthouse\.test>.* SMTPUTF8", postfix.log)
    eventually_sync(lambda: delivered(stack, "Grüße") == {"jürgen@xn--bcher-kva.example"}, timeout=60)
