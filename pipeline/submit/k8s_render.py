"""Manifests of a submission: a pure function of the configuration and the base's manifests."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipeline.config.k8s import PodResources, quantity
from pipeline.config.load import dump_config, override
from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.submit.k8s_base import Manifest, base_manifests
from pipeline.submit.k8s_pods import Part, fill_container, fill_pod, main_container, own_containers, set_variables
from pipeline.submit.stages import STAGES, Stage, ray_workers, refuse_networks_without_gpus

CONFIG = "run.yaml"
_CONFIG_PATH = f"/config/{CONFIG}"
_CHECKPOINTS = 20_000_000_000  # bytes of a pod's cache that are kept for them, or half of a small one
_SAVED = 30  # of the grace, for the rest of an orderly end
_SHORT = 20  # Kubernetes and its operators append to names, which end at 63 characters


@dataclass(frozen=True)
class Rendered:
    """The objects of a submission.

    Attributes:
        support: the configuration, and the training's disruption budget: what the stages need, to be there before them.
        stages: the object of each stage.
        after: the stages that each waits for.
    """

    support: list[Manifest]
    stages: dict[Stage, Manifest]
    after: dict[Stage, list[str]]


def instance_name(cfg: Config, submission: str) -> str:
    """What names of a submission's objects begin with: a DNS label made of the run's name, unlike any other's."""
    name = re.sub(r"[^a-z0-9]+", "-", cfg.run.name.lower()).strip("-")
    name = name if name[:1].isalpha() else f"r{name}"
    return f"{name[:_SHORT].strip('-')}-{hashlib.sha256(submission.encode()).hexdigest()[:6]}"


def render_manifests(cfg: Config, instance: str, stages: Sequence[Stage] = STAGES) -> Rendered:
    """The objects of the stages.

    Args:
        cfg: the run.
        instance: what names begin with.
        stages: which are wanted.

    Raises:
        UsageError: no image, no time to save, or the base's manifests lack what is to be filled in.
    """
    _check(cfg, stages)
    base = base_manifests(cfg)
    after = {stage: _after(cfg, stage, stages) for stage in stages}
    makers = {"preprocess": _preprocess, "train": _train, "eval": _eval}
    made: dict[Stage, Manifest] = {}
    support = [_config_map(cfg, instance)]
    try:
        for stage in stages:
            made[stage] = makers[stage](cfg, base[stage], instance, after[stage])
            _dress(made[stage], cfg, instance, stage)
        if "train" in stages:
            support.append(_budget(cfg, base["budget"], instance))
    except (KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
        where = cfg.launch.k8s.manifests or "k8s/base"
        raise UsageError(f"{where} is not built as marlin's own base is ({type(error).__name__}: {error})") from None
    return Rendered(support, made, after)


def config_of_pods(cfg: Config) -> Config:
    """The configuration as pods are given it: places of this machine are theirs, and MLflow as they reach it."""
    said = {"launch.scratch": "", "data.cache_dir": "", "data.cache_gb": _cache_gb(cfg)}
    if not cfg.tracking.uri:
        said["tracking.uri"] = cfg.launch.k8s.mlflow
    return override(cfg, [f"{key}={json.dumps(value)}" for key, value in said.items()])


def _cache_gb(cfg: Config) -> float:
    """GB for shards: a pod sees the node's whole disk, and is evicted when its volume passes `launch.k8s.cache`."""
    size = quantity(cfg.launch.k8s.cache)
    most = (size - min(size // 2, _CHECKPOINTS)) // 10**8 / 10
    given = cfg.data.cache_gb
    if given is not None and given > most:
        raise UsageError(
            f"data.cache_gb={given:g} leaves no room for checkpoints in launch.k8s.cache={cfg.launch.k8s.cache}: "
            f"set at most {most:g}, or raise launch.k8s.cache"
        )
    return most if given is None else given


def pod_templates(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Each pod template of a RayJob, JobSet or Job."""
    spec = manifest["spec"]
    if manifest["kind"] == "RayJob":
        yield spec["submitterPodTemplate"]
        yield spec["rayClusterSpec"]["headGroupSpec"]["template"]
        for group in spec["rayClusterSpec"].get("workerGroupSpecs", []):
            yield group["template"]
    elif manifest["kind"] == "JobSet":
        for part in spec["replicatedJobs"]:
            yield part["template"]["spec"]["template"]
    else:
        yield spec["template"]


def _after(cfg: Config, stage: Stage, stages: Sequence[Stage]) -> list[str]:
    if stage == "eval" and cfg.launch.k8s.eval.when == "after" and "train" in stages:
        return ["train"]
    return ["preprocess"] if stage != "preprocess" and "preprocess" in stages else []


def _preprocess(cfg: Config, base: Manifest, instance: str, after: Sequence[str]) -> Manifest:
    asked, spec = cfg.launch.k8s.preprocess, base["spec"]
    # A shell runs it: the name is a DNS label, in which nothing means anything to a shell.
    spec["entrypoint"] += f" preprocess.workers={ray_workers(cfg, asked.nodes * asked.cpus)} --mark {instance}"
    cluster = spec["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    for group in (head, workers):
        group["rayStartParams"]["object-store-memory"] = str(cfg.preprocess.object_store_mb << 20)
        _place(group["template"], asked, asked.cpus)
        if not cfg.preprocess.uses_networks:
            _without_models(group["template"]["spec"])
    others = asked.nodes - 1
    workers |= {"replicas": others, "minReplicas": others, "maxReplicas": others}
    if not others:
        del cluster["workerGroupSpecs"]
    return base


def _without_models(pod: dict[str, Any]) -> None:
    left = [container for container in pod.pop("initContainers", []) if container["name"] != "models"]
    if left:
        pod["initContainers"] = left


def _train(cfg: Config, base: Manifest, instance: str, after: Sequence[str]) -> Manifest:
    k8s = cfg.launch.k8s
    asked, spec = k8s.train, base["spec"]
    spec["failurePolicy"]["maxRestarts"] = k8s.restarts
    job = _waiting(cfg, base, instance, "train", after)
    job["completions"] = job["parallelism"] = asked.nodes
    ranks = asked.gpus or cfg.train.processes
    pod = job["template"]
    _place(pod, asked, asked.cpus * ranks)
    pod["spec"]["terminationGracePeriodSeconds"] = k8s.grace
    container = main_container(pod)
    own = {"train.launcher": "torchrun", "train.processes": ranks, "launch.threads": cfg.launch.threads or asked.cpus}
    kept = [word for word in container["args"] if word.partition("=")[0] not in own]
    container["args"] = [*kept, *(f"{key}={value}" for key, value in own.items())]
    variables = {"PET_NNODES": str(asked.nodes)}
    if k8s.network.interface:
        variables |= {"NCCL_SOCKET_IFNAME": k8s.network.interface, "GLOO_SOCKET_IFNAME": k8s.network.interface}
    if not k8s.network.p2p:
        variables["NCCL_P2P_DISABLE"] = "1"
    if not k8s.network.infiniband:
        variables["NCCL_IB_DISABLE"] = "1"
    set_variables(container, variables)
    return base


def _eval(cfg: Config, base: Manifest, instance: str, after: Sequence[str]) -> Manifest:
    asked = cfg.launch.k8s.eval
    job = _waiting(cfg, base, instance, "eval", after)
    job["completions"] = job["parallelism"] = asked.nodes
    _place(job["template"], asked, asked.cpus)
    if after:
        return base
    # Nothing to wait for: no set is needed.
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": base["metadata"], "spec": job}


def _waiting(cfg: Config, job_set: Manifest, instance: str, stage: Stage, after: Sequence[str]) -> dict[str, Any]:
    """The Job's specification of a stage in its set, whose part `wait` waits for the right thing, or is not there."""
    spec = job_set["spec"]
    parts = {part["name"]: part for part in spec["replicatedJobs"]}
    if after:
        wait = parts["wait"]["template"]["spec"]
        wait["activeDeadlineSeconds"] = 60 * cfg.launch.k8s.wait_minutes
        what = ["training"] if "train" in after else ["dataset", "--mark", instance]
        main_container(wait["template"])["args"] = ["wait", "-c", _CONFIG_PATH, "--for", *what]
    else:
        del parts[stage]["dependsOn"]
        spec["replicatedJobs"] = [parts[stage]]
    found: dict[str, Any] = parts[stage]["template"]["spec"]
    return found


def _place(template: dict[str, Any], asked: PodResources, cores: int) -> None:
    fill_container(template, Part(cores, asked.memory, asked.gpus))
    if asked.node_selector:
        template["spec"]["nodeSelector"] = dict(asked.node_selector)


def _dress(manifest: Manifest, cfg: Config, instance: str, stage: Stage) -> None:
    k8s = cfg.launch.k8s
    labels = {"app.kubernetes.io/instance": instance, "app.kubernetes.io/managed-by": "marlin"}
    queue = {"kueue.x-k8s.io/queue-name": k8s.queue} if k8s.queue else {}
    _name(manifest, cfg, f"{instance}-{stage}", {**labels, **queue})
    for template in pod_templates(manifest):
        template.setdefault("metadata", {}).setdefault("labels", {}).update(labels)
        fill_pod(template["spec"], k8s, instance)
        for container in own_containers(template["spec"]):
            if container["image"] == "marlin":
                raise UsageError("launch.k8s.image is not set: name the image of docs/images.md in your registry")


def _name(manifest: Manifest, cfg: Config, name: str, labels: Mapping[str, str]) -> None:
    metadata = manifest["metadata"]
    metadata |= {"name": name, "namespace": cfg.launch.k8s.namespace}
    metadata["labels"] = {**metadata.get("labels", {}), **labels}
    metadata["annotations"] = {**metadata.get("annotations", {}), "marlin/run": cfg.run.name}


def _config_map(cfg: Config, instance: str) -> Manifest:
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"labels": {"app.kubernetes.io/name": "marlin", "app.kubernetes.io/instance": instance}},
        "immutable": True,
        "data": {CONFIG: dump_config(config_of_pods(cfg))},
    }
    _name(manifest, cfg, instance, {"app.kubernetes.io/managed-by": "marlin"})
    return manifest


def _budget(cfg: Config, base: Manifest, instance: str) -> Manifest:
    asked = cfg.launch.k8s
    base["spec"]["minAvailable"] = asked.train.nodes - (not asked.protect)
    base["spec"]["selector"]["matchLabels"]["jobset.sigs.k8s.io/jobset-name"] = f"{instance}-train"
    labels = {"app.kubernetes.io/instance": instance, "app.kubernetes.io/managed-by": "marlin"}
    _name(base, cfg, f"{instance}-train", labels)
    return base


def _check(cfg: Config, stages: Sequence[Stage]) -> None:
    k8s = cfg.launch.k8s
    if "preprocess" in stages:
        refuse_networks_without_gpus(cfg, k8s.preprocess.gpus, "launch.k8s.preprocess.gpus")
        _check_preprocess(cfg)
    if "train" in stages and k8s.grace <= cfg.train.grace + _SAVED:
        raise UsageError(
            f"launch.k8s.grace={k8s.grace} leaves no time to save: it must be more than "
            f"train.grace={cfg.train.grace} and {_SAVED} s"
        )


def _check_preprocess(cfg: Config) -> None:
    store, memory = cfg.preprocess.object_store_mb, cfg.launch.k8s.shared_memory
    if store << 20 > quantity(memory):
        raise UsageError(
            f"preprocess.object_store_mb={store} does not fit into launch.k8s.shared_memory={memory}: raise that"
        )
    for name, path in cfg.preprocess.models.model_dump().items():
        if (
            path
            and not PurePosixPath(path).is_relative_to("/data")
            and not PurePosixPath(path).is_relative_to("/cache")
        ):
            raise UsageError(
                f"preprocess.models.{name}={path} is a file of this machine: put it below /data of a volume "
                "(launch.k8s.volume), or into the image below /cache"
            )
