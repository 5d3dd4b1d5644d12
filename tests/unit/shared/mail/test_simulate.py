"""The magic local parts of local mode (mox-behaviour Appendix A and case 207, and what goes beyond mox)."""

import pytest

from shared.mail.simulate import Simulated, simulate_recipient, simulate_sender


@pytest.mark.parametrize(
    ("local", "outcome"),
    [
        ("xtemperror", Simulated("data", "reply", 451, "4.0.0")),
        ("xpermerror", Simulated("data", "reply", 550, "5.0.0")),
        ("x550", Simulated("data", "reply", 550, "5.0.0")),
        ("554", Simulated("data", "reply", 554, "5.0.0")),
        ("x421", Simulated("data", "reply", 421, "4.0.0")),
        ("x400", Simulated("data", "reply", 400, "4.0.0")),
        ("x599", Simulated("data", "reply", 599, "5.0.0")),
        ("x1550", Simulated("data", "reply", 550, "5.0.0")),
        ("some+tag550", Simulated("data", "reply", 550, "5.0.0")),
        ("xtimeout", Simulated("data", "timeout", 451, "4.0.0")),
        ("mybounce", Simulated("data", "bounce", 550, "5.1.1")),
        ("mycomplaint", Simulated("data", "complaint", 250, "2.0.0")),
        ("greylist", Simulated("data", "greylist", 451, "4.0.0")),
        ("rcptto550", Simulated("rcpt", "reply", 550, "5.0.0")),
        ("rcpttotemperror", Simulated("rcpt", "reply", 451, "4.0.0")),
        ("rcpttotimeout", Simulated("rcpt", "timeout", 451, "4.0.0")),
        ("rcpttogreylist", Simulated("rcpt", "greylist", 451, "4.0.0")),
        ("rcpttobounce", Simulated("data", "bounce", 550, "5.1.1")),
        ("mailfrom550", Simulated("data", "reply", 550, "5.0.0")),
    ],
)
def test_a_recipient_asks_for_an_outcome(local: str, outcome: Simulated) -> None:
    assert simulate_recipient(local) == outcome


@pytest.mark.parametrize(
    "local",
    [
        "x399",
        "x600",
        "x601",
        "PERMERROR",
        "xTempError",
        "x55",
        "55",
        "",
        "550x",
        "550+tag",
        "x+55",
        "x٤٥٠",
        "x4²0",
        "user",
        "rcptto",
    ],
)
def test_other_recipients_get_their_mail(local: str) -> None:
    assert simulate_recipient(local) is None


@pytest.mark.parametrize(
    ("local", "outcome"),
    [
        ("mailfrom550", Simulated("mail", "reply", 550, "5.0.0")),
        ("mailfromtimeout", Simulated("mail", "timeout", 451, "4.0.0")),
        ("mailfromgreylist", Simulated("mail", "greylist", 451, "4.0.0")),
        ("mailfrombounce", None),
        ("mailfromcomplaint", None),
        ("mailfrom", None),
        ("x550", None),
        ("rcptto550", None),
        ("Mailfrom550", None),
    ],
)
def test_only_a_sender_that_begins_with_mailfrom_asks_for_an_outcome(local: str, outcome: Simulated | None) -> None:
    assert simulate_sender(local) == outcome
