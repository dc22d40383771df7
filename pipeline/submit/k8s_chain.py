"""The chain of a run's stages on Kubernetes: objects applied, all of it written down."""

import logging
import shlex
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import local_root, run_store
from pipeline.storage import Store
from pipeline.submit.k8s_base import Manifest
from pipeline.submit.k8s_render import config_of_pods, instance_name, render_manifests
from pipeline.submit.k8s_yaml import dump_manifests
from pipeline.submit.record import Job, Submission, new_name, write_submission
from pipeline.submit.schedulers import refuse_queued
from pipeline.submit.stages import STAGES, Stage, in_order
from pipeline.tracking import usable_uri

if TYPE_CHECKING:
    from pipeline.submit.k8s import Kubernetes


_log = logging.getLogger(__name__)


def submit_to_k8s(cfg: Config, wanted: Collection[Stage] = STAGES) -> Submission:
    """Apply the objects of stages, each of which waits for what it needs of the others.

    Raises:
        UsageError: the configuration can't become manifests, pods and this machine share no storage, or MLflow knows no
            such URI.
        MarlinError: one of the stages is queued already, or Kubernetes refuses an object; then none stays.
    """
    from pipeline.submit.k8s import Kubernetes

    _refuse_disks(cfg)
    name = new_name()
    instance = instance_name(cfg, name)
    made = render_manifests(cfg, instance, in_order(wanted))
    refuse_queued(cfg, "kubernetes", wanted)
    if {"train", "eval"} & set(wanted):
        usable_uri(config_of_pods(cfg))  # rather now than after hours of preprocessing
    k8s = cfg.launch.k8s
    cluster = Kubernetes(k8s.context, k8s.namespace)
    jobs = [
        Job(
            stage,
            each["metadata"]["name"],
            made.after[stage],
            "",
            log_command(cluster.context, k8s.namespace, instance, stage),
            each["kind"],
        )
        for stage, each in made.stages.items()
    ]
    submission = Submission(name, "", jobs, "kubernetes", cluster.context, k8s.namespace)
    applied: list[Manifest] = []
    with ExitStack() as undone:
        undone.callback(_withdraw, cluster, applied)
        if "train" in made.stages:
            undone.callback(_begin_anew(run_store(cfg), instance))
        owners = []
        for manifest in [*made.support, *made.stages.values()]:
            applied.append(manifest)
            uid = cluster.apply(manifest)
            if manifest not in made.support:
                owners.append(_owner(manifest, uid))
        for manifest in made.support:  # gone with the last of the stages
            cluster.apply(manifest | {"metadata": manifest["metadata"] | {"ownerReferences": owners}})
        write_submission(run_store(cfg), submission)
        undone.pop_all()
    return submission


def dry_run_k8s(cfg: Config, wanted: Collection[Stage] = STAGES) -> str:
    """The manifests that `submit_to_k8s` would apply, as YAML; nothing is asked of the cluster.

    Raises:
        UsageError: the configuration can't become manifests.
    """
    _refuse_disks(cfg)
    made = render_manifests(cfg, instance_name(cfg, "dry-run"), in_order(wanted))
    return dump_manifests([*made.support, *made.stages.values()])


def _begin_anew(run: Store, instance: str) -> Callable[[], None]:
    """Take back the word of an earlier training, which evaluation would take for this one's; returns the way back."""
    from train.status import Status, change_status, write_status

    found: list[Status] = []

    def submitted(before: Status | None) -> Status | None:
        if before is None or before.state not in ("done", "failed"):
            return None
        found[:] = [before]
        return Status("resumable", before.step, f"submitted as {instance}-train")

    def restore() -> None:
        for before in found:
            write_status(run, before)

    change_status(run, submitted)
    return restore


def _owner(manifest: Manifest, uid: str) -> dict[str, str]:
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "name": manifest["metadata"]["name"],
        "uid": uid,
    }


def _withdraw(cluster: "Kubernetes", applied: Sequence[Manifest]) -> None:
    for manifest in reversed(applied):
        try:
            cluster.delete(manifest["kind"], manifest["apiVersion"], manifest["metadata"]["name"])
        except MarlinError as error:  # the first error is the one that is told, and the others are still to go
            _log.warning("%s", error)


def log_command(context: str, namespace: str, instance: str, stage: Stage) -> str:
    """What shows the logs of a stage."""
    selector = f"app.kubernetes.io/instance={instance},app.kubernetes.io/component={stage}"
    where = ["--context", context, "-n", namespace]
    return shlex.join(["kubectl", *where, "logs", "--prefix", "--tail=-1", "-l", selector])


def _refuse_disks(cfg: Config) -> None:
    """Pods share no disk but a volume, and the record of a submission lies in the run's folder."""
    root = local_root(cfg)
    if root is not None and not (cfg.launch.k8s.volume and root.is_relative_to("/data") and Path("/data").is_dir()):
        raise UsageError(
            f"storage.root={cfg.storage.root} is on a disk that pods don't see: use s3://…, or a folder below /data of "
            "a volume (launch.k8s.volume) that is mounted there on this machine too"
        )
    uri = cfg.tracking.uri
    if uri and urlsplit(uri).scheme in ("", "file", "sqlite"):
        raise UsageError(
            f"tracking.uri={uri} is on a disk pods don't share: leave it empty (launch.k8s.mlflow) or name a server"
        )
