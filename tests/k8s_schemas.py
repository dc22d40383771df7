"""What an API server would check of manifests, without one: schemas with no unknown keys, and the security settings."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

Manifest = dict[str, Any]
_CUSTOM = {
    "RayJob": "ray.io_rayjobs.yaml",
    "JobSet": "jobset.x-k8s.io_jobsets.yaml",
    "LocalQueue": "kueue.x-k8s.io_localqueues.yaml",
}
_LOCKED_DOWN = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "privileged": False,
    "capabilities": {"drop": ["ALL"]},
}
_WRITABLE = {"/data", "/cache", "/tmp", "/dev/shm"}


def validate(manifest: Manifest) -> None:
    """One object, strictly: an unknown key is an error."""
    if manifest["kind"] not in _CUSTOM:
        kubernetes_validate.validate(manifest, "1.32", strict=True)
        return
    _custom_validator(manifest["kind"], manifest["apiVersion"].split("/")[1]).validate(manifest)
    # The schemas of KubeRay and JobSet leave parts of pods open.
    for job in job_specs(manifest):
        kubernetes_validate.validate(
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": job}, "1.32", strict=True
        )
    if manifest["kind"] == "RayJob":
        for template in pod_templates(manifest):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
            kubernetes_validate.validate(pod, "1.32", strict=True)


def check_policy(manifest: Manifest) -> None:
    """The pod security standard `restricted` and more, in every pod of an object."""
    for template in pod_templates(manifest):
        pod = template["spec"]
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert min(context["runAsUser"], context["runAsGroup"]) > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert "serviceAccountName" not in pod
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            assert set(volume) - {"name"} <= {"emptyDir", "configMap", "persistentVolumeClaim"}, volume
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), volume
        for container in containers(pod):
            _check_container(container, volumes)


def _check_container(container: Manifest, volumes: Manifest) -> None:
    assert container["securityContext"] == _LOCKED_DOWN
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    for mount in container["volumeMounts"]:
        assert mount["name"] in volumes
        assert mount.get("readOnly") or mount["mountPath"] in _WRITABLE, mount
    for variable in container["env"]:
        assert not re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"]), variable
        if variable.get("value", "").startswith("/"):
            assert variable["value"] in {mount["mountPath"] for mount in container["volumeMounts"]}, variable
    hidden = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container["env"]
    assert hidden is not ("nvidia.com/gpu" in container["resources"]["limits"])
    for source in container.get("envFrom", []):
        assert set(source) == {"secretRef"}


def containers(pod: Manifest) -> list[Manifest]:
    """All of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def job_specs(manifest: Manifest) -> Iterator[Manifest]:
    """Specification of each Job of a JobSet."""
    if manifest["kind"] == "JobSet":
        for part in manifest["spec"]["replicatedJobs"]:
            yield part["template"]["spec"]


def pod_templates(manifest: Manifest) -> list[Manifest]:
    """Whatever has containers, however deep."""
    return [found for found in _walk(manifest) if isinstance(found.get("spec"), dict) and "containers" in found["spec"]]


def _walk(value: Any) -> Iterator[Manifest]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _walk(each)
    elif isinstance(value, list):
        for each in value:
            yield from _walk(each)


@cache
def _custom_validator(kind: str, version: str) -> jsonschema.protocols.Validator:
    assets = os.environ.get("MARLIN_TEST_ASSETS")
    if not assets:
        pytest.skip("MARLIN_TEST_ASSETS does not say where the schemas of custom resources are (k8s-crds/)")
    definition = yaml.safe_load((Path(assets) / "k8s-crds" / _CUSTOM[kind]).read_text())
    (served,) = [each for each in definition["spec"]["versions"] if each["name"] == version]
    schema = served["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {
        "type": "object",
        "properties": {name: {} for name in ("name", "namespace", "labels", "annotations")},
    }
    return jsonschema.Draft202012Validator(_closed(schema))


def _closed(schema: Any) -> Any:
    """A structural schema as a server takes it: what it does not name is pruned there, and refused here."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {key: _closed(each) for key, each in schema.items() if key not in ("format", "description")}
    if (
        schema.get("type") == "object"
        and "properties" in schema
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        closed.setdefault("additionalProperties", False)
    return closed
