import pytest

from shared.metrics import Metrics


def test_names_are_prefixed_with_the_service_and_carry_their_unit() -> None:
    metrics = Metrics("dsn-ingest")
    metrics.counter("reports", "Reports read.", ["kind"]).labels("dsn").inc()
    metrics.gauge("sessions", "Open sessions.").set(3)
    metrics.seconds("handling", "Time to handle a report.").observe(0.2)
    text = metrics.render().decode()
    assert 'posthouse_dsn_ingest_reports_total{kind="dsn"} 1.0' in text
    assert "posthouse_dsn_ingest_sessions 3.0" in text
    assert "posthouse_dsn_ingest_handling_seconds_sum 0.2" in text


def test_the_process_reports_itself() -> None:
    text = Metrics("api").render().decode()
    assert "python_info" in text
    assert "python_gc_collections_total" in text


def test_two_services_in_one_process_do_not_meet() -> None:
    first, second = Metrics("api"), Metrics("api")
    first.counter("requests", "Requests.").inc()
    second.counter("requests", "Requests.")
    assert "posthouse_api_requests_total 1.0" in first.render().decode()
    assert "posthouse_api_requests_total 0.0" in second.render().decode()


@pytest.mark.parametrize("name", ["", "Upper", "a-b", "a__b", "_a", "a "])
def test_a_name_that_prometheus_would_not_like_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a metric"):
        Metrics("api").gauge(name, "x")
