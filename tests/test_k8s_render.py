"""Manifests that `marlin submit k8s` renders: golden ones, schemas, the policy, names and values that are hostile."""

import json
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from k8s_schemas import Manifest, check_policy, containers, pod_templates, validate
from kustomize import build
from slurm_programs import TEXT

from pipeline.cli import build_parser
from pipeline.config.load import load_config, preset_names
from pipeline.config.load import validate as validate_config
from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.submit.k8s_chain import dry_run_k8s, log_command
from pipeline.submit.k8s_render import Rendered, instance_name, render_manifests
from pipeline.submit.k8s_yaml import dump_manifests
from pipeline.submit.stages import STAGES, Stage
from pipeline.text import printable

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "kubernetes.md"
GOLDEN = Path(__file__).parent / "golden" / "k8s"
COMMON = ["storage.root=s3://my-bucket/marlin", "launch.k8s.image=registry.example.org/marlin:gpu"]
PLAIN = ["launch.k8s.train.gpus=0", "launch.k8s.eval.gpus=0"]
SITE = [
    *("launch.k8s.namespace=faces", "launch.k8s.volume=videos", "launch.k8s.secret=bucket", "launch.k8s.queue=lab"),
    *("launch.k8s.pull_secret=registry", "launch.k8s.priority_class=low", "launch.k8s.protect=true"),
    *("launch.k8s.preprocess.nodes=4", "launch.k8s.preprocess.cpus=32", "preprocess.object_store_mb=1024"),
    *("launch.k8s.train.nodes=2", "launch.k8s.train.gpus=4", "launch.k8s.train.memory=128Gi"),
    "launch.k8s.train.node_selector={nvidia.com/gpu.product: NVIDIA-RTX-A6000}",
    *(
        "launch.k8s.eval.when=after",
        "launch.k8s.eval.nodes=2",
        "launch.k8s.shared_memory=16Gi",
        "launch.k8s.cache=500Gi",
    ),
    *("launch.k8s.network.interface=eth0", "launch.k8s.network.p2p=false", "launch.k8s.network.infiniband=false"),
    *("launch.k8s.restarts=5", "launch.k8s.grace=600", "launch.k8s.wait_minutes=60"),
    "tracking.uri=https://mlflow.example.org",
]
CONFIGURATIONS = {"plain": PLAIN, "site": SITE}


def rendered(*options: str, preset: str = "demo", stages: tuple[Stage, ...] = STAGES) -> Rendered:
    return render_manifests(load_config(preset, [*COMMON, *options]), "demo-abc123", stages)


def manifests(*options: str) -> str:
    made = rendered(*options)
    return dump_manifests([*made.support, *made.stages.values()])


def everything(made: Rendered) -> list[Manifest]:
    return [*made.support, *made.stages.values()]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_manifests_are_the_golden_ones(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    assert manifests(*CONFIGURATIONS[name]) == path.read_text(), (
        f"{path}: tests/golden/k8s/write.py writes it anew; read the difference"
    )


@pytest.mark.parametrize("options", [PLAIN, SITE], ids=["plain", "site"])
@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_valid_and_locked_down(preset: str, options: list[str]) -> None:
    for manifest in everything(rendered(*options, preset=preset)):
        validate(manifest)
        check_policy(manifest)


@pytest.mark.parametrize("stages", [("preprocess",), ("train",), ("eval",), ("train", "eval"), ("preprocess", "eval")])
@pytest.mark.parametrize("options", [PLAIN, SITE], ids=["plain", "site"])
def test_stages_alone_are_valid(stages: tuple[Stage, ...], options: list[str]) -> None:
    made = rendered(*options, stages=stages)
    assert tuple(made.stages) == stages
    for manifest in everything(made):
        validate(manifest)


@pytest.mark.parametrize(
    ("when", "stages", "after"),
    [
        ("watch", STAGES, {"train": "dataset", "eval": "dataset"}),
        ("after", STAGES, {"train": "dataset", "eval": "training"}),
        ("watch", ("train", "eval"), {}),
        ("after", ("train", "eval"), {"eval": "training"}),
        ("after", ("preprocess", "eval"), {"eval": "dataset"}),
        ("after", ("eval",), {}),
    ],
)
def test_stages_wait_for_what_they_need(when: str, stages: tuple[Stage, ...], after: dict[Stage, str]) -> None:
    made = rendered(f"launch.k8s.eval.when={when}", stages=stages)
    found = {}
    for stage, manifest in made.stages.items():
        if manifest["kind"] != "JobSet":
            continue
        parts = {part["name"]: part for part in manifest["spec"]["replicatedJobs"]}
        assert ("wait" in parts) == ("dependsOn" in parts[stage])
        if "wait" in parts:
            (container,) = parts["wait"]["template"]["spec"]["template"]["spec"]["containers"]
            asked = build_parser().parse_args(container["args"])
            found[stage] = asked.awaited
            assert asked.mark == ("demo-abc123" if asked.awaited == "dataset" else None)
    assert found == after
    if "eval" in made.stages:
        assert made.stages["eval"]["kind"] == ("JobSet" if "eval" in after else "Job")


def test_pods_run_commands_of_ours() -> None:
    made = rendered(*SITE)
    commands = [shlex.split(made.stages["preprocess"]["spec"]["entrypoint"])]
    for manifest in made.stages.values():
        for template in pod_templates(manifest):
            for container in containers(template["spec"]):
                if "args" in container:
                    commands.append(["marlin", *container["args"]])
    assert len(commands) == 7
    for program, *arguments in commands:
        assert program == "marlin"
        build_parser().parse_args(arguments)


def test_what_is_configured_is_asked_for() -> None:
    made = rendered(*SITE)
    (train,) = [
        part["template"]["spec"] for part in made.stages["train"]["spec"]["replicatedJobs"] if part["name"] == "train"
    ]
    pod = train["template"]["spec"]
    (container,) = pod["containers"]
    assert (train["completions"], train["parallelism"]) == (2, 2)
    assert container["resources"]["limits"] == {
        "memory": "128Gi",
        "nvidia.com/gpu": "4",
    }
    assert container["resources"]["requests"] == {
        **{"cpu": "32", "memory": "128Gi"},
        "ephemeral-storage": f"{(500 + 10) * 1024}Mi",  # all that its volumes on disk may take
    }
    assert container["args"][3:] == ["train.launcher=torchrun", "train.processes=4", "launch.threads=8"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables["PET_NNODES"] == "2"
    assert variables["NCCL_P2P_DISABLE"] == variables["NCCL_IB_DISABLE"] == "1"
    assert pod["terminationGracePeriodSeconds"] == 600
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert made.support[1]["spec"]["minAvailable"] == 2
    sizes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if "emptyDir" in volume}
    assert sizes == {"cache": "500Gi", "tmp": "10Gi", "shared-memory": "16Gi"}
    cluster = made.stages["preprocess"]["spec"]["rayClusterSpec"]
    assert cluster["workerGroupSpecs"][0]["replicas"] == 3
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["rayStartParams"]["object-store-memory"] == str(1 << 30)
    entrypoint = shlex.split(made.stages["preprocess"]["spec"]["entrypoint"])
    assert entrypoint[-3:] == ["preprocess.workers=128", "--mark", "demo-abc123"]


def test_pods_without_a_volume_or_networks_do_without() -> None:
    made = rendered("preprocess.detector=none", "preprocess.parser=given", "launch.k8s.secret=")
    for manifest in made.stages.values():
        for template in pod_templates(manifest):
            assert "data" not in {volume["name"] for volume in template["spec"]["volumes"]}
            assert "initContainers" not in template["spec"]
            for container in containers(template["spec"]):
                assert not container.get("envFrom")
        validate(manifest)


def test_pods_run_what_was_configured() -> None:
    cfg = load_config("demo", [*COMMON, "train.seed=7", "launch.scratch=/nvme", "data.cache_dir=/nvme/shards"])
    ran = configured(cfg)
    assert ran.tracking.uri == "http://marlin-mlflow:5000"
    assert (ran.launch.scratch, ran.data.cache_dir) == ("", "")  # pods have no such folders
    data = cfg.data.model_copy(update={"cache_dir": "", "cache_gb": ran.data.cache_gb})
    launch = cfg.launch.model_copy(update={"scratch": ""})
    assert ran == cfg.model_copy(update={"tracking": ran.tracking, "launch": launch, "data": data})
    cfg = load_config("demo", [*COMMON, "tracking.uri=https://elsewhere", "data.cache_gb=5"])
    assert configured(cfg) == cfg


@pytest.mark.parametrize(("cache", "most"), [("50Gi", 33.6), ("10Gi", 5.3), ("1Ti", 1079.5), ("500M", 0.2)])
def test_shards_leave_room_for_checkpoints_in_the_volume(cache: str, most: float) -> None:
    size = f"launch.k8s.cache={cache}"
    assert configured(load_config("demo", [*COMMON, size])).data.cache_gb == most
    assert configured(load_config("demo", [*COMMON, size, "data.cache_gb=0"])).data.cache_gb == 0
    with pytest.raises(UsageError, match=rf"data\.cache_gb=.*at most {most:g}"):
        rendered(size, f"data.cache_gb={most + 0.1}")


def configured(cfg: Config) -> Config:
    """What the pods are given."""
    (text,) = render_manifests(cfg, "demo-abc123").support[0]["data"].values()
    return validate_config(yaml.safe_load(text), "test")


def test_what_a_site_put_beside_ours_stays_as_it_is(tmp_path: Path) -> None:
    for path in (ROOT / "k8s/base").glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    sidecar = {"name": "proxy", "image": "proxy:1", "envFrom": [{"secretRef": {"name": "theirs"}}]}
    first = {"name": "first", "image": "init:1"}
    pod = "/spec/replicatedJobs/1/template/spec/template/spec"
    patch = [
        {"op": "add", "path": f"{pod}/containers/0", "value": sidecar},
        {"op": "add", "path": f"{pod}/initContainers", "value": [first]},
        {"op": "add", "path": f"{pod}/containers/1/envFrom/-", "value": {"configMapRef": {"name": "proxy"}}},
    ]
    kustomization = yaml.safe_load((tmp_path / "kustomization.yaml").read_text())
    kustomization["patches"] = [{"target": {"kind": "JobSet", "name": "marlin-train"}, "patch": yaml.safe_dump(patch)}]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    own = tmp_path / "built.yaml"
    own.write_text(yaml.safe_dump_all(build(tmp_path)))
    made = rendered(*SITE, "launch.k8s.volume=", f"launch.k8s.manifests={own}")
    (train,) = [part for part in made.stages["train"]["spec"]["replicatedJobs"] if part["name"] == "train"]
    spec = train["template"]["spec"]["template"]["spec"]
    assert spec["initContainers"] == [first]
    assert spec["containers"][0] == sidecar
    assert spec["containers"][1]["envFrom"] == [{"secretRef": {"name": "bucket"}}, {"configMapRef": {"name": "proxy"}}]
    assert spec["containers"][1]["image"] == "registry.example.org/marlin:gpu"
    assert spec["containers"][1]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    for manifest in everything(made):
        validate(manifest)


def test_manifests_of_ones_own_are_built_on(tmp_path: Path) -> None:
    for path in (ROOT / "k8s/base").glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text().replace("sizeLimit: 10Gi", "sizeLimit: 77Gi"))
    own = f"launch.k8s.manifests={tmp_path}"
    made = rendered(own)
    tmp = [v for t in pod_templates(made.stages["train"]) for v in t["spec"]["volumes"] if v["name"] == "tmp"]
    assert "77Gi" in {volume["emptyDir"]["sizeLimit"] for volume in tmp}
    (tmp_path / "train.yaml").write_text(
        (tmp_path / "train.yaml").read_text().replace("- name: train\n", "- name: t\n")
    )
    with pytest.raises(UsageError, match=re.escape(str(tmp_path))):
        rendered(own)
    (tmp_path / "train.yaml").write_text("a: [")
    with pytest.raises(UsageError, match=r"train\.yaml is no YAML"):
        rendered(own)
    (tmp_path / "train.yaml").unlink()
    with pytest.raises(UsageError, match="holds no JobSet marlin-train"):
        rendered(own)


LABELS = st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", fullmatch=True)


@settings(max_examples=25)
@given(
    texts=st.tuples(*5 * [TEXT]),
    labels=st.dictionaries(LABELS.filter(bool), LABELS, max_size=2),
    interface=st.from_regex(r"[A-Za-z0-9_.-]*", fullmatch=True),
)
def test_no_value_breaks_out_of_a_manifest(texts: tuple[str, ...], labels: dict[str, str], interface: str) -> None:
    path, init, image, context, uri = texts
    tree = load_config("demo", COMMON).model_dump(mode="json")
    tree["corpus"]["path"], tree["model"]["init"], tree["tracking"]["uri"] = path, init, uri
    k8s = tree["launch"]["k8s"]
    k8s["image"] = k8s["mlflow"] = printable(image) or "x"
    k8s["train"]["node_selector"], k8s["network"]["interface"] = labels, interface
    cfg = validate_config(tree, "test")
    made = render_manifests(cfg, "demo-abc123")
    read = list(yaml.safe_load_all(dump_manifests(everything(made))))
    assert read == everything(made)
    ran = validate_config(yaml.safe_load(read[0]["data"]["run.yaml"]), "test")
    assert (ran.corpus.path, ran.model.init, ran.tracking.uri) == (path, init, uri or k8s["mlflow"])
    train = next(each for each in read if each["kind"] == "JobSet" and each["metadata"]["name"].endswith("-train"))
    pod = next(part for part in train["spec"]["replicatedJobs"] if part["name"] == "train")
    spec = pod["template"]["spec"]["template"]["spec"]
    assert spec.pop("nodeSelector", {}) == labels
    variables = spec["containers"][0]["env"]
    told = [each["value"] for each in variables if each["name"] in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")]
    assert told == 2 * [interface] if interface else not told
    spec["containers"][0]["env"] = [each for each in variables if not each["name"].endswith("_SOCKET_IFNAME")]
    assert [_shape(each) for each in read[1:]] == _PLAIN_SHAPES
    words = shlex.split(log_command(context, "marlin", "demo-abc123", "train"))
    assert words[:5] == ["kubectl", "--context", context, "-n", "marlin"]
    assert len(words) == 10


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True), TEXT)
def test_names_are_dns_labels(run: str, submission: str) -> None:
    name = instance_name(load_config("demo", [*COMMON, f"run.name='{run}'"]), submission)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    # KubeRay takes 47 characters; JobSet's pods are called <set>-<part>-<job>-<pod>-<five more>.
    assert len(f"{name}-preprocess") <= 47
    assert len(f"{name}-train-train-0-9999-abcde") <= 63
    assert name != instance_name(load_config("demo", [*COMMON, f"run.name='{run}'"]), f"{submission}x")


def test_kubectl_reads_what_was_written(tmp_path: Path) -> None:
    hostile = "a: 'b'\n- \"c\" # $d \\ {{ e }}\n\n"
    options = [f"corpus.path={json.dumps(hostile)}", "launch.k8s.eval.node_selector={zone: 1e3, disk: 'yes', n: '08'}"]
    (tmp_path / "run.yaml").write_text(manifests(*SITE, *options), "utf-8")
    (tmp_path / "kustomization.yaml").write_text("resources: [run.yaml]\n")
    read = {(each["kind"], each["metadata"]["name"]): each for each in build(tmp_path)}
    assert read == {(each["kind"], each["metadata"]["name"]): each for each in everything(rendered(*SITE, *options))}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["launch.k8s.grace=150"], r"launch\.k8s\.grace=150.*train\.grace=120"),
        (["launch.k8s.image="], r"launch\.k8s\.image is not set"),
        (["launch.k8s.manifests=/nowhere"], "/nowhere"),
        (["preprocess.network_actors=1", "preprocess.network_gpus=0.5"], r"launch\.k8s\.preprocess\.gpus"),
        (["storage.root=/data/marlin"], "s3://"),
        (["preprocess.object_store_mb=9000"], r"launch\.k8s\.shared_memory=8Gi"),
        (["preprocess.models.hair=/home/me/hair.onnx"], r"preprocess\.models\.hair=.*/data"),
        (["tracking.uri=sqlite:////data/mlflow.db"], r"launch\.k8s\.mlflow"),
    ],
)
def test_what_can_not_work_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dry_run_k8s(load_config("demo", [*COMMON, *options]))


@pytest.mark.parametrize(
    "option",
    [
        *(
            "namespace='a b'",
            "namespace=A",
            "secret='x;y'",
            "volume=../x",
            "queue='$(id)'",
            "queue=a.B",
            "priority_class=-x",
        ),
        f"queue={'a' * 64}",
        *("train.memory=1", "train.memory='8Gi; x'", "shared_memory=0Gi", "eval.node_selector={'a b': c}"),
        *("eval.node_selector={a: 'b c'}", 'image="a\\nb"', 'mlflow="x\\n"'),
    ],
)
def test_values_that_kubernetes_would_refuse_are_refused_here(option: str) -> None:
    key = option.partition("=")[0].split(".")[-1]
    with pytest.raises(UsageError, match=key):
        load_config("demo", [*COMMON, f"launch.k8s.{option}"])


def test_the_documented_configuration_makes_manifests(tmp_path: Path) -> None:
    (written,) = re.findall(r"```yaml\n( *# mine.yaml.*?)```", DOCS.read_text("utf-8"), flags=re.S)
    path = tmp_path / "mine.yaml"
    path.write_text(textwrap.dedent(written))
    cfg = load_config(str(path))
    made = render_manifests(cfg, instance_name(cfg, "x"))
    for manifest in everything(made):
        validate(manifest)
    assert "nvidia.com/gpu: '4'" in yaml.safe_dump(made.stages["train"])


def test_the_documented_commands_are_commands() -> None:
    lines = re.findall(r"^\.venv/bin/marlin ([^#\n]*)", DOCS.read_text("utf-8"), flags=re.M)
    assert lines
    for line in lines:
        build_parser().parse_args(shlex.split(line))


_PLAIN_SHAPES: list[Any] = []


@pytest.fixture(scope="module", autouse=True)
def _plain_shapes() -> None:
    made = render_manifests(load_config("demo", COMMON), "demo-abc123")
    _PLAIN_SHAPES[:] = [_shape(each) for each in everything(made)[1:]]


def _shape(value: Any) -> Any:
    """Keys and kinds of values alone."""
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shape(each) for each in value]
    return type(value).__name__
