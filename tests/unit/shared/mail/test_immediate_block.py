"""Case 94 of mox's behaviour: which refusals alone put a recipient on the suppression list; and where we know better."""

import pytest

from shared.mail.classify import classify


@pytest.mark.parametrize("code", [521, 550, 551, 553, 556])
@pytest.mark.parametrize("enhanced", ["", "5.0.0", "5.1.1", "5.3.4"])
def test_case_94_these_codes_whatever_follows(code: int, enhanced: str) -> None:
    assert classify(code, enhanced, "x").immediate


@pytest.mark.parametrize("code", [554, 552, 571])
@pytest.mark.parametrize("enhanced", ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.2.1", "5.7.1"])
def test_case_94_other_codes_with_these_enhanced_codes(code: int, enhanced: str) -> None:
    assert classify(code, enhanced, "x").immediate


@pytest.mark.parametrize(
    ("code", "enhanced"), [(554, ""), (554, "5.0.0"), (599, "5.0.0"), (554, "5.1.0"), (0, "5.1.1")]
)
def test_cases_93_and_95_others_alone_do_not(code: int, enhanced: str) -> None:
    assert not classify(code, enhanced, "x").immediate


@pytest.mark.parametrize("enhanced", ["4.1.1", "4.2.1", "4.7.1", "5.1.1", "5.7.1"])
def test_case_94_no_temporary_refusal_does(enhanced: str) -> None:
    assert not classify(421, enhanced, "x").immediate
    assert not classify(450, enhanced, "x").immediate


def test_a_refusal_of_our_own_address_says_nothing_about_the_recipient() -> None:
    assert not classify(550, "5.7.1", "Client host [192.0.2.1] blocked using zen.spamhaus.org").immediate
