"""Real refusals, as a labelled corpus has them: who is not at fault is not suppressed, who is not there is known to be."""

import json
from collections import Counter
from pathlib import Path

import pytest

from shared.mail.classify import Category, Classified, classify
from shared.mail.dsn import read_dsn
from shared.mail.mime import read

CORPUS = Path(__file__).parents[5] / "shared" / "bounce-corpus"

# What the labels say in their own words; those that say nothing of the cause (expired, mailererror, filtered, ...) are left out.
MEANT = {
    "userunknown": {Category.RECIPIENT},
    "hasmoved": {Category.RECIPIENT},
    "hostunknown": {Category.RECIPIENT, Category.INFRASTRUCTURE},
    "suspend": {Category.RECIPIENT},
    "mailboxfull": {Category.TRANSIENT},
    "blocked": {Category.REPUTATION},
    "badreputation": {Category.REPUTATION},
    "requireptr": {Category.REPUTATION},
    "authfailure": {Category.POLICY},
    "policyviolation": {Category.POLICY, Category.REPUTATION},
    "rejected": {Category.POLICY},  # of the sender
    "norelaying": {Category.INFRASTRUCTURE},
    "networkerror": {Category.INFRASTRUCTURE, Category.TRANSIENT, Category.RECIPIENT},  # NXDOMAIN is the recipient's
    "systemerror": {Category.TRANSIENT},
    "toomanyconn": {Category.TRANSIENT, Category.REPUTATION},
    "spamdetected": {Category.CONTENT},
    "virusdetected": {Category.CONTENT},
    "contenterror": {Category.CONTENT},
    "exceedlimit": {Category.CONTENT},
    "mesgtoobig": {Category.CONTENT},
}
OURS = (
    "badreputation",
    "blocked",
    "requireptr",
    "authfailure",
    "policyviolation",
    "rejected",
    "norelaying",
    "toomanyconn",
    "spamdetected",
    "virusdetected",
    "contenterror",
    "exceedlimit",
)

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the bounce corpus is not next to this tree")


@pytest.fixture(scope="module")
def classified() -> list[tuple[str, str, Classified]]:
    """File, label and what we say, for each recipient of the reports whose recipients we read as labelled."""
    found = []
    for name, labels in json.loads((CORPUS / "labels.json").read_text()).items():
        dsn = read_dsn(read((CORPUS / "messages" / name).read_bytes()))
        if dsn is not None and len(dsn.recipients) == len(labels):
            for label, one in zip(labels, dsn.recipients, strict=True):
                found.append((name, label["reason"], classify(one.reply_code, one.enhanced, one.diagnostic)))
    return found


def test_real_refusals_are_about_what_their_labels_say(classified: list[tuple[str, str, Classified]]) -> None:
    """Nine in ten; the rest has no text in it, or one that the label contradicts (`User unknown` as a full mailbox)."""
    told = [(name, reason, said) for name, reason, said in classified if reason in MEANT]
    wrong = [(name, reason, said.category.value) for name, reason, said in told if said.category not in MEANT[reason]]
    assert len(told) >= 90
    assert len(wrong) <= len(told) // 10, (Counter(reason for _, reason, _ in wrong), wrong)


def test_what_is_about_us_suppresses_nobody(classified: list[tuple[str, str, Classified]]) -> None:
    suppressing = [name for name, reason, said in classified if reason in OURS and said.immediate]
    # Its whole text is `550 Rejected`: no rule can know it, and mox's list is in force.
    assert suppressing == ["lhost-exim-49.eml"]


def test_who_is_not_there_is_suppressed(classified: list[tuple[str, str, Classified]]) -> None:
    unknown = [said for _, reason, said in classified if reason in ("userunknown", "hasmoved")]
    assert len(unknown) >= 30
    assert sum(said.immediate for said in unknown) >= len(unknown) * 0.9
    assert sum(said.counted for said in unknown) >= len(unknown) * 0.95
