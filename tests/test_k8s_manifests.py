"""k8s/: every overlay as kubectl builds it, against strict schemas and the security settings that the pages promise."""

import copy
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from k8s_schemas import Manifest, check_policy, containers, pod_templates, validate
from kustomize import build

from pipeline.config.k8s import quantity
from pipeline.config.load import load_config
from pipeline.config.schema import TrainConfig
from pipeline.errors import MarlinError, StoppedEarly, UsageError

ROOT = Path(__file__).parents[1]
K8S = ROOT / "k8s"
BUILT = ["site", "base", "overlays/a6000", "overlays/cpu", "overlays/single-gpu"]
_BEFORE_MARLIN_LISTENS = 143


@pytest.fixture(scope="module", params=BUILT)
def built(request: pytest.FixtureRequest) -> list[Manifest]:
    return build(K8S / request.param)


@pytest.fixture(scope="module")
def overlays() -> dict[str, dict[str, Manifest]]:
    """Objects of each overlay, by kind and name."""
    return {
        path.name: {f"{each['kind']}/{each['metadata']['name']}": each for each in build(path)}
        for path in (K8S / "overlays").iterdir()
    }


def test_every_overlay_is_tested() -> None:
    folders = {str(path.parent.relative_to(K8S)) for path in K8S.rglob("kustomization.yaml")}
    assert folders == {*BUILT, "components/gpu", "components/kueue"}


def test_manifests_are_valid(built: list[Manifest]) -> None:
    for manifest in built:
        validate(manifest)


def test_pods_are_locked_down(built: list[Manifest]) -> None:
    for manifest in built:
        check_policy(manifest)
        for template in pod_templates(manifest):
            for container in containers(template["spec"]):
                assert re.fullmatch(r"(registry\.example\.org/marlin:(cpu|gpu)|marlin)", container["image"])


@pytest.mark.parametrize(
    "break_it",
    [
        lambda pod: pod.update(hostNetwork=True),
        lambda pod: pod.pop("automountServiceAccountToken"),
        lambda pod: pod["securityContext"].update(runAsUser=0),
        lambda pod: pod["containers"][0].pop("securityContext"),
        lambda pod: pod["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
        lambda pod: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        lambda pod: pod["containers"][0]["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}),
    ],
    ids=["host-network", "token", "root", "no-context", "writable", "host-path", "secret"],
)
def test_the_policy_check_sees_what_is_wrong(break_it: Callable[[Manifest], object]) -> None:
    manifests = [each for each in build(K8S / "base") if pod_templates(each)]
    assert len(manifests) == 3
    for manifest in manifests:
        for number in range(len(pod_templates(manifest))):
            broken = copy.deepcopy(manifest)
            break_it(pod_templates(broken)[number]["spec"])
            with pytest.raises((AssertionError, KeyError)):
                check_policy(broken)


@pytest.mark.parametrize("kind", ["RayJob", "JobSet", "PodDisruptionBudget"])
def test_the_schemas_refuse_unknown_keys(kind: str) -> None:
    manifest = next(each for each in build(K8S / "base") if each["kind"] == kind)
    manifest["spec"]["unknownKey"] = 1
    with pytest.raises(Exception, match="unknownKey"):
        validate(manifest)
    del manifest["spec"]["unknownKey"]
    for template in pod_templates(manifest):
        template["spec"]["containers"][0]["unknownKey"] = 1
        with pytest.raises(Exception, match="unknownKey"):
            validate(manifest)


def test_pods_read_the_configuration_that_goes_with_them(overlays: dict[str, dict[str, Manifest]]) -> None:
    for objects in overlays.values():
        (name,) = [each["metadata"]["name"] for each in objects.values() if each["kind"] == "ConfigMap"]
        named = [
            volume["configMap"]["name"]
            for manifest in objects.values()
            for template in pod_templates(manifest)
            for volume in template["spec"]["volumes"]
            if "configMap" in volume
        ]
        assert len(named) == 6
        assert set(named) == {name}


def test_the_configuration_is_one_of_ours() -> None:
    assert load_config(str(K8S / "base/run.yaml")).storage.root.startswith("s3://")


def test_images_run_as_the_same_user(built: list[Manifest]) -> None:
    users = set(re.findall(r"^USER (.*)$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE))
    for manifest in built:
        for template in pod_templates(manifest):
            context = template["spec"]["securityContext"]
            assert users == {f"{context['runAsUser']}:{context['runAsGroup']}"}


def test_as_many_launchers_are_named_as_there_are_pods(overlays: dict[str, dict[str, Manifest]]) -> None:
    asked = {}
    for overlay, objects in overlays.items():
        job = part(objects["JobSet/marlin-train"], "train")
        (container,) = job["template"]["spec"]["containers"]
        nodes = {each["name"]: each.get("value") for each in container["env"]}["PET_NNODES"]
        gpus = container["resources"]["limits"].get("nvidia.com/gpu")
        assert job["completions"] == job["parallelism"] == int(nodes)
        assert objects["PodDisruptionBudget/marlin-train"]["spec"]["minAvailable"] == int(nodes) - 1
        assert f"train.processes={gpus or 1}" in container["args"]
        asked[overlay] = (int(nodes), gpus)
    assert asked == {"cpu": (2, None), "single-gpu": (1, "1"), "a6000": (2, "4")}


def test_restarts_follow_disruptions_and_not_failures() -> None:
    manifest = base("JobSet", "marlin-train")
    restart, fail = manifest["spec"]["failurePolicy"]["rules"]
    assert {key: restart[key] for key in restart if key != "name"} == {
        "action": "RestartJobSet",
        "onJobFailureReasons": ["BackoffLimitExceeded"],
        "targetReplicatedJobs": ["train"],
    }
    assert set(fail) == {"name", "action"}
    assert fail["action"] == "FailJobSet"
    job = part(manifest, "train")
    assert job["backoffLimit"] == 0  # what is counted exceeds it
    resumable = [StoppedEarly.exit_status, _BEFORE_MARLIN_LISTENS]
    disrupted, stopped, failed = job["podFailurePolicy"]["rules"]
    assert disrupted == {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert (stopped["action"], stopped["onExitCodes"]["operator"]) == ("Count", "In")
    assert (failed["action"], failed["onExitCodes"]["operator"]) == ("FailJob", "NotIn")
    assert stopped["onExitCodes"]["values"] == failed["onExitCodes"]["values"] == resumable
    assert UsageError.exit_status not in resumable


@pytest.mark.parametrize("name", ["marlin-train", "marlin-eval"])
def test_a_wait_ends_when_what_it_waits_for_has_failed_and_not_before(name: str) -> None:
    job = part(base("JobSet", name), "wait")
    assert job["backoffLimit"] > 0
    disrupted, stopped, failed = job["podFailurePolicy"]["rules"]
    assert (disrupted["action"], stopped["action"], failed["action"]) == ("Ignore", "Ignore", "FailJob")
    assert stopped["onExitCodes"]["values"] == [StoppedEarly.exit_status, _BEFORE_MARLIN_LISTENS]
    assert failed["onExitCodes"]["values"] == [MarlinError.exit_status, UsageError.exit_status]
    assert job["activeDeadlineSeconds"] > 0


def test_shards_leave_room_in_the_volume(overlays: dict[str, dict[str, Manifest]]) -> None:
    given = load_config(str(K8S / "base/run.yaml")).data.cache_gb
    assert given is not None
    for objects in overlays.values():
        for manifest in objects.values():
            for template in pod_templates(manifest):
                limits = {each["name"]: each["emptyDir"]["sizeLimit"] for each in disks(template)}
                for container in template["spec"]["containers"]:
                    assert "ephemeral-storage" not in container["resources"]["limits"]
                if "cache" in limits:
                    assert given * 1e9 <= quantity(limits["cache"]) - 20e9


def disks(template: Manifest) -> list[Manifest]:
    """Volumes on the node's disk."""
    volumes = template["spec"]["volumes"]
    return [each for each in volumes if "emptyDir" in each and each["emptyDir"].get("medium") != "Memory"]


def test_there_is_time_to_save() -> None:
    pod = part(base("JobSet", "marlin-train"), "train")["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 2 * TrainConfig.model_fields["grace"].default


def test_ray_is_the_one_that_is_pinned() -> None:
    version = base("RayJob", "marlin-preprocess")["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"\nray=={version}\n" in (ROOT / "requirements/cuda13.txt").read_text()


def test_mlflow_answers_to_the_name_of_its_service() -> None:
    objects = {each["kind"]: each for each in build(K8S / "site")}
    service, deployment = objects["Service"], objects["Deployment"]
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (hosts,) = [word for word in container["args"] if word.startswith("--allowed-hosts=")]
    address = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert address in hosts.partition("=")[2].split(",")
    configured = load_config("demo", ["storage.root=s3://x/y"]).launch.k8s.mlflow
    assert configured == load_config(str(K8S / "base/run.yaml")).tracking.uri == f"http://{address}"


def test_the_queue_is_named_by_the_stages(tmp_path: Path) -> None:
    for folder in ("base", "overlays", "components"):
        shutil.copytree(K8S / folder, tmp_path / folder)
    path = tmp_path / "overlays/cpu/kustomization.yaml"
    path.write_text(path.read_text() + "components: [../../components/kueue]\n")
    built = build(path.parent)
    (queue,) = [each for each in built if each["kind"] == "LocalQueue"]
    validate(queue)
    stages = [each for each in built if each["kind"] in ("RayJob", "JobSet")]
    assert len(stages) == 3
    for manifest in stages:
        validate(manifest)
        assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]


def base(kind: str, name: str) -> Manifest:
    (found,) = [each for each in build(K8S / "base") if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def part(job_set: Manifest, name: str) -> Manifest:
    (found,) = [each for each in job_set["spec"]["replicatedJobs"] if each["name"] == name]
    spec: Manifest = found["template"]["spec"]
    return spec


def files() -> Iterator[Path]:
    yield from K8S.rglob("*.yaml")


def test_files_are_installed() -> None:
    listed = re.findall(r"^share/marlin-pipeline/(k8s\S*) = (\S+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert {path for target, pattern in listed for path in ROOT.glob(pattern)} == set(files())
    assert all(target == str(Path(pattern).parent) for target, pattern in listed)
