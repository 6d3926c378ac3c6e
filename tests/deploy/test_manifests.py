"""The Kubernetes manifests are valid by the schemas of Kubernetes, and agree with the service and with each other."""

import tomllib
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry

from service.access.credentials import parse_credentials
from service.metrics import Metrics
from service.settings import PREFIX, Settings, split_address
from tests.deploy.queries import DEPLOY, ROOT

FOLDER = DEPLOY / "kubernetes"
OLDEST = "1.30"  # the oldest Kubernetes that the manifests are held against
RESOURCES = [
    pytest.param(resource, id=f"{file.stem}-{resource['kind']}")
    for file in sorted(FOLDER.glob("*.yaml"))
    for resource in yaml.safe_load_all(file.read_text("utf-8"))
]


def resource(file: str, kind: str) -> Any:
    (found,) = (one for one in yaml.safe_load_all((FOLDER / file).read_text("utf-8")) if one["kind"] == kind)
    return found


@pytest.fixture
def pod() -> Any:
    return resource("deployment.yaml", "Deployment")["spec"]["template"]["spec"]


@pytest.fixture
def container(pod: Any) -> Any:
    (only,) = pod["containers"]
    return only


@pytest.fixture
def settings(container: Any) -> Settings:
    given = {entry["name"].removeprefix(PREFIX).lower(): entry["value"] for entry in container["env"]}
    return Settings(**given)


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("resource", RESOURCES)
def test_a_manifest_is_valid(resource: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


def test_the_settings_exist_and_are_valid_and_protect_what_they_open(container: Any, settings: Settings) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert {entry["name"] for entry in container["env"]} <= known
    assert settings.tls_certificate and settings.tls_key and settings.credentials
    assert not settings.allow_unprotected


def test_ports_are_those_that_the_service_listens_on(container: Any, settings: Settings) -> None:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "grpc": split_address(settings.grpc_address)[1],
        "http": split_address(settings.http_address)[1],
        "admin": split_address(settings.admin_http_address)[1],
    }
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[name]["httpGet"]["port"] == "admin"
        assert container[name]["httpGet"]["scheme"] == "HTTPS"
        assert container[name]["httpGet"]["path"] in ("/healthz", "/readyz")


def test_the_process_is_given_the_time_to_drain(pod: Any, settings: Settings) -> None:
    needed = settings.drain_delay_seconds + settings.drain_seconds
    assert pod["terminationGracePeriodSeconds"] > needed + 5
    assert "lifecycle" not in pod["containers"][0]
    # The pod is told apart before calls are refused: a probe fails within the delay.
    assert container_period(pod) < settings.drain_delay_seconds


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_is_patient_with_a_service_that_is_busy(container: Any, probe: str) -> None:
    # The answer took up to 5.7 s while 40 callers at once asked for explanations over HTTP.
    assert container[probe]["timeoutSeconds"] >= 5
    assert container[probe]["failureThreshold"] >= 3


def test_a_pod_is_given_the_time_to_load_many_bundles_and_may_have_none(container: Any) -> None:
    probe = container["startupProbe"]
    assert probe["httpGet"]["path"] == "/healthz"
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 600


def container_period(pod: Any) -> float:
    probe = pod["containers"][0]["readinessProbe"]
    return float(probe["periodSeconds"] * probe["failureThreshold"])


def test_the_container_may_do_nothing_but_serve(pod: Any, container: Any) -> None:
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in dockerfile
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}


def test_the_image_is_of_this_version(container: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert container["image"] == f"{project['name']}:{project['version']}"


def test_everything_selects_the_pods_of_the_deployment(pod: Any) -> None:
    deployment = resource("deployment.yaml", "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    for service in yaml.safe_load_all((FOLDER / "services.yaml").read_text("utf-8")):
        assert service["spec"]["selector"] == labels
    for file, kind, field in (
        ("disruption-budget.yaml", "PodDisruptionBudget", "selector"),
        ("network-policy.yaml", "NetworkPolicy", "podSelector"),
    ):
        assert resource(file, kind)["spec"][field]["matchLabels"] == labels
    target = resource("autoscaler.yaml", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (deployment["kind"], deployment["metadata"]["name"])


def test_grpc_is_balanced_by_its_clients(container: Any) -> None:
    services = list(yaml.safe_load_all((FOLDER / "services.yaml").read_text("utf-8")))
    by_name = {service["metadata"]["name"]: service["spec"] for service in services}
    assert by_name["interlinear"]["clusterIP"] == "None"
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for spec in by_name.values() for port in spec["ports"]} == ports - {"admin"}


def test_the_network_policy_opens_every_port_to_somebody_and_no_other(container: Any) -> None:
    policy = resource("network-policy.yaml", "NetworkPolicy")["spec"]
    opened = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    assert sorted(opened) == sorted(port["name"] for port in container["ports"])
    assert all(rule["from"] for rule in policy["ingress"])


def test_pods_are_added_by_a_metric_that_the_service_exports_and_the_adapter_knows() -> None:
    scaler = resource("autoscaler.yaml", "HorizontalPodAutoscaler")["spec"]
    (metric,) = scaler["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in {exported._name for exported in Metrics.on(CollectorRegistry()).every()}
    adapter = yaml.safe_load(resource("prometheus-adapter.yaml", "ConfigMap")["data"]["config.yaml"])
    assert any(rule["seriesQuery"].startswith(f"{name}{{") for rule in adapter["rules"])
    assert resource("disruption-budget.yaml", "PodDisruptionBudget")["spec"]["minAvailable"] < scaler["minReplicas"]


def test_secrets_are_those_that_the_pod_mounts_and_hold_what_the_service_reads(pod: Any, settings: Settings) -> None:
    secrets = {
        secret["metadata"]["name"]: secret["stringData"]
        for secret in yaml.safe_load_all((FOLDER / "secrets.example.yaml").read_text("utf-8"))
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    files = {
        f"{mounts[volume['name']]}/{name}"
        for volume in pod["volumes"]
        for name in secrets[volume["secret"]["secretName"]]
    }
    assert files == {str(settings.tls_certificate), str(settings.tls_key), str(settings.credentials)}
    content = secrets["interlinear-credentials"]["credentials.toml"].encode()
    read = parse_credentials(content, "the example")
    assert {credential.principal.name for credential in read} == {"shop", "prometheus"}
