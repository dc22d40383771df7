"""The section `launch.k8s` of the schema: what the stages ask of Kubernetes."""

import re
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Line, NetworkConfig, NonNegativeInt, PositiveInt, Section
from pipeline.errors import UsageError

Quantity = Annotated[str, Field(pattern=r"^[1-9]\d*(M|G|T|Mi|Gi|Ti)$")]
_DnsName = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")]
_Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
_LabelKey = Annotated[
    str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")
]
_QueueName = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?)?$")]  # a label's value, too
_LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]

_UNITS = {"M": 10**6, "G": 10**9, "T": 10**12, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: str) -> int:
    """Bytes of a quantity as Kubernetes writes it.

    Raises:
        UsageError: it is none with a unit of M, G, T, Mi, Gi or Ti.
    """
    found = re.fullmatch(r"(\d+)([MGT]i?)", text)
    if not found:
        raise UsageError(f"'{text}' is no size: write a whole number of M, G, T, Mi, Gi or Ti")
    return int(found[1]) * _UNITS[found[2]]


class PodResources(Section):
    """What the pods of a stage ask for: a pod is what a node is elsewhere."""

    nodes: PositiveInt = Field(1, description="Pods.")
    gpus: NonNegativeInt = Field(0, description="GPUs of a pod (nvidia.com/gpu).")
    cpus: PositiveInt = Field(8, description="Cores of a rank in training, of a pod elsewhere.")
    memory: Quantity = Field("32Gi", description="Memory of a pod, shared memory included.")
    node_selector: dict[_LabelKey, _LabelValue] = Field({}, description="Labels that its nodes must have.")


class TrainPods(PodResources):
    """What training asks for: ranks are its GPUs, or `train.processes` a pod without any."""

    gpus: NonNegativeInt = Field(1, description="GPUs of a pod, one rank each; 0: train.processes ranks on the CPU.")


class EvalPods(PodResources):
    """What evaluation asks for, and when it runs."""

    nodes: PositiveInt = Field(1, description="Pods that share the checkpoints.")
    gpus: NonNegativeInt = Field(1, description="GPUs of a pod.")
    when: Literal["watch", "after"] = Field(
        "watch", description="'watch' evaluates beside the training, as checkpoints appear; 'after' when it is done."
    )


class K8sConfig(Section):
    """What `marlin submit k8s` writes into manifests."""

    context: Line = Field("", description="Context of the kubeconfig; empty: the current one.")
    namespace: _Namespace = Field("marlin", description="Namespace of all objects.")
    image: Line = Field("", description="Image of the pods (docs/images.md); empty: that of the manifests.")
    pull_secret: _DnsName = Field("", description="Secret that pulls the image from a private registry.")
    secret: _DnsName = Field("marlin-s3", description="Secret with AWS_ACCESS_KEY_ID and the like; no file holds them.")
    volume: _DnsName = Field(
        "", description="PersistentVolumeClaim mounted at /data, such as marlin-data; empty: none."
    )
    queue: _QueueName = Field("", description="Kueue's LocalQueue that the stages wait in; empty: no Kueue.")
    priority_class: _DnsName = Field("", description="Priority class of the pods; empty: the cluster's default.")
    mlflow: Line = Field(
        "http://marlin-mlflow:5000", description="MLflow as pods reach it, where tracking.uri is empty."
    )
    preprocess: PodResources = Field(default_factory=PodResources)
    train: TrainPods = Field(default_factory=TrainPods)
    eval: EvalPods = Field(default_factory=EvalPods)
    shared_memory: Quantity = Field("8Gi", description="Size of /dev/shm; it counts against the memory.")
    cache: Quantity = Field("50Gi", description="Disk of the node for shards from S3 (data.cache_gb) and checkpoints.")
    grace: PositiveInt = Field(
        300, description="Seconds that a training pod has to save when it is stopped; more than train.grace + 30."
    )
    restarts: NonNegativeInt = Field(50, description="How often training that stopped early is started again at most.")
    protect: bool = Field(
        False, description="No node is drained while training runs on it; false: of one pod, and all save and restart."
    )
    wait_minutes: PositiveInt = Field(10080, description="How long a stage waits for the one before at most.")
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    manifests: Line = Field(
        "",
        description="Manifests of your own: a folder, or what `kubectl kustomize` prints; empty: the installed ones.",
    )
