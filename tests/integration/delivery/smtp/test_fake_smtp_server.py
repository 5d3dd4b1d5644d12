"""The scripted server's other ways to run: in a thread, and as a process."""

import base64
import json
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest

import fakes.smtp_server
from fakes.smtp_server import Script, smtp_server_thread

CONTENT = b"Subject: x\r\n\r\n.dot\r\n"


def send(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        refused = client.sendmail("a@a.test", ["b@b.test", "no@b.test"], CONTENT)
    assert refused == {"no@b.test": (550, b"5.1.1 Unknown")}


def test_in_a_thread() -> None:
    with smtp_server_thread(Script(rcpt={"no@b.test": "550 5.1.1 Unknown"})) as server:
        send(server.port)
        (message,) = server.messages
    assert (message.mail_from, message.recipients, message.content) == ("a@a.test", ["b@b.test"], CONTENT)


def test_as_a_process() -> None:
    program = Path(fakes.smtp_server.__file__)
    command = [sys.executable, str(program), "--script", json.dumps({"rcpt": {"no@b.test": "550 5.1.1 Unknown"}})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            listening = json.loads(process.stdout.readline())
            assert listening["event"] == "listening"
            send(listening["port"])
            message = json.loads(process.stdout.readline())
        finally:
            process.terminate()
    assert (message["event"], message["mail_from"], message["recipients"]) == ("message", "a@a.test", ["b@b.test"])
    assert base64.b64decode(message["content_base64"]) == CONTENT


async def test_waiting_in_vain_says_what_was_seen() -> None:
    async with fakes.smtp_server.ScriptedSmtpServer() as server:
        with pytest.raises(AssertionError, match="0 of 1 messages"):
            await server.wait_for(1, timeout=0.05)
