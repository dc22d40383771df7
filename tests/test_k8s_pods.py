"""The pods of `marlin submit k8s`, run for real as processes with their own volumes and a read-only root.

What no cluster does here: Kubernetes, JobSet and KubeRay themselves. What they tell pods is told as they document it.
"""

import shlex
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from drawn import TRACKS
from k8s_pods import Cluster, containers_work
from mlflow import MlflowClient
from ranks import finish, free_port
from s3_server import S3Server
from synthetic import write_dataset

from pipeline.checkpoints import list_checkpoints
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.layout import dataset_store, run_store
from pipeline.marks import marked
from pipeline.submit.k8s_render import Rendered, render_manifests
from preprocess.drawing.corpus import draw_corpus
from preprocess.drawing.layouts import Request
from train.status import read_status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not containers_work(), reason="mount namespaces need root, or are forbidden here"),
]
ROOT = Path(__file__).parents[1]
STEPS = 60
SMALL = [
    *("preprocess.size=32", "preprocess.patch=8", "model.patch=8", "data.threads=1", "data.streams=2"),
    *("train.global_batch=2", "train.micro_batch=1", f"train.steps={STEPS}", "train.checkpoint_every=1000"),
    *("train.val_clips=0", "train.start_timeout=120", "corpus.name=drawn", "eval.tasks=[reconstruction]"),
    *("eval.window_stride=8", "eval.poll_seconds=1", "launch.k8s.image=marlin:cpu"),
    *("launch.k8s.train.nodes=2", "launch.k8s.train.gpus=0", "launch.k8s.train.cpus=1", "launch.k8s.eval.gpus=0"),
]
Manifest = dict[str, Any]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}  # KubeRay makes one for each cluster


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server of k8s/site, as host and port."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    documents = yaml.safe_load_all((ROOT / "k8s/site/mlflow.yaml").read_text())
    (deployment,) = [each for each in documents if each["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    server = Cluster(folder, ports={"5000": port}).start("mlflow", template, container)
    probe = container["readinessProbe"]["httpGet"]
    headers = {each["name"]: each["value"].replace("5000", port) for each in probe["httpHeaders"]}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{probe['path']}", headers=headers)
    try:
        wait_until(partial(answers, server, request))
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        finish([server])
    assert (folder / "claims/marlin-mlflow/mlflow.db").stat().st_size > 0


@pytest.fixture
def cfg(s3_url: str) -> Config:
    return load_config("demo", [*SMALL, f"storage.root={s3_url}"])


@pytest.fixture
def rendered(cfg: Config) -> Rendered:
    return render_manifests(cfg, "demo-abc123")


@pytest.fixture
def cluster(s3_server: S3Server, mlflow: str, rendered: Rendered, tmp_path: Path) -> Cluster:
    config = rendered.support[0]
    return Cluster(
        tmp_path,
        secrets={"marlin-s3": s3_server.environment},
        config_maps={config["metadata"]["name"]: config["data"]},
        ports={"29500": free_port(), "marlin-mlflow:5000": mlflow},
        names=[f"{coordinator(rendered)}", coordinator(rendered).partition(".")[0]],
    )


def coordinator(rendered: Rendered) -> str:
    """The name that the JobSet controller writes into the annotation, where it gives the set a headless service."""
    train = rendered.stages["train"]
    assert train["spec"]["network"]["enableDNSHostnames"]
    chosen, name = train["spec"]["coordinator"], train["metadata"]["name"]
    return f"{name}-{chosen['replicatedJob']}-{chosen['jobIndex']}-{chosen['podIndex']}.{name}"


def start(cluster: Cluster, rendered: Rendered, stage: str, part: str, index: int = 0) -> Any:
    """A pod of a JobSet's part."""
    manifest = rendered.stages[stage]  # type: ignore[index]
    (job,) = [each["template"]["spec"] for each in manifest["spec"]["replicatedJobs"] if each["name"] == part]
    annotations = {
        "batch.kubernetes.io/job-completion-index": str(index),
        "jobset.sigs.k8s.io/coordinator": coordinator(rendered),
    }
    (container,) = job["template"]["spec"]["containers"]
    return cluster.start(f"{stage}-{part}-{index}", job["template"], container, annotations=annotations)


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_two_training_pods_stop_together_and_continue_to_the_end(
    cfg: Config, rendered: Rendered, cluster: Cluster, mlflow: str
) -> None:
    wait = start(cluster, rendered, "train", "wait")
    time.sleep(2)
    assert wait.poll() is None  # no GPU is held: the training's pods are not there yet
    write_dataset(dataset_store(cfg), TRACKS, size=32, patch=8, label_maps=False)
    with marked(run_store(cfg), "demo-abc123"):
        pass  # the stage that this stands for is over
    assert [status for status, _ in finish([wait])] == [0]

    pods = [start(cluster, rendered, "train", "train", index) for index in range(2)]
    try:
        wait_until(lambda: read_status(run_store(cfg)) is not None)
        for line in pods[0].stderr:
            if "step 3/" in line:
                break
        pods[0].terminate()  # one of the nodes is drained: kubelet tells this pod alone
    finally:
        ended = finish(pods)
    assert [status for status, _ in ended] == [75, 75], ended
    run = run_store(cfg)
    saved = read_status(run)
    assert saved is not None
    assert (saved.state, [each.step for each in list_checkpoints(run)]) == ("resumable", [saved.step])

    pods = [start(cluster, rendered, "train", "train", index) for index in range(2)]  # the set is started anew
    ended = finish(pods)
    assert [status for status, _ in ended] == [0, 0], ended
    assert f"resumed from checkpoint step-{saved.step:08d}.r0" in ended[0][1]
    done = read_status(run)
    assert done is not None
    assert (done.state, done.step) == ("done", STEPS)

    (status, err) = finish([start(cluster, rendered, "eval", "eval")])[0]
    assert status == 0, err
    results = {item.key for item in run.list("evals/")}
    assert f"evals/step-{STEPS:08d}.r0/reconstruction.json" in results

    client = MlflowClient(f"http://{mlflow}")
    (tracked,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert [point.step for point in client.get_metric_history(tracked.info.run_id, "train/mse")] == [
        *range(1, STEPS + 1)
    ]


def test_preprocessing_runs_on_a_ray_cluster_of_two_pods(s3_server: S3Server, s3_url: str, tmp_path: Path) -> None:
    """KubeRay's part is played here: how it starts Ray in the pods, and how it submits the job."""
    drawn = draw_corpus("celebv-hq", tmp_path / "claims/videos/corpus", Request(4, 32, 0), size=64, progress=False)
    settings = [each.replace(str(tmp_path / "claims/videos"), "/data") for each in drawn.settings]
    cfg = load_config(
        "demo",
        [
            *(f"storage.root={s3_url}", "launch.k8s.image=marlin:cpu", "launch.k8s.volume=videos"),
            *("launch.k8s.preprocess.nodes=2", "launch.k8s.preprocess.cpus=1", "preprocess.size=64"),
            *("preprocess.object_store_mb=80", *settings),
        ],
    )
    made = render_manifests(cfg, "demo-abc123", ["preprocess"])
    shared = {"demo-abc123": made.support[0]["data"]}
    cluster = Cluster(tmp_path, secrets={"marlin-s3": s3_server.environment}, config_maps=shared)
    spec = made.stages["preprocess"]["spec"]
    template = spec["submitterPodTemplate"]
    (container,) = template["spec"]["containers"]
    with ray_pods(cluster, spec) as dashboard:
        submit = ["ray", "job", "submit", "--address", dashboard, "--"]
        job = [*submit, *shlex.split(spec["entrypoint"])]
        ((status, said),) = finish([cluster.start("submitter", template, container, command=job, told=TOKEN)])
        assert status == 0, said
        ((status, _),) = finish([cluster.start("stranger", template, container, command=[*submit, "true"])])
        assert status != 0  # it has no token
    dataset = load_dataset(dataset_store(cfg))
    assert len({sample.source for sample in dataset.samples}) == 4


@contextmanager
def ray_pods(cluster: Cluster, spec: Manifest) -> Iterator[str]:
    """Head and workers, started as KubeRay does; gives the dashboard's address."""
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    address, dashboard = f"127.0.0.1:{free_port()}", free_port()
    pods = []
    try:
        for number, group in enumerate(groups):
            (container,) = group["template"]["spec"]["containers"]
            agent = free_port()
            head = ["--head", "--port", address.partition(":")[2], "--dashboard-port", dashboard]
            command = ["ray", "start", "--block", *(["--address", address] if number else head)]
            command += ["--num-cpus", container["resources"]["requests"]["cpu"], "--dashboard-agent-listen-port", agent]
            command += [f"--{key}={value}" for key, value in group["rayStartParams"].items()]
            told = {**TOKEN, "RAY_ADDRESS": address}
            pods.append(cluster.start(f"ray-{number}", group["template"], container, command=command, told=told))
            wait_until(partial(healthy, pods[-1], container, agent))
        assert len(pods) == 2
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        for pod in pods:
            pod.terminate()
        finish(pods)


def healthy(pod: "subprocess.Popen[str]", container: Manifest, port: str) -> bool:
    """What kubelet asks; `port` is the probe's on this machine."""
    probe = container["readinessProbe"]["httpGet"]
    assert probe["port"] == 52365
    return answers(pod, urllib.request.Request(f"http://127.0.0.1:{port}{probe['path']}"))


def answers(pod: "subprocess.Popen[str]", request: urllib.request.Request) -> bool:
    """Whether a pod that lives answers with 200."""
    assert pod.poll() is None, pod.communicate()
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
