"""Which rule holds for a site."""

import pytest

from shared.errors import ConfigurationError, ValidationFailed
from shared.mail.traffic import DEFAULTS, NOTHING, Traffic, check_pattern, load_rules, traffic_of

HEAD = "pattern,connections,messages_per_second,messages_per_connection,recipients_per_transaction,source"


def test_of_each_figure_the_most_telling_rule_counts_and_the_operators_before_ours() -> None:
    own = {"*": Traffic(1, 1.0), ".big.test": Traffic(messages_per_connection=7), "mx.big.test": Traffic(9)}
    defaults = {"mx.big.test": Traffic(8, recipients_per_transaction=3), "*": Traffic(2, 2.0, 2, 2)}
    assert traffic_of("mx.big.test", own, defaults) == Traffic(9, 1.0, 7, 3)
    assert traffic_of("a.b.big.test", own, defaults) == Traffic(1, 1.0, 7, 2)
    assert traffic_of("big.test", own, defaults) == Traffic(1, 1.0, 2, 2)
    assert traffic_of("big.test", {}, {}) == NOTHING


def test_what_posthouse_brings_along_says_what_its_sources_say() -> None:
    assert DEFAULTS["yahoodns.net"].messages_per_connection == 20
    assert all(rule.connections is not None and rule.connections <= 10 for rule in DEFAULTS.values())


@pytest.mark.parametrize("pattern", ["*", "google.com", ".example", "a_b.example", "127.0.0.1", "x" * 63])
def test_patterns(pattern: str) -> None:
    check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["", ".", "*.example", "Google.com", "a..b", "a.", "bücher.example", "x" * 64, "a b", "a\n", ".a" * 128]
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValidationFailed, match="is no pattern"):
        check_pattern(pattern)


@pytest.mark.parametrize(
    "row",
    ["a.test,1,,,,", "a.test,,,,,us", "A.test,1,,,,us", "a.test,x,,,,us", "a.test,1", "b.test,1,,,,us\nb.test,2,,,,us"],
)
def test_a_row_that_is_wrong_is_named(row: str) -> None:
    with pytest.raises(ConfigurationError, match=r"traffic_rules\.csv, line \d"):
        load_rules([HEAD, *row.split("\n")])


def test_a_file_without_its_head_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must begin"):
        load_rules(["a.test,1,,,,us"])
