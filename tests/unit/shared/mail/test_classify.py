from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ConfigurationError
from shared.mail.classify import RULES, Category, Classified, classify, find_rule, load_rules, without_addresses

HEAD = "pattern,category,reply"


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "immediate"),
    [
        # the worked examples of mox on immediate suppression
        (554, "5.1.0", "554 5.1.0 no", False),
        (550, "5.1.0", "550 5.1.0 no", True),
        (554, "5.0.0", "554 5.0.0 no", False),
        (554, "5.7.1", "554 5.7.1", True),
        (554, "", "554 no", False),
        (500, "5.1.1", "", True),
        (500, "5.2.1", "gone", True),
        (400, "4.4.7", "", False),
        (451, "", "451 later", False),
        (599, "5.0.0", "599 5.0.0 odd", False),
        (421, "4.7.1", "421 4.7.1 no", False),
        (0, "", "connection refused", False),
    ],
)
def test_what_suppresses_at_once(code: int, enhanced: str, text: str, immediate: bool) -> None:
    assert classify(code, enhanced, text).immediate is immediate


FINAL = ["1.1", "1.2", "1.3", "1.6", "2.1", "7.1"]


@pytest.mark.parametrize(
    ("code", "x"), list(product([521, 550, 551, 553, 556], ["", "0.0", "1.0", "2.2", "4.4", "7.0"]))
)
def test_these_codes_are_final_with_any_enhanced_code(code: int, x: str) -> None:
    assert classify(code, f"5.{x}" if x else "", "no").immediate


@pytest.mark.parametrize(("code", "x"), list(product([552, 554, 571], FINAL)))
def test_these_enhanced_codes_are_final_with_any_5xx(code: int, x: str) -> None:
    assert classify(code, f"5.{x}", "no").immediate


@pytest.mark.parametrize(("code", "x"), list(product([421, 450, 451, 452], FINAL)))
def test_no_4xx_is_final(code: int, x: str) -> None:
    assert not classify(code, f"4.{x}", "user unknown").immediate


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "category"),
    [
        (
            550,
            "5.7.1",
            "550 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
            Category.REPUTATION,
        ),
        (550, "5.7.1", "550-5.7.1 very low reputation\n550 5.7.1 of the sending IP address", Category.REPUTATION),
        (550, "5.7.606", "Access denied, banned sending IP [192.0.2.1]", Category.REPUTATION),
        (550, "5.7.25", "no PTR", Category.REPUTATION),
        (
            550,
            "5.7.26",
            "Unauthenticated email from sender.example is not accepted due to domain's DMARC policy",
            Category.POLICY,
        ),
        (550, "", "550 Denied by policy", Category.POLICY),
        (553, "5.1.8", "553 5.1.8 Sender address rejected: Domain not found", Category.POLICY),
        (
            550,
            "",
            "550-Verification failed for <shop@sender.example>\n550-No such user here\n550 Sender verify failed",
            Category.POLICY,
        ),
        (550, "5.7.1", "550 5.7.1 message content rejected", Category.CONTENT),
        (550, "", "550 Virus Detected; Content Rejected", Category.CONTENT),
        (554, "5.7.1", "554 5.7.1 rejected as spam", Category.CONTENT),
    ],
)
def test_a_refusal_because_of_us_suppresses_nobody(code: int, enhanced: str, text: str, category: Category) -> None:
    assert classify(code, enhanced, text) == Classified(category, immediate=False, counted=False)


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 <kim@receiver.example>: Recipient address rejected: User unknown in virtual mailbox table",
        "550-5.1.1 The email account that you tried to reach does not exist. Please try\n550 5.1.1 https://support.google.com/mail/?p=NoSuchUser",
        "550 5.4.1 [kim@receiver.example]: Recipient address rejected: Access denied",
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
        "550 5.1.1 <spam-policy.blocklist@spf.receiver.example>: user not found",
        "550 No such user here",
        "550 5.2.1 The email account that you tried to reach is disabled.",
        "551 not our customer",
    ],
)
def test_a_recipient_who_is_not_there_is_suppressed(text: str) -> None:
    assert classify(int(text[:3]), "", text) == Classified(Category.RECIPIENT, immediate=True, counted=True)


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "category"),
    [
        (552, "5.2.2", "user is over quota", Category.TRANSIENT),
        (552, "5.2.2", "552-5.2.2 the mailbox of kim is\n552-5.2.2 full", Category.TRANSIENT),
        (450, "4.2.0", "Greylisted, see http://postgrey.schweikert.ch/", Category.TRANSIENT),
        (421, "4.7.0", "temporarily deferred due to user complaints", Category.REPUTATION),
        (554, "5.4.6", "Too many hops", Category.INFRASTRUCTURE),
        (554, "", "Relay access denied", Category.INFRASTRUCTURE),
        # by codes alone
        (0, "", "", Category.INFRASTRUCTURE),
        (451, "", "", Category.TRANSIENT),
        (450, "4.1.1", "", Category.TRANSIENT),
        (554, "5.1.1", "", Category.RECIPIENT),
        (554, "5.1.8", "", Category.POLICY),
        (554, "5.2.2", "", Category.TRANSIENT),
        (554, "5.2.3", "", Category.CONTENT),
        (554, "5.3.0", "", Category.INFRASTRUCTURE),
        (554, "5.3.4", "", Category.CONTENT),
        (554, "5.4.4", "", Category.INFRASTRUCTURE),
        (554, "5.5.2", "", Category.INFRASTRUCTURE),
        (554, "5.6.1", "", Category.CONTENT),
        (554, "5.7.0", "", Category.POLICY),
        (550, "", "", Category.RECIPIENT),
        (550, "5.0.0", "", Category.RECIPIENT),
        (552, "", "", Category.TRANSIENT),
        (503, "", "", Category.INFRASTRUCTURE),
        (554, "", "", Category.POLICY),
    ],
)
def test_what_failures_are_about(code: int, enhanced: str, text: str, category: Category) -> None:
    assert classify(code, enhanced, text).category is category


@pytest.mark.parametrize(
    ("code", "text", "immediate", "counted"),
    [
        # a text that no rule knows leaves mox's lists in force, whatever the codes say it is about
        (554, "554 5.7.1 no", True, True),
        (550, "550 5.7.0 no", True, True),
        (554, "554 5.0.0 no", False, True),
        (451, "451 4.3.0 no", False, True),
        (451, "451 4.3.0 try again later", False, True),
        # a mailbox that is full may be emptied; one that is full three times in a row is not read
        (550, "550 5.2.2 Mailbox full", False, True),
        # our own way there says nothing of the recipient
        (550, "550 5.7.1 Unable to relay for kim@receiver.example", False, False),
        (554, "554 5.4.6 Too many hops", False, False),
        (554, "554 5.7.1 blocked using zen.spamhaus.org", False, False),
        (421, "421 4.7.0 temporarily deferred due to user complaints", False, False),
        (0, "connection refused", False, False),
        (250, "250 2.0.0 ok", False, False),
    ],
)
def test_what_speaks_against_the_recipient(code: int, text: str, immediate: bool, counted: bool) -> None:
    classified = classify(code, text[4:9] if code else "", text)
    assert (classified.immediate, classified.counted) == (immediate, counted)


def test_addresses_are_taken_out_of_what_others_read() -> None:
    assert without_addresses("550 <kim@receiver.example>: no") == "550 <[address]>: no"


def test_every_rule_is_the_first_to_know_the_reply_that_taught_it() -> None:
    assert len(RULES) > 50
    assert all(find_rule(rule.reply) is rule for rule in RULES)
    assert {rule.category for rule in RULES} == set(Category)


def test_no_rule_knows_every_text() -> None:
    assert find_rule("") is None
    assert find_rule("550 5.0.0 no") is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "must begin with"),
        (["reply,pattern"], "must begin with"),
        ([HEAD, "full,transient"], "line 2: 2 columns"),
        ([HEAD, "full,nonsense,mailbox full"], "line 2: 'nonsense' is no category; take one of recipient"),
        ([HEAD, "(full,transient,mailbox full"], "line 2: the pattern is no regular expression"),
        ([HEAD, "Full,transient,mailbox full"], "line 2: a pattern is in lower case"),
        ([HEAD, ",transient,mailbox full"], "line 2: a pattern is in lower case"),
        ([HEAD, "empty,transient,mailbox full"], "line 2: no rule knows its reply"),
        (
            [HEAD, "full,transient,mailbox full", "mailbox,recipient,no mailbox is full"],
            "line 3: the earlier rule 'full' knows its reply",
        ),
        ([HEAD, '"full,transient,mailbox full'], "line 2: unexpected end"),
    ],
)
def test_rules_that_are_wrong_are_named(lines: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"reply_rules\.csv") as caught:
        load_rules(lines)
    assert message in str(caught.value)


def test_rules_are_read() -> None:
    (rule,) = load_rules([HEAD, r'"full\b, really",transient,"Mailbox FULL, really"'])
    assert (rule.category, rule.reply) == (Category.TRANSIENT, "Mailbox FULL, really")


@settings(deadline=None)
@given(st.integers(0, 999), st.text(max_size=8), st.text(st.characters(codec=None)))
def test_nothing_makes_classifying_fail(code: int, enhanced: str, text: str) -> None:
    classified = classify(code, enhanced, text)
    assert classified.counted or not classified.immediate


WORDS = [
    "user ",
    "is ",
    "a@",
    "a@b ",
    "550-5.7.1 ",
    "sender ",
    "reputation ",
    "not ",
    "a",
    " ",
    "mailbox is ",
    "ip is was ",
    "due to ",
]


@pytest.mark.parametrize("word", WORDS)
def test_a_long_text_is_classified_in_bounded_time(word: str) -> None:
    """A pattern that backtracks without bound would not come back from these."""
    classify(550, "", word * 10_000)
