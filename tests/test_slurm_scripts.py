"""The batch scripts in slurm/, run by bash with stand-ins for SLURM's commands; tests/integration has the real ones."""

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from slurm_programs import TEXT, Programs

from pipeline.cli import build_parser
from pipeline.config.load import load_config, validate
from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.submit.quoting import sbatch
from pipeline.submit.render import Place, render, templates_folder
from pipeline.submit.stages import STAGES, Stage

DOCS = Path(__file__).parents[1] / "docs" / "slurm.md"
GOLDEN = Path(__file__).parent / "golden" / "slurm"
SHARED = Place(Path("/shared/slurm/demo/20261127T160000Z-abcd"), "/opt/marlin/.venv/bin")
ONE_NODE = ["launch.slurm.train.gpus=0", "launch.slurm.eval.gpus=0"]
SITE = [
    *("launch.slurm.partition=gpu", "launch.slurm.account=lab", "launch.slurm.qos=long", "launch.slurm.gpu_type=a6000"),
    *(
        "launch.slurm.constraint='nvlink&ib'",
        "launch.slurm.preprocess.partition=cpu",
        "launch.slurm.preprocess.nodes=4",
    ),
    *("launch.slurm.train.nodes=2", "launch.slurm.train.gpus=4", "launch.slurm.train.memory=128G"),
    *("launch.slurm.eval.jobs=2", "launch.slurm.setup=['module load cuda', 'export WANDB_MODE=offline']"),
    *("launch.slurm.container.kind=pyxis", "launch.slurm.container.image=/images/marlin.sqsh"),
    *("launch.slurm.container.mounts=['/data/faces:/data', '/my scratch']", "launch.slurm.network.interface=ib0"),
    *("launch.slurm.network.p2p=false", "launch.slurm.network.infiniband=false"),
    *("launch.slurm.cache=/shared/marlin cache", "launch.slurm.scratch=/local/me", "launch.slurm.requeues=5"),
]
CONFIGURATIONS = {"plain": ONE_NODE, "site": SITE}


def scripts(*options: str, place: Place = SHARED) -> dict[Stage, str]:
    return render(load_config("demo", list(options)), place)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_scripts_are_the_golden_ones(name: str) -> None:
    for stage, text in scripts(*CONFIGURATIONS[name]).items():
        path = GOLDEN / name / f"{stage}.sbatch"
        assert text == path.read_text(), f"{path}: tests/golden/slurm/write.py writes it anew; read the difference"


@pytest.mark.parametrize("kind", ["none", "pyxis", "apptainer"])
@pytest.mark.parametrize("options", [ONE_NODE, SITE], ids=["plain", "site"])
def test_shellcheck_finds_nothing(options: list[str], kind: str, tmp_path: Path) -> None:
    linter = Path(sys.executable).parent / "shellcheck"
    image = [f"launch.slurm.container.kind={kind}", "launch.slurm.container.image=/images/marlin.sif"]
    for stage, text in scripts(*options, *image).items():
        path = tmp_path / f"{stage}.sbatch"
        path.write_text(text)
        done = subprocess.run([linter, "--shell=bash", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("stage", "verb"), [("preprocess", "preprocess"), ("train", "train"), ("eval", "eval")])
def test_a_finished_stage_ends_its_job(programs: Programs, stage: Stage, verb: str) -> None:
    done = programs.run(scripts(*ONE_NODE)[stage], SLURM_JOB_ID="7")
    assert done.returncode == 0, done.stderr
    assert programs.words("marlin")[:3] == [verb, "-c", str(SHARED.config)]
    assert programs.words("scontrol") == []
    assert not list(programs.folder.glob("marlin-7*"))


@pytest.mark.parametrize("status", [75, 140, 143])
def test_an_early_stop_requeues_the_job(programs: Programs, status: int) -> None:
    done = programs.run(scripts(*ONE_NODE)["train"], MARLIN_EXIT=str(status), SLURM_RESTART_COUNT="2")
    assert done.returncode == status
    assert programs.words("scontrol") == ["requeue", "7"]


def test_requeues_are_bounded(programs: Programs) -> None:
    script = scripts(*ONE_NODE, "launch.slurm.requeues=3")["train"]
    done = programs.run(script, MARLIN_EXIT="75", SLURM_RESTART_COUNT="3")
    assert done.returncode == 75
    assert programs.words("scontrol") == []
    assert "launch.slurm.requeues" in done.stderr


@pytest.mark.parametrize("status", [1, 2, 137])
def test_a_failure_stops_with_its_status(programs: Programs, status: int) -> None:
    assert programs.run(scripts(*ONE_NODE)["preprocess"], MARLIN_EXIT=str(status)).returncode == status
    assert programs.words("scontrol") == []


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING"])
def test_a_job_that_slurm_ended_is_not_requeued(programs: Programs, state: str) -> None:
    programs.job("7", state)
    assert programs.run(scripts(*ONE_NODE)["train"], MARLIN_EXIT="75").returncode == 75
    assert programs.words("scontrol") == []


def test_ray_is_started_on_every_node_and_leaves_the_signal_to_marlin(programs: Programs) -> None:
    script = scripts("launch.slurm.preprocess.nodes=3", "launch.slurm.preprocess.cpus=4")["preprocess"]
    done = programs.run(script, RAY_NODES="2")
    assert done.returncode == 0, done.stderr
    called = programs.words("ray")
    assert called.count("start") == called.count("ignores USR2: True") == 2
    assert {"--head", "--port=20007", "--address=127.0.0.1:20007", "--num-cpus=4"} <= set(called)
    assert {"preprocess.ray_address=127.0.0.1:20007", "preprocess.workers=12"} <= set(programs.words("marlin"))
    assert "OMP_NUM_THREADS" not in programs.variables()  # Ray gives each worker one
    assert {"--nodes=2", "--relative=1"} <= set(programs.words("srun"))


def test_a_ray_that_does_not_start_ends_the_job(programs: Programs) -> None:
    (programs.bin / "ray").write_text("#!/bin/bash\necho no memory >&2\nexit 1\n")
    done = programs.run(scripts(*ONE_NODE)["preprocess"])
    assert done.returncode == 1
    assert "no memory" in done.stderr
    assert "Ray's head did not start at 127.0.0.1:20007" in done.stderr


def test_ranks_hear_how_to_talk(programs: Programs) -> None:
    (programs.bin / "ip").write_text("#!/bin/bash\necho '2: ib0 inet 10.1.2.3/24 brd 10.1.2.255 scope global ib0'\n")
    (programs.bin / "ip").chmod(0o755)
    network = ["interface=ib0", "p2p=false", "infiniband=false"]
    options = [f"launch.slurm.network.{option}" for option in network]
    place = Place(SHARED.folder, "")
    assert programs.run(scripts(*options, "launch.slurm.train.cpus=6", place=place)["train"]).returncode == 0
    wanted = {"MASTER_ADDR": "10.1.2.3", "NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0"}
    wanted |= {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1", "OMP_NUM_THREADS": "6"}
    assert wanted.items() <= programs.variables().items()


def test_the_watch_hears_which_job_trains(programs: Programs) -> None:
    script = scripts(*ONE_NODE)["eval"]
    programs.run(script, "123")
    assert programs.words("marlin")[-2:] == ["--watch", "--slurm-job=123"]
    programs.run(script)
    assert programs.words("marlin")[-1] == "--watch"


@pytest.mark.parametrize("stage", STAGES)
def test_apptainer_runs_the_command_in_the_image(programs: Programs, stage: Stage) -> None:
    container = {"kind": "apptainer", "image": "/my images/a$b.sif", "mounts": ["/data", "/a b:/c"]}
    cfg = _config({"container": container, "train": {"gpus": 2}, "eval": {"gpus": 0}})
    done = programs.run(render(cfg, Place(SHARED.folder, ""))[stage], "9")
    assert done.returncode == 0, done.stderr
    called = programs.words("apptainer")
    binds = [called[place + 1] for place, word in enumerate(called) if word == "--bind"]
    assert {str(SHARED.folder), "/data", "/a b:/c", f"{programs.folder}/marlin-7"} <= set(binds)
    assert ("--nv" in called) == (stage == "train")
    assert called[called.index("/my images/a$b.sif") + 1] in ("marlin", "bash")
    assert not any(word.startswith("--slurm-job") for word in programs.words("marlin"))


def test_without_marlin_the_job_says_what_to_do(programs: Programs) -> None:
    (programs.bin / "marlin").unlink()
    done = programs.run(scripts(*ONE_NODE)["train"], PATH=f"{programs.bin}:/usr/bin:/bin")
    assert done.returncode == 2
    assert "launch.slurm.bin" in done.stderr


@settings(max_examples=25)
@given(folder=TEXT, scratch=TEXT, cache=TEXT, image=TEXT)
def test_no_value_breaks_out_of_a_script(folder: str, scratch: str, cache: str, image: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        programs = Programs(Path(temporary) / "programs")
        base = Path(temporary) / scratch
        slurm = {"cache": cache, "scratch": str(base), "container": {"kind": "pyxis", "image": image}}
        place = Place(Path("/shared") / folder, str(programs.bin))
        if not all(text.isprintable() for text in (scratch, cache, image, folder)) or "\\" in folder:
            with pytest.raises(UsageError, match=r"^[^\n]*$"):
                render(_config(slurm), place)
            return
        script = render(_config(slurm), place)["train"]
        done = programs.run(script)
        assert (done.returncode, done.stderr) == (0, "")
        assert programs.words("marlin")[:3] == ["train", "-c", f"/shared/{folder}/config.yaml"]
        (given_scratch,) = [word for word in programs.words("marlin") if word.startswith("launch.scratch=")]
        assert yaml.safe_load(given_scratch.partition("=")[2]) == f"{base}/marlin-7"
        assert programs.variables()["MARLIN_CACHE"] == cache
        assert f"--container-image={image}" in programs.words("srun")
        assert programs.words("scontrol") == []


@given(st.text(max_size=60))
def test_slurm_reads_back_what_its_lines_hold(text: str) -> None:
    try:
        written = sbatch(text)
    except UsageError:
        assert not text.isprintable()
        return
    assert _slurm_reads(f"--job-name={written}") == f"--job-name={text}"


def test_a_value_without_its_filter_is_refused(tmp_path: Path) -> None:
    for path in templates_folder(load_config("demo")).glob("*.j2"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "train.sbatch.j2").write_text("#SBATCH --account={{ slurm.account }}\n")
    with pytest.raises(UsageError, match="inserts 'me' without a filter"):
        scripts("launch.slurm.account=me", f"launch.slurm.templates={tmp_path}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["launch.slurm.slack=150"], "train.grace=120"),
        (["launch.slurm.train.minutes=5"], "launch.slurm.train.minutes=5"),
        (["launch.slurm.container.kind=pyxis"], "launch.slurm.container.image"),
        (["launch.slurm.templates=/nowhere"], "/nowhere"),
        (["preprocess.network_actors=1", "preprocess.network_gpus=0.5"], "launch.slurm.preprocess.gpus"),
    ],
)
def test_what_can_not_work_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        scripts(*options)


def test_control_characters_are_refused_where_they_are_written() -> None:
    with pytest.raises(UsageError, match=r"launch.slurm.partition: holds a newline"):
        _config({"partition": "gpu\n#SBATCH --account=other"})


def test_the_documented_configuration_makes_scripts(tmp_path: Path) -> None:
    (written,) = re.findall(r"```yaml\n(# mine.yaml.*?)```", DOCS.read_text("utf-8"), flags=re.S)
    path = tmp_path / "mine.yaml"
    path.write_text(written)
    made = render(load_config(str(path)), SHARED)
    assert "#SBATCH --gres=gpu:a6000:4\n" in made["train"]
    assert "#SBATCH --partition=cpu\n" in made["preprocess"]


def test_the_documented_commands_are_commands() -> None:
    lines = re.findall(r"^\.venv/bin/marlin ([^#\n]*)", DOCS.read_text("utf-8"), flags=re.M)
    assert any(line.startswith("submit slurm") for line in lines)
    for line in lines:
        build_parser().parse_args(shlex.split(line))


def test_every_stage_has_a_template() -> None:
    assert set(scripts()) == set(STAGES)


def _config(slurm: dict[str, object]) -> Config:
    tree = load_config("demo").model_dump(mode="json")
    tree["launch"]["slurm"] |= slurm
    return validate(tree, "test")


def _slurm_reads(option: str) -> str:
    """One option of an `#SBATCH` line as sbatch takes it apart: quotes go, a backslash keeps the next character."""
    read, quote, escaped = "", "", False
    for char in option:
        if escaped:
            read, escaped = read + char, False
        elif char == "\\":
            escaped = True
        elif quote:
            read, quote = (read, "") if char == quote else (read + char, quote)
        elif char in "\"'":
            quote = char
        elif char.isspace() or char == "#":
            break
        else:
            read += char
    return read
