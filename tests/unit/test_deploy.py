"""The files under deploy/: every name in them means something, no secret stands in them, and they say what docs/scale.md says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = DEPLOY / "docker-compose.yml"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
SECRETS = re.compile(r"password|token|ledger", re.IGNORECASE)


def documents() -> list[dict[str, Any]]:
    return [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text())]


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, labels and specification of everything that makes pods."""
    for each in documents():
        if "template" in each.get("spec", {}):
            template = each["spec"]["template"]
            yield each["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [each for each in documents() if each["kind"] == kind]


def dask_settings(environment: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in environment.items() if name.startswith("DASK_")}


def check_dask_settings(settings: Mapping[str, object]) -> None:
    """Each is one that Dask knows; a misspelt one would be passed over in silence."""
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    for name in settings:
        path = name.removeprefix("DASK_").lower().replace("__", ".").replace("_", "-")
        missing = object()
        assert dask.config.get(path, missing) is not missing, f"Dask has no setting {path}"


# --- docker compose ---------------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    found = yaml.safe_load(COMPOSE.read_text())
    assert isinstance(found, dict)
    return found


def test_compose_services_depend_on_and_live_in_what_exists() -> None:
    file = compose()
    assert file.keys() <= {"name", "services", "networks", "volumes", "x-program"}
    for name, service in file["services"].items():
        assert {"image", "networks"} <= service.keys(), name
        assert set(service.get("depends_on", {})) <= file["services"].keys(), name
        assert set(service["networks"]) <= file["networks"].keys(), name
        for volume in service.get("volumes", ()):
            source = volume.split(":/")[0]
            assert source in file["volumes"] or source.startswith("${"), (name, volume)
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in file["services"][other]


def test_compose_publishes_no_port_and_holds_no_secret() -> None:
    for name, service in compose()["services"].items():
        assert "ports" not in service, name
        for key, value in service.get("environment", {}).items():
            if SECRETS.search(key):
                assert "${" in str(value), f"{name}: {key}"


def test_compose_sets_only_what_dask_knows() -> None:
    for service in compose()["services"].values():
        check_dask_settings(dask_settings(service.get("environment", {})))


def test_scheduler_and_workers_of_compose_meet_at_one_address() -> None:
    services = compose()["services"]
    assert services["scheduler"]["command"][-2:-1] == ["8786"] or "8786" in services["scheduler"]["command"]
    assert "tcp://scheduler:8786" in services["worker"]["command"]
    assert services["scheduler"]["image"] == services["worker"]["image"] == services["send"]["image"]


# --- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_fits_the_schema_of_kubernetes(path: Path) -> None:
    for each in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_every_object_has_its_kind_and_lives_in_our_namespace() -> None:
    versions = {
        "Namespace": "v1",
        "Secret": "v1",
        "Service": "v1",
        "PersistentVolumeClaim": "v1",
        "Deployment": "apps/v1",
        "StatefulSet": "apps/v1",
        "Job": "batch/v1",
        "NetworkPolicy": "networking.k8s.io/v1",
    }
    for each in documents():
        assert each["apiVersion"] == versions[each["kind"]]
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == "campaign"


def test_services_and_selectors_find_their_pods() -> None:
    labels = [labels for _, labels, _ in pods()]
    for each in of_kind("Service"):
        assert any(each["spec"]["selector"].items() <= found.items() for found in labels), each["metadata"]["name"]
    for each in (*of_kind("Deployment"), *of_kind("StatefulSet")):
        assert each["spec"]["selector"]["matchLabels"] == each["spec"]["template"]["metadata"]["labels"]


def test_secrets_come_from_the_secret_and_every_key_of_it_is_used() -> None:
    (secret,) = of_kind("Secret")
    used = set()
    for name, _, spec in pods():
        for container in spec["containers"]:
            for variable in container.get("env", ()):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if SECRETS.search(variable["name"]) or reference:
                    assert reference["name"] == secret["metadata"]["name"], f"{name}: {variable['name']}"
                    used.add(reference["key"])
    assert used == secret["stringData"].keys()
    assert all("REPLACE-ME" in value for value in secret["stringData"].values())


def test_every_pod_is_bounded_and_none_of_ours_is_root_or_speaks_to_kubernetes() -> None:
    for name, _, spec in pods():
        for container in spec["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name
        if name != "postgres":
            assert spec["securityContext"]["runAsNonRoot"] is True, name
            assert spec["automountServiceAccountToken"] is False, name


def test_pods_set_only_what_dask_knows_and_workers_meet_their_scheduler() -> None:
    commands = {}
    for name, _, spec in pods():
        (container,) = spec["containers"]
        commands[name] = container.get("command", [])
        check_dask_settings(dask_settings({each["name"]: each.get("value") for each in container.get("env", ())}))
    assert "tcp://scheduler:8786" in commands["worker"]
    assert "tcp://scheduler:8786" in commands["send-spring"]
    ports = {each["metadata"]["name"]: each["spec"]["ports"][0]["port"] for each in of_kind("Service")}
    assert ports == {"postgres": 5432, "scheduler": 8786}


def test_volumes_that_are_claimed_exist() -> None:
    claims = {each["metadata"]["name"] for each in of_kind("PersistentVolumeClaim")}
    for _, _, spec in pods():
        for volume in spec.get("volumes", ()):
            assert volume["persistentVolumeClaim"]["claimName"] in claims
