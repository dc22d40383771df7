"""k8s/: every overlay against the Kubernetes 1.32 schemas and the security settings that the pages promise."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline.config.load import load_config
from pipeline.config.schema import TrainConfig
from pipeline.errors import StoppedEarly, UsageError

K8S = Path(__file__).parents[1] / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
Manifest = dict[str, Any]


def compose(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of a folder, but for generated names and labels."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    manifests: list[Manifest] = []
    for entry in kustomization["resources"]:
        path = folder / entry
        manifests += compose(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    for patch in kustomization.get("patches", []):
        change = yaml.safe_load((folder / patch["path"]).read_text())
        (target,) = [m for m in manifests if _identity(m) == _identity(change)]
        _merge(target, change)
    images = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization.get("images", [])}
    for container in _containers(manifests):
        container["image"] = images.get(container["image"], container["image"])
    return manifests


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return compose(K8S / "overlays" / request.param)


@pytest.fixture
def job(overlay: list[Manifest]) -> Manifest:
    (job,) = [manifest for manifest in overlay if manifest["kind"] == "Job"]
    return job["spec"]


@pytest.fixture
def pod(job: Manifest) -> Manifest:
    return job["template"]["spec"]


def test_the_overlays_are_these() -> None:
    assert OVERLAYS == ["cpu", "single-gpu"]


def test_manifests_are_valid(overlay: list[Manifest]) -> None:
    for manifest in overlay:
        kubernetes_validate.validate(manifest, "1.32", strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_kubectl_builds_the_same(name: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on PATH")
    done = subprocess.run(["kubectl", "kustomize", K8S / "overlays" / name], capture_output=True, text=True, check=True)
    built = list(yaml.safe_load_all(done.stdout))
    for manifest in built:
        kubernetes_validate.validate(manifest, "1.32", strict=True)
    (configuration,) = [m for m in built if m["kind"] == "ConfigMap"]
    (job,) = [m for m in built if m["kind"] == "Job"]
    template = job["spec"]["template"]
    del template["metadata"]
    text = yaml.safe_dump(job["spec"]).replace(configuration["metadata"]["name"], "marlin-run")
    (ours,) = [m for m in compose(K8S / "overlays" / name) if m["kind"] == "Job"]
    assert yaml.safe_load(text) == ours["spec"]


def test_the_pod_is_locked_down(pod: Manifest) -> None:
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all("hostPath" not in volume for volume in pod["volumes"])


def test_containers_are_locked_down(pod: Manifest) -> None:
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "privileged": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_what_is_written_to_is_a_volume(pod: Manifest) -> None:
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in [*pod["initContainers"], *pod["containers"]]:
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) <= volumes
        for variable in container["env"]:
            assert variable["value"] in mounts, variable
    assert {"/tmp", "/cache", "/data", "/dev/shm"} <= set(mounts)


def test_the_image_runs_as_the_same_user(pod: Manifest) -> None:
    dockerfile = (K8S.parent / "docker" / "Dockerfile").read_text()
    assert set(re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)) == {
        "{runAsUser}:{runAsGroup}".format(**pod["securityContext"])
    }


def test_credentials_come_from_a_secret_only(pod: Manifest) -> None:
    (container,) = pod["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "marlin-s3", "optional": True}}]
    assert not [v for v in container["env"] if re.search("KEY|SECRET|TOKEN", v["name"])]


def test_exit_statuses_mean_what_the_command_says(job: Manifest) -> None:
    actions = {
        code: rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
        for code in rule["onExitCodes"]["values"]
    }
    assert actions == {StoppedEarly.exit_status: "Ignore", UsageError.exit_status: "FailJob"}
    disruption = [{"type": "DisruptionTarget", "status": "True"}]
    assert {"action": "Ignore", "onPodConditions": disruption} in job["podFailurePolicy"]["rules"]
    assert job["podReplacementPolicy"] == "Failed"


def test_there_is_time_to_save(pod: Manifest) -> None:
    assert pod["terminationGracePeriodSeconds"] >= 2 * TrainConfig.model_fields["grace"].default


def test_the_configuration_is_one_of_ours() -> None:
    cfg = load_config(str(K8S / "base" / "run.yaml"))
    assert cfg.storage.root == "/data/marlin"


def test_only_the_gpu_overlay_asks_for_a_gpu() -> None:
    asks = {}
    for name in OVERLAYS:
        (container,) = [c for c in _containers(compose(K8S / "overlays" / name)) if c["name"] == "marlin"]
        asks[name] = container["resources"]["limits"].get("nvidia.com/gpu")
    assert asks == {"cpu": None, "single-gpu": "1"}


def _identity(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _containers(manifests: list[Manifest]) -> Iterator[Manifest]:
    for manifest in manifests:
        pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
        yield from pod.get("initContainers", [])
        yield from pod.get("containers", [])


def _merge(target: Manifest, change: Manifest) -> None:
    """Strategic merge as far as the overlays use it: mappings by key, containers by name."""
    for key, value in change.items():
        if key == "containers":
            for one in value:
                _merge(next(c for c in target[key] if c["name"] == one["name"]), one)
        elif isinstance(value, dict) and key in target:
            _merge(target[key], value)
        else:
            target[key] = value
