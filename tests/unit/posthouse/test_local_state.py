"""What the local stack keeps and announces."""

import json
import stat
from pathlib import Path

import pytest

from posthouse.services import Surroundings, common, joined
from posthouse.settings import LocalSettings, plan
from posthouse.state import DataFolder
from posthouse.summary import Running, curl, document, page, reachable
from posthouse.supervisor import Worker, pause_after
from shared.db.demo import Demo
from shared.errors import ConfigurationError

KEYS = {
    *("http_url", "smtp", "submission", "submissions", "login", "password", "account_key", "admin_key"),
    *("webhook_secret", "health", "database_url", "nats_url", "pids"),
}


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "state")
    folder.prepare()
    return folder


def running(**given: str) -> Running:
    return Running(
        plan=plan(LocalSettings(**given)),
        demo=Demo(1, "demo@posthouse.test", "it's", "ph_account", "ph_admin"),
        http="127.0.0.1:8080",
        smtp="127.0.0.1:1025",
        submission="127.0.0.1:1587",
        submissions="127.0.0.1:1465",
        database_url="postgresql://",
        nats_url="nats://",
        webhook_secret="whsec_x",
    )


def test_secrets_are_made_once_and_found_again(data: DataFolder) -> None:
    kept = data.secrets()
    assert len(kept.secret_key) >= 32
    assert kept.webhook_secret.startswith("whsec_")
    data.keep(kept.with_keys("ph_a", "ph_b"))
    again = DataFolder(data.folder).secrets()
    assert again == kept.with_keys("ph_a", "ph_b")
    assert "ph_a" not in repr(again)


def test_secrets_are_readable_by_their_user_only(data: DataFolder) -> None:
    data.secrets()
    data.announce({"password": "x"})
    assert stat.S_IMODE((data.folder / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.announcement.stat().st_mode) == 0o600
    assert stat.S_IMODE(data.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"secret_key": 7}', "null", '"x"'])
def test_damaged_secrets_are_said_to_be_damaged_and_kept(data: DataFolder, content: str) -> None:
    file = data.folder / "secrets.json"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"secrets\.json is damaged"):
        data.secrets()
    assert file.read_text() == content


def test_an_announcement_is_replaced_and_withdrawn(data: DataFolder) -> None:
    data.announce({"n": 1})
    data.announce({"n": 2})
    assert json.loads(data.announcement.read_text()) == {"n": 2}
    data.withdraw()
    data.withdraw()
    assert not data.announcement.exists()


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot use .*file/state .*--data-dir"):
        DataFolder(tmp_path / "file" / "state").prepare()


def test_the_announcement_has_every_key_of_the_contract() -> None:
    workers = [Worker("delivery", 1, Path("x"), addresses={"http": "127.0.0.1:1"}), Worker("hooks", 1, Path("y"))]
    content = document(running(), workers)
    assert set(content) == KEYS
    assert content["health"] == {"delivery": ["127.0.0.1:1"], "hooks": []}
    assert (content["submission"], content["submissions"]) == ("127.0.0.1:1587", "127.0.0.1:1465")


def test_the_page_shows_urls_credentials_and_a_curl_that_sends() -> None:
    text = page(running(outgoing_webhook="http://127.0.0.1:9/hook"), Path("/d/local.json"), Path("/d/logs"))
    for part in (
        "http://127.0.0.1:8080/v1",
        "127.0.0.1:1025",
        "127.0.0.1:1587",
        "127.0.0.1:1465",
        "demo@posthouse.test",
        "ph_account",
        "ph_admin",
        "whsec_x",
    ):
        assert part in text
    assert curl(running()) in text
    assert "'http" not in curl(running())  # nothing to quote in a plain URL
    assert "'Authorization: Bearer ph_account'" in curl(running())


def test_services_are_told_everything_and_inherit_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTHOUSE_LOG_LEVEL", "debug")
    monkeypatch.setenv("PGPORT", "1")
    around = Surroundings("postgresql://", "nats://", "k" * 32)
    environment = common(plan(LocalSettings()), around)
    assert "POSTHOUSE_LOG_LEVEL" not in environment
    assert "PGPORT" not in environment
    assert environment["POSTHOUSE_ENV"] == "local"
    assert environment["POSTHOUSE_HOOKS_ALLOW_PRIVATE"] == "true"
    assert common(plan(LocalSettings(bind="0.0.0.0")), around)["POSTHOUSE_HOOKS_ALLOW_PRIVATE"] == "false"
    given = common(plan(LocalSettings(database_url="postgresql://h/d")), around)
    assert given["PGPORT"] == "1"


def test_addresses_are_written_as_in_urls() -> None:
    assert joined("::1", 25) == "[::1]:25"
    assert reachable(plan(LocalSettings(bind="::")), "[::]:8080") == "[::1]:8080"
    assert reachable(plan(LocalSettings(bind="0.0.0.0")), "0.0.0.0:8080") == "127.0.0.1:8080"


def test_the_pause_before_a_restart_grows_to_half_a_minute() -> None:
    pauses = [pause_after(failures) for failures in range(1, 12)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0
