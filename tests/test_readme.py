"""The README's commands, run as they stand, with a corpus, a bucket and a size that a test can afford."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from training import environment

from pipeline.cli import build_parser
from pipeline.config.docs import reference
from pipeline.config.load import load_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
MARLIN = ".venv/bin/marlin"
# What makes the paper's setting small enough: sizes and lengths, nothing that changes which code runs.
SMALL = [
    *("preprocess.holdout=0.25", "preprocess.clip_frames=32", "preprocess.min_frames=16"),
    *("data.stride=1", "model.size=tiny"),
    *("train.steps=2", "train.global_batch=2", "train.micro_batch=2", "train.checkpoint_every=2", "train.val_every=2"),
]


def snippets(language: str) -> list[str]:
    """Fenced code of one language, in the README's order."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands(program: str) -> Iterator[list[str]]:
    """Arguments of each call of a program in the README's shell snippets."""
    for snippet in snippets("sh"):
        for line in snippet.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == program:
                yield words[1:]


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = [words[0] for words in commands("make")]
    assert targets == ["demo", "test"]
    for target in targets:
        plan = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert plan.returncode == 0, plan.stderr


def test_links_lead_to_files() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_applied_manifests_exist() -> None:
    for words in commands("kubectl"):
        path = next(word for word in words if "/" in word)
        assert (ROOT / path).exists(), path


def test_the_configuration_reference_is_that_of_the_schema() -> None:
    page = (ROOT / "docs/configuration.md").read_text("utf-8")
    assert page == reference(), "run: python -m pipeline.config.docs > docs/configuration.md"


def test_the_one_command_run_is_a_valid_configuration() -> None:
    (words,) = (words for words in commands(MARLIN) if words[0] == "run")
    args = build_parser().parse_args(words)
    assert load_config(args.config, args.overrides).corpus.path == "/data/videos"


@pytest.mark.slow
def test_the_commands_for_own_videos_run_on_s3(
    samples: dict[str, Path], models: dict[str, Path], s3_url: str, tmp_path: Path
) -> None:
    corpus = tmp_path / "videos"
    corpus.mkdir()
    for name in ("single_face", "carphone_pristine"):
        (corpus / samples[name].name).symlink_to(samples[name])
    (config,) = (text for text in snippets("yaml") if text.startswith("# mine.yaml"))
    parsed = yaml.safe_load(config)
    assert parsed["storage"]["root"].startswith("s3://")
    parsed["storage"]["root"] = s3_url
    parsed["corpus"]["path"] = str(corpus)
    parsed["tracking"]["uri"] = f"sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(parsed))
    (tmp_path / "more").mkdir()
    (tmp_path / "more/again.mp4").symlink_to(samples["single_face"])
    own = {"corpus.path=/data/more": f"corpus.path={tmp_path}/more", "anna.mp4": samples["single_face"].name}
    ran = []
    for written in commands(MARLIN):
        if "mine.yaml" in written:
            words = [own.get(word, word) for word in written]
            ran.append(" ".join(words[:2]))
            if ran[-1] == "submit k8s":  # pods don't share a disk with this machine
                words.append("tracking.uri=''")
            outcome = subprocess.run(
                [sys.executable, "-m", "pipeline.cli", *words, *SMALL],
                cwd=tmp_path,
                env=environment(),
                capture_output=True,
                text=True,
            )
            assert outcome.returncode == 0, f"{words}: {outcome.stderr[-2000:]}"
    stages = ["preprocess", "dataset", "dataset", "train", "eval", "report"]
    stages += ["preprocess", "dataset", "dataset", "dataset", "submit", "submit"]
    assert [line.split()[0] for line in ran] == stages
    assert (tmp_path / "samples.png").stat().st_size > 100_000
    assert "step-00000002.r0" in (tmp_path / "report.html").read_text("utf-8")
