import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from shared.version import VERSION
from unit.deploy.facts import (
    COMMAND,
    LONGEST_WORK,
    ROOT,
    SERVICES,
    health_paths,
    is_command,
    read,
    refusal,
    unknown,
)

Resource = dict[str, Any]

BASE = ROOT / "deploy" / "k8s" / "base"
EXAMPLE = ROOT / "deploy" / "k8s" / "overlays" / "example"
VERSIONS = ("1.30", "1.33", "1.37")
JOBS = ("migrate", "bootstrap")
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(
    KUBECTL is None, reason="kubectl is not installed; the listed files are checked without it"
)


def built(folder: Path) -> list[Resource]:
    """Return what ``kubectl kustomize`` makes of a folder; it contacts no cluster."""
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


def listed(folder: Path) -> list[Resource]:
    """Return what the files hold that a kustomization lists, unchanged."""
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    files = [folder / name for name in names]
    return [
        resource for file in files if file.is_file() for resource in yaml.safe_load_all(file.read_text()) if resource
    ]


def secret() -> Resource:
    loaded: Resource = yaml.safe_load((BASE / "secret.example.yaml").read_text())
    return loaded


def schema_errors(resources: list[Resource], version: str) -> Iterator[str]:
    for resource in resources:
        name = f"{resource['kind']} {resource['metadata']['name']}"
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"schema: {name}: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"schema: {name}: {error.message}"


def complaints(resources: list[Resource], versions: Sequence[str] = VERSIONS) -> list[str]:
    """Return what is wrong with the resources of the base, in words."""
    found = [error for version in versions for error in schema_errors(resources, version)]
    if found:
        return found
    deployments = {name.removeprefix("posthouse-"): one for name, one in _named(resources, "Deployment").items()}
    jobs = {name.removeprefix("posthouse-"): one for name, one in _named(resources, "Job").items()}
    found += [f"the Deployment {name} is missing" for name in SERVICES if name not in deployments]
    found += [f"the Job {name} is missing" for name in JOBS if name not in jobs]
    for name, deployment in deployments.items():
        found += _of_pod(name, name, deployment, resources)
        found += _of_deployment(name, deployment, resources)
    for name, job in jobs.items():
        found += _of_pod(name, COMMAND, job, resources)
        (command,) = job["spec"]["template"]["spec"]["containers"][0]["args"]
        if not is_command(command):
            found.append(f"the Job {name} runs posthouse {command}, which is no command")
    for kind in ("Service", "PodDisruptionBudget"):
        for name, resource in _named(resources, kind).items():
            found += _of_selector(f"the {kind} {name}", resource, deployments)
    for name in SERVICES:
        if f"posthouse-{name}" not in _named(resources, "PodDisruptionBudget"):
            found.append(f"{name} has no PodDisruptionBudget")
    return found


def _named(resources: list[Resource], kind: str) -> dict[str, Resource]:
    return {resource["metadata"]["name"]: resource for resource in resources if resource["kind"] == kind}


def environment(pod: Resource, resources: list[Resource]) -> dict[str, str]:
    """Return what the (one) container of a pod finds set, the Secret being as in the example."""
    (container,) = pod["containers"]
    sources = {"configMapRef": _named(resources, "ConfigMap"), "secretRef": {secret()["metadata"]["name"]: secret()}}
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        ((kind, reference),) = source.items()
        resource = sources[kind].get(reference["name"], {})
        values |= resource.get("data", {}) | resource.get("stringData", {})
    return values | {entry["name"]: entry["value"] for entry in container.get("env", [])}


def _of_pod(name: str, service: str, owner: Resource, resources: list[Resource]) -> list[str]:
    pod = owner["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    found = [
        f"{name} does not read {unread}"
        for unread in unknown(service, {e["name"]: "" for e in container.get("env", [])})
    ]
    reason = refusal(service, environment(pod, resources))
    if reason is not None:
        found.append(f"{name} would not start: {reason}")
    if container["image"] != f"posthouse-{service}:{VERSION}":
        found.append(f"{name} has the image {container['image']}")
    if "command" in container or (service != COMMAND and "args" in container):
        found.append(f"{name} does not run what its image runs")
    if pod.get("enableServiceLinks") is not False:
        found.append(f"{name} would find POSTHOUSE_API_PORT set to the address of a Service")
    if not container.get("resources", {}).get("requests") or "memory" not in container["resources"].get("limits", {}):
        found.append(f"{name} does not say what it needs")
    # The "restricted" Pod Security Standard, and a read-only root.
    own, shared = container.get("securityContext", {}), pod.get("securityContext", {})
    restricted = (
        shared.get("runAsNonRoot") is True
        and shared.get("runAsUser", 0) > 0
        and shared.get("seccompProfile") == {"type": "RuntimeDefault"}
        and own.get("allowPrivilegeEscalation") is False
        and own.get("readOnlyRootFilesystem") is True
        and own.get("capabilities") == {"drop": ["ALL"]}
        and pod.get("automountServiceAccountToken") is False
    )
    return found if restricted else [*found, f"{name} has more privileges than it needs"]


def _of_deployment(name: str, deployment: Resource, resources: list[Resource]) -> list[str]:
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    values = environment(pod, resources)
    if refusal(name, values) is not None:
        return []
    settings = read(name, values)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    expected = {"health": settings.health_port}
    listens = getattr(settings, f"{name.replace('-', '_')}_port", None)
    if listens is not None:
        expected["smtp" if name == "dsn-ingest" else "http"] = listens
    found = [] if ports == expected else [f"{name} declares {ports}, it listens on {expected}"]
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        asked = container.get(probe, {}).get("httpGet", {})
        if (
            asked.get("path") != path
            or path not in health_paths()
            or asked.get("port") not in ("health", settings.health_port)
        ):
            found.append(f"the {probe} of {name} asks for something that is not there")
    startup = container.get("startupProbe", {})
    if startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3) <= settings.startup_wait_seconds:
        found.append(f"{name} is killed while it may still wait")
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if pod.get("terminationGracePeriodSeconds", 30) <= settings.grace_seconds + pause:
        found.append(f"{name} is killed within its grace period")
    if settings.grace_seconds < LONGEST_WORK.get(name, 0):
        found.append(f"{name} leaves work in flight behind")
    if deployment["spec"]["replicas"] < 2:
        found.append(f"{name} has no second replica")
    return found


def _of_selector(what: str, resource: Resource, deployments: dict[str, Resource]) -> list[str]:
    selector = resource["spec"]["selector"]
    selector = selector.get("matchLabels", selector)
    templates = [deployment["spec"]["template"] for deployment in deployments.values()]
    chosen = [template for template in templates if selector.items() <= template["metadata"]["labels"].items()]
    if len(chosen) != 1:
        return [f"{what} selects {len(chosen)} Deployments"]
    named = {port["name"] for port in chosen[0]["spec"]["containers"][0]["ports"]}
    targets = [port["targetPort"] for port in resource["spec"].get("ports", [])]
    return [f"{what} leads to {target}, which is no port there" for target in targets if target not in named]


def test_the_listed_files_fit_the_code() -> None:
    assert complaints(listed(BASE)) == []


@needs_kubectl
def test_what_kubectl_builds_of_the_base_fits_the_code() -> None:
    assert complaints(built(BASE)) == []


@needs_kubectl
@pytest.mark.parametrize("version", VERSIONS)
def test_the_example_is_built_and_valid(version: str) -> None:
    resources = built(EXAMPLE)
    assert list(schema_errors(resources, version)) == []
    assert {resource["metadata"]["namespace"] for resource in resources} == {"posthouse"}
    images = [
        c["image"]
        for r in resources
        if r["kind"] in ("Deployment", "Job")
        for c in r["spec"]["template"]["spec"]["containers"]
    ]
    assert [image for image in images if image.startswith("posthouse-")] == [], "an image that `images` does not name"


@needs_kubectl
def test_the_settings_of_the_example_are_read() -> None:
    resources = built(EXAMPLE)
    for name in SERVICES:
        pod = _named(resources, "Deployment")[f"posthouse-{name}"]["spec"]["template"]["spec"]
        assert refusal(name, environment(pod, resources)) is None
        assert unknown(name, {entry["name"]: "" for entry in pod["containers"][0]["env"]}) == []


def test_the_files_of_the_example_are_valid_by_themselves() -> None:
    assert [error for version in VERSIONS for error in schema_errors([*listed(EXAMPLE), secret()], version)] == []


@pytest.mark.parametrize("folder", [BASE, EXAMPLE])
def test_every_shared_setting_is_read_by_somebody(folder: Path) -> None:
    document = yaml.safe_load((folder / "config.yaml").read_text())["data"] | secret()["stringData"]
    unread_by = [set(unknown(service, document)) for service in SERVICES]
    assert set.intersection(*unread_by) == set()


def test_the_base_never_applies_a_secret() -> None:
    assert [resource for resource in listed(BASE) if resource["kind"] == "Secret"] == []
    assert not any(
        "secret.example" in str(name) for name in yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    )


def test_every_file_is_listed_or_an_example_or_a_patch() -> None:
    for folder in (BASE, EXAMPLE):
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        known = {*kustomization["resources"], *(patch["path"] for patch in kustomization.get("patches", []))}
        present = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
        assert present == {name for name in known if name.endswith(".yaml")}


def test_hooks_has_several_replicas() -> None:
    assert _named(listed(BASE), "Deployment")["posthouse-hooks"]["spec"]["replicas"] >= 2


Change = Callable[[list[Resource]], None]


def _change(kind: str, name: str, path: str, value: object) -> Change:
    def change(resources: list[Resource]) -> None:
        place: Any = _named(resources, kind)[f"posthouse-{name}"]
        *parents, last = [int(part) if re.fullmatch(r"\d+", part) else part for part in path.split("/")]
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


def _without(kind: str, name: str) -> Change:
    def change(resources: list[Resource]) -> None:
        resources.remove(_named(resources, kind)[name])

    return change


@lru_cache
def complaints_of_the_base() -> frozenset[str]:
    return frozenset(complaints(listed(BASE), ["1.33"]))


POD = "spec/template/spec"
FIRST = f"{POD}/containers/0"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_change("Deployment", "api", "spec/replicas", "two"), "schema: Deployment posthouse-api: spec.replicas"),
        (_change("Service", "api", "spec/sessions", 1), "schema: Service posthouse-api"),
        (_without("Deployment", "posthouse-hooks"), "the Deployment hooks is missing"),
        (_without("Job", "posthouse-migrate"), "the Job migrate is missing"),
        (_without("PodDisruptionBudget", "posthouse-api"), "api has no PodDisruptionBudget"),
        (_without("ConfigMap", "posthouse"), "POSTHOUSE_HOSTNAME is missing"),
        (_change("Deployment", "hooks", f"{FIRST}/envFrom/1", {"secretRef": {"name": "other"}}), "hooks would not start: POSTHOUSE_DATABASE_URL"),
        (_change("Deployment", "hooks", f"{FIRST}/env/0/name", "POSTHOUSE_GRACE"), "hooks does not read POSTHOUSE_GRACE"),
        (_change("Deployment", "api", f"{FIRST}/env/0/value", "soon"), "api would not start: POSTHOUSE_GRACE_SECONDS"),
        (_change("Deployment", "api", f"{FIRST}/image", "posthouse-delivery:0.1.0"), "api has the image"),
        (_change("Deployment", "api", f"{FIRST}/image", "posthouse-api:latest"), "api has the image"),
        (_change("Deployment", "api", f"{FIRST}/command", ["posthouse-api"]), "api does not run"),
        (_change("Deployment", "api", f"{POD}/enableServiceLinks", None), "api would find POSTHOUSE_API_PORT"),
        (_change("Deployment", "api", f"{FIRST}/resources/requests", None), "api does not say what it needs"),
        (_change("Deployment", "dsn-ingest", f"{FIRST}/ports/0/containerPort", 25), "dsn-ingest declares"),
        (_change("Deployment", "dsn-ingest", f"{FIRST}/env/1/value", "2526"), "dsn-ingest declares"),
        (_change("Deployment", "delivery", f"{FIRST}/livenessProbe/httpGet/path", "/healthz"), "the livenessProbe of delivery"),
        (_change("Deployment", "delivery", f"{FIRST}/readinessProbe/httpGet/port", 8080), "the readinessProbe of delivery"),
        (_change("Deployment", "hooks", f"{FIRST}/startupProbe/failureThreshold", 10), "hooks is killed while"),
        (_change("Deployment", "api", f"{POD}/terminationGracePeriodSeconds", 34), "api is killed within"),
        (_change("Deployment", "delivery", f"{FIRST}/env/0/value", "60"), "delivery leaves work"),
        (_change("Deployment", "delivery", "spec/replicas", 1), "delivery has no second"),
        (_change("Deployment", "api", f"{POD}/securityContext/runAsNonRoot", None), "api has more privileges"),
        (_change("Job", "migrate", f"{FIRST}/securityContext/capabilities", None), "migrate has more privileges"),
        (_change("Job", "migrate", f"{FIRST}/args", ["upgrade"]), "the Job migrate runs posthouse upgrade"),
        (_change("Service", "api", "spec/ports/0/targetPort", "web"), "leads to web"),
        (_change("Service", "dsn-ingest", "spec/selector", {"app": "mail"}), "selects 0"),
        (_change("PodDisruptionBudget", "api", "spec/selector/matchLabels", {"app.kubernetes.io/part-of": "posthouse"}), "selects 4"),
    ],
)  # fmt: skip
def test_a_slip_in_a_manifest_is_found(change: Change, complaint: str) -> None:
    resources = json.loads(json.dumps(listed(BASE)))  # what YAML anchors share, a change must not
    change(resources)
    found = set(complaints(resources, ["1.33"])) - complaints_of_the_base()
    assert any(complaint in one for one in found), found
