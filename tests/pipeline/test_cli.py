"""The command line: fast, complete, one line for every error, exit statuses as documented."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from training import environment, marlin

from pipeline import verbs
from pipeline.cli import build_parser, main
from pipeline.errors import MarlinError, StoppedEarly, UsageError

pytestmark = pytest.mark.usefixtures("restored")

HEAVY = (
    "torch",
    "ray",
    "mlflow",
    "deepspeed",
    "cv2",
    "boto3",
    "onnxruntime",
    "insightface",
    "nvidia",
    "sklearn",
    "numpy",
)


def test_help_imports_nothing_heavy_and_lists_all_verbs() -> None:
    script = (
        "import sys\nfrom pipeline.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    stages = ("demo", "run", "preprocess", "dataset", "train", "eval", "report")
    for verb in (*stages, "features", "explain", "export", "models", "doctor", "submit"):
        assert f"\n    {verb} " in done.stdout, verb
    assert "75 stopped early" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["train"],
        ["train", "--config"],
        ["dataset"],
        ["models"],
        ["dataset", "order", "-c", "demo", "--steps", "x"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: marlin" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "-c", "missing.yaml"], "marlin: no preset and no file is named 'missing.yaml'"),
        (["train", "-c", "demo", "train.stepz=1"], "marlin: demo: unknown key 'train.stepz'"),
        (["train", "-c", "demo", "nonsense"], "marlin: 'nonsense' is no override"),
        (["train", "-c", "demo", "storage.root=ftp://x"], "marlin: storage URL 'ftp://x' has an unknown scheme"),
    ],
)
def test_a_wrong_configuration_is_2_and_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (MarlinError("disk full: free some"), 1, "marlin: disk full: free some\n"),
        (UsageError("no such key"), 2, "marlin: no such key\n"),
        (StoppedEarly("saved"), 75, "marlin: saved\n"),
        (KeyboardInterrupt(), 75, "marlin: interrupted: the same command continues\n"),
        (ValueError("two\nlines"), 1, "marlin: unexpected ValueError: two lines (--verbose shows where)\n"),
    ],
)
def test_every_error_is_one_line_and_its_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def verb(args: object) -> None:
        raise error

    monkeypatch.setattr(verbs, "train", verb)
    monkeypatch.delenv("MARLIN_VERBOSE", raising=False)
    assert main(["train", "-c", "demo"]) == status
    assert capsys.readouterr().err == line


def test_overrides_are_collected() -> None:
    args = build_parser().parse_args(["train", "-c", "demo", "train.steps=1", "model.size=tiny"])
    assert (args.config, args.overrides) == ("demo", ["train.steps=1", "model.size=tiny"])


def test_json_log_lines_are_json() -> None:
    script = (
        "import logging\nfrom pipeline.log import setup_logging\nsetup_logging(json_lines=True)\n"
        "log = logging.getLogger('train.loop')\n"
        "log.info('step %d', 3, extra={'fields': {'step': 3, 'train/mse': 0.5}})\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('broken')\n"
        "logging.getLogger('mlflow').info('noise')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert first | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "train.loop",
        "message": "step 3",
        "step": 3,
        "train/mse": 0.5,
    }
    assert "ZeroDivisionError" in second["exception"]


def test_the_real_command_reports_a_missing_dataset(tmp_path: Path) -> None:
    done = marlin("dataset", "stats", "-c", "demo", f"storage.root='{tmp_path}'")
    assert done.returncode == 1
    assert done.stderr.startswith("marlin: ")
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr


def test_version() -> None:
    assert marlin("--version").stdout.startswith("marlin ")


def test_a_stop_inside_native_code_is_still_a_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: object) -> None:
        raise SystemError("returned a result with an exception set") from StoppedEarly("stopped by a signal")

    monkeypatch.setattr("pipeline.verbs.samples_pull", interrupted)
    assert main(["samples", "pull"]) == 75
    assert capsys.readouterr().err == "marlin: stopped by a signal\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "-c", "demo", "-o", "s3://bucket/report.html"],
        ["features", "-m", "nowhere", "-o", "s3://bucket/f.npz", "a.mp4"],
        ["explain", "a.mp4", "-m", "nowhere", "-o", "file:///tmp/a.png"],
        ["export", "nowhere", "s3://bucket/out"],
    ],
)
def test_what_is_written_to_a_local_path_is_not_written_to_a_url(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert "is a URL, and this is written to a local path" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
