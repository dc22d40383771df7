"""Filling in a pod of the base: resources, image, volumes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.k8s import K8sConfig, quantity

_Pod = dict[str, Any]
_GPU, _DISK = "nvidia.com/gpu", "ephemeral-storage"
_SEEN = "NVIDIA_VISIBLE_DEVICES"  # the device plugin sets it, unless the container does
_MAIN = {"marlin", "ray"}
_OWN = {*_MAIN, "models", "ray-job-submitter"}
_CREDENTIALS = "marlin-s3"  # as the base names it
# Where GPU nodes keep other pods away; a cluster without the taint ignores it.
_TOLERATION = {"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}


@dataclass(frozen=True)
class Part:
    """What a pod has of its node."""

    cores: int
    memory: str
    gpus: int


def main_container(template: dict[str, Any]) -> dict[str, Any]:
    """The container of a pod that does the stage's work, whatever was put beside it."""
    found: dict[str, Any] = next(each for each in template["spec"]["containers"] if each["name"] in _MAIN)
    return found


def fill_container(template: dict[str, Any], part: Part) -> None:
    """Resources of a pod's main container; where it needs GPUs, sight of them and leave to run beside them."""
    container = main_container(template)
    container["env"] = [each for each in container.get("env", []) if each["name"] != _SEEN]
    resources = container["resources"]
    resources["requests"] |= {"cpu": str(part.cores), "memory": part.memory}
    limits = resources.setdefault("limits", {})
    limits["memory"] = part.memory
    limits.pop(_GPU, None)
    if part.gpus:
        limits[_GPU] = str(part.gpus)
        tolerations = template["spec"].setdefault("tolerations", [])
        if _TOLERATION not in tolerations:
            tolerations.append(dict(_TOLERATION))
    else:
        container["env"].insert(0, {"name": _SEEN, "value": "void"})


def own_containers(spec: _Pod) -> list[dict[str, Any]]:
    """A pod's containers of marlin's own: those of a site beside them stay as they are."""
    return [each for each in [*spec.get("initContainers", []), *spec["containers"]] if each["name"] in _OWN]


def fill_pod(spec: _Pod, k8s: K8sConfig, config_map: str) -> None:
    """Image, configuration, credentials and volumes of a pod; what the configuration leaves out stays as it is."""
    for container in own_containers(spec):
        if k8s.image:
            container["image"] = k8s.image
        if "envFrom" in container:
            container["envFrom"] = list(_sources(container["envFrom"], k8s.secret))
    if k8s.pull_secret:
        spec["imagePullSecrets"] = [{"name": k8s.pull_secret}]
    if k8s.priority_class:
        spec["priorityClassName"] = k8s.priority_class
    if not k8s.volume:
        _without_data(spec)
    for volume in spec["volumes"]:
        _fill_volume(volume, k8s, config_map)
    _ask_for_disk(spec)


def _sources(given: list[dict[str, Any]], secret: str) -> Iterator[dict[str, Any]]:
    for source in given:
        if source.get("secretRef", {}).get("name") != _CREDENTIALS:
            yield source
        elif secret:
            yield {**source, "secretRef": {**source["secretRef"], "name": secret}}


def _without_data(spec: _Pod) -> None:
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "data"]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        if "volumeMounts" in container:
            container["volumeMounts"] = [each for each in container["volumeMounts"] if each["name"] != "data"]


def _fill_volume(volume: dict[str, Any], k8s: K8sConfig, config_map: str) -> None:
    if volume["name"] == "config":
        volume["configMap"]["name"] = config_map
    elif volume["name"] == "data":
        volume["persistentVolumeClaim"]["claimName"] = k8s.volume
    elif volume["name"] == "shared-memory":
        volume["emptyDir"]["sizeLimit"] = k8s.shared_memory
    elif volume["name"] == "cache" and "emptyDir" in volume:
        volume["emptyDir"]["sizeLimit"] = k8s.cache


def _ask_for_disk(spec: _Pod) -> None:
    """Whoever asks for disk of the node asks for all that its volumes may take, and is put where that is free."""
    disks = [each["emptyDir"] for each in spec["volumes"] if "emptyDir" in each]
    total = sum(quantity(disk["sizeLimit"]) for disk in disks if disk.get("medium") != "Memory" and "sizeLimit" in disk)
    for container in spec["containers"]:
        requests = container.get("resources", {}).get("requests", {})
        if container["name"] in _MAIN and _DISK in requests:
            requests[_DISK] = f"{-(-total // 2**20)}Mi"


def set_variables(container: dict[str, Any], variables: Mapping[str, str]) -> None:
    """Environment variables with these values, whether they are there already or not."""
    kept = [each for each in container.get("env", []) if each["name"] not in variables]
    container["env"] = [*kept, *({"name": name, "value": value} for name, value in variables.items())]
