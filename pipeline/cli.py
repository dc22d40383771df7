"""The `marlin` command: parse, run the verb, turn errors into one line and an exit status."""

import argparse
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Literal, get_args, get_origin

import pipeline
from pipeline import verbs
from pipeline.config.evaluation import FeaturesConfig
from pipeline.errors import MarlinError, StoppedEarly
from pipeline.log import setup_logging
from pipeline.submit.stages import STAGES

_EPILOG = """\
exit status: 0 done, 1 failed (data, environment, network), 2 wrong usage or configuration, 75 stopped early and
resumable. CONFIG is the name of a preset or the path of a YAML file; section.key=value after it overrides a value.
"""
Verb = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = build_parser().parse_args(arguments)
    setup_logging(json_lines=args.log == "json" or None, verbose=args.verbose or None)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, _stop)
    try:
        args.verb(args)
    except MarlinError as error:
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted: the same command continues", StoppedEarly.exit_status)
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # Raised inside a library's native code, a stop comes out as the cause of an error of the library's.
        if isinstance(error.__cause__, StoppedEarly):
            return _fail(str(error.__cause__), StoppedEarly.exit_status)
        if os.environ.get("MARLIN_VERBOSE"):
            raise
        text = " ".join(str(error).split())[:300]
        return _fail(f"unexpected {type(error).__name__}: {text} (--verbose shows where)", 1)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of the design; overrides are collected in ``args.overrides``."""
    parser = argparse.ArgumentParser(
        prog="marlin", description="MARLIN at cluster scale: raw face videos in, evaluated encoder out.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"marlin {pipeline.__version__}")
    parser.add_argument("--log", choices=["text", "json"], default="text", help="log lines for people or machines")
    parser.add_argument("--verbose", action="store_true", help="debug lines, and full traces of unexpected errors")
    # The deepspeed launcher gives it to every rank, beside the variable that is read.
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    command = _verb(commands, "demo", verbs.demo, "the whole pipeline on sample videos, ending with a report")
    command.add_argument("-o", "--output", default="demo-output", help="folder of the demo (default: demo-output)")
    _overrides(command)
    _stage_verbs(commands)
    _features_verb(commands)
    _explain_verb(commands)
    _lipsync_verb(commands)
    _config(_verb(commands, "track", verbs.track, "hand MLflow what it could not be given while it was out of reach"))
    command = _verb(commands, "sweep", verbs.sweep, "variants of a run and seeds, each a run, and how they compare")
    command.add_argument(
        "-c", "--config", required=True, metavar="SWEEP", help="modules, masking, ratio, encoder, or a YAML file"
    )
    command.add_argument("-o", "--output", metavar="FOLDER", help="for logs and the report (default: sweep-<name>)")
    _overrides(command)
    command = _verb(commands, "report", verbs.report, "the HTML report of a run, or of several side by side")
    command.add_argument(
        "-c", "--config", action="append", default=[], help="of a run, preset or YAML; may be repeated"
    )
    command.add_argument("-o", "--output", default="report.html", help="file to write (default: report.html)")
    command.add_argument(
        "given",
        nargs="*",
        metavar="RUN",
        help="folder of a run, <storage.root>/runs/<run.name>, several to compare; beside them: section.key=value",
    )
    _dataset_verbs(commands)
    _submit_verbs(commands)
    _publish_verbs(commands)
    nested = commands.add_parser("models", help="pinned model files").add_subparsers(metavar="VERB", required=True)
    _verb(nested, "pull", verbs.models_pull, "model files, pinned by sha256, into the user's cache")
    _samples_verbs(commands)
    command = _verb(commands, "doctor", verbs.doctor, "what this machine has, what is missing, and the fix")
    command.add_argument("-c", "--config", help="also check the storage and model files of this configuration")
    _overrides(command)
    return parser


def _stage_verbs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    _config(_verb(commands, "run", verbs.run, "all stages of a configuration, here, each resumable"))
    command = _config(_verb(commands, "preprocess", verbs.preprocess, "raw videos to shards"))
    command.add_argument("--mark", type=_name, metavar="MARK", help="leave word how it ended, for `marlin wait --mark`")
    _config(_verb(commands, "train", verbs.train, "pretraining; also the entry point under torchrun and deepspeed"))
    command = _config(_verb(commands, "eval", verbs.evaluate, "evaluation of published checkpoints"))
    which = command.add_mutually_exclusive_group()
    which.add_argument("--checkpoint", help="name such as step-00001000.r0 (default: the newest)")
    which.add_argument("--watch", action="store_true", help="each as it is published, until the training has ended")
    command.add_argument("--slurm-job", metavar="ID", help="with --watch: end, too, when this job that trains is gone")
    command = _config(_verb(commands, "wait", verbs.wait, "until what another job makes is there"))
    command.add_argument(
        "--for", dest="awaited", choices=["dataset", "training"], required=True, help="finished dataset, or training"
    )
    command.add_argument(
        "--mark", type=_name, metavar="MARK", help="the dataset of this `marlin preprocess --mark` alone"
    )


def _publish_verbs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _verb(commands, "export", verbs.export, "a checkpoint's weights in a layout of others, with a model card")
    command.add_argument("checkpoint", metavar="CHECKPOINT", help="URL of a run, or <run>/checkpoints/step-00001000.r0")
    command.add_argument("out", metavar="OUT", help="folder to make")
    command.add_argument(
        "--format",
        choices=["safetensors", "official", "hugging-face", "onnx"],
        default="safetensors",
        help="whose names and files (default: safetensors, with our names); onnx: the encoder, clips to features",
    )
    command.add_argument("--encoder", action="store_true", help="leave out decoder and critic")
    command = _config(_verb(commands, "register", verbs.register, "put a checkpoint into MLflow's model registry"))
    command.add_argument("--name", required=True, help="of the registered model")
    command.add_argument("--checkpoint", help="step or name (default: the best by train.keep_best, else the newest)")
    command.add_argument("--alias", default="best", help="moved to this version (default: best)")


def _samples_verbs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    nested = commands.add_parser("samples", help="pinned sample videos, and drawn corpora with known answers")
    samples = nested.add_subparsers(metavar="VERB", required=True)
    _verb(samples, "pull", verbs.samples_pull, "sample videos, pinned by sha256, into the user's cache")
    command = _verb(samples, "draw", verbs.samples_draw, "a corpus of drawn talking faces, for tests and measuring")
    command.add_argument("kind", choices=["celebv-hq", "mosei", "ffpp", "lrs2"], help="layout, as in corpus.kind")
    command.add_argument("out", metavar="OUT", help="folder to make")
    command.add_argument(
        "--videos",
        type=_at_least_1,
        required=True,
        metavar="N",
        help="videos; for ffpp originals, each forged four times",
    )
    command.add_argument("--frames", type=_at_least_1, default=64, metavar="N", help="of each video (default: 64)")
    command.add_argument("--size", type=_at_least_1, default=224, metavar="S", help="side in pixels (default: 224)")
    command.add_argument(
        "--zoom", type=float, default=1.0, metavar="Z", help="1.5: cropped like a detected face (default: 1)"
    )
    command.add_argument("--seed", type=_at_least_0, default=0, metavar="S", help="of all chance (default: 0)")
    command.add_argument("--workers", type=_at_least_1, metavar="N", help="processes (default: one a processor)")


def _features_verb(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _verb(commands, "features", verbs.features, "features of the faces of videos, as a file")
    command.add_argument(
        "video",
        nargs="+",
        metavar="VIDEO",
        help="a video or a folder of its frames; beside them: eval.features.key=value",
    )
    command.add_argument("-o", "--output", required=True, metavar="OUT", help="file to write: .npy, .npz or .parquet")
    command.add_argument(
        "-m", "--model", required=True, metavar="CHECKPOINT", help="URL of a run or checkpoint, or an exported folder"
    )
    command.add_argument("--cropped", action="store_true", help="the videos show nothing but a face")
    for name, field in FeaturesConfig.model_fields.items():
        option, shown = f"--{name.replace('_', '-')}", field.description
        if field.annotation is bool:
            command.add_argument(option, action="store_const", const=True, help=shown)
        elif get_origin(field.annotation) is Literal:
            command.add_argument(option, choices=get_args(field.annotation), help=shown)
        else:
            command.add_argument(option, type=_at_least_1, metavar="N", help=shown)


def _explain_verb(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _verb(commands, "explain", verbs.explain, "draw where the encoder looks in the faces of a video")
    command.add_argument("video", metavar="VIDEO", help="a video, or a folder of its frames")
    command.add_argument("-o", "--output", required=True, metavar="OUT", help="PNG to write")
    command.add_argument(
        "-m", "--model", required=True, metavar="CHECKPOINT", help="URL of a run or checkpoint, or an exported folder"
    )
    command.add_argument("--cropped", action="store_true", help="the video shows nothing but a face")
    command.add_argument(
        "--attention", choices=["rollout", "last"], default="rollout", help="through all blocks, or in the last one"
    )
    command.add_argument(
        "--attribute", action="append", default=[], metavar="NAME", help="draw what speaks for it (repeat for more)"
    )
    command.add_argument(
        "--task", default="attributes-linear", help="whose head knows the attributes (default: attributes-linear)"
    )


def _lipsync_verb(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _verb(commands, "lipsync", verbs.lipsync, "a video whose lips go with another sound, marked as synthetic")
    command.add_argument("video", metavar="VIDEO", help="a video, or a folder of its frames")
    command.add_argument("audio", metavar="AUDIO", help="a file with the sound; the video is made as long")
    command.add_argument("-o", "--output", required=True, metavar="OUT", help="MP4 to write")
    command.add_argument(
        "-m",
        "--model",
        required=True,
        metavar="CHECKPOINT",
        help="URL of a run or checkpoint with a result of the task lipsync, or a generator's file",
    )
    command.add_argument("--encoder", default="", help="which generator of the result (default: its first)")
    command.add_argument("--cropped", action="store_true", help="the video shows nothing but a face")
    command.add_argument(
        "overrides", nargs="*", metavar="preprocess.key=value", help="beside them: how faces are found, else as trained"
    )


def _dataset_verbs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    nested = commands.add_parser("dataset", help="check, count, draw, extend, copy a dataset, take sources out of it")
    dataset = nested.add_subparsers(metavar="VERB", required=True)
    command = _config(_verb(dataset, "verify", verbs.dataset_verify, "check every shard and sample"))
    command.add_argument("--deep", action="store_true", help="also decode every frame and sound, and tag regions again")
    command.add_argument("--repair", action="store_true", help="drop damaged units: preprocess makes them again")
    command.add_argument("--most", type=_at_least_0, default=20, metavar="N", help="problems to list (default: 20)")
    command = _config(_verb(dataset, "stats", verbs.dataset_stats, "count sources, tracks, samples, quarantine"))
    command.add_argument("--json", action="store_true", help="for machines")
    command.add_argument(
        "--samples",
        type=_at_least_0,
        default=256,
        metavar="N",
        help="samples to measure sizes and regions on (default: 256)",
    )
    command = _config(_verb(dataset, "show", verbs.dataset_show, "draw samples, or how they are masked"))
    command.add_argument("-o", "--output", default="samples.png", help="PNG to write (default: samples.png)")
    command.add_argument("--masks", action="store_true", help="draw clips under each masking strategy instead")
    command.add_argument("--count", type=int, help="samples to draw (default: 8, with --masks 1)")
    command.add_argument("--key", action="append", default=[], help="a sample to draw (repeat for more)")
    command.add_argument("--source", action="append", default=[], help="draw samples of this source (repeat for more)")
    command = _config(_verb(dataset, "retry", verbs.dataset_retry, "try quarantined sources again"))
    command.add_argument("--reason", action="append", required=True, help="as stats names it (repeat)")
    _config(_verb(dataset, "append", verbs.dataset_append, "extend a dataset by the videos of corpus.path"))
    command = _config(_verb(dataset, "remove", verbs.dataset_remove, "take sources out of a dataset for good"))
    command.add_argument("--source", action="append", default=[], metavar="NAME", help="a source (repeat for more)")
    command.add_argument(
        "--identity", action="append", default=[], metavar="ID", help="all sources of a person (repeat)"
    )
    command.add_argument("--reason", required=True, metavar="TEXT", help="why; recorded in the dataset")
    command.add_argument("--dry-run", action="store_true", help="only say what would go")
    command = _verb(dataset, "stage", verbs.dataset_stage, "copy a finished dataset to a folder, verified, resumable")
    command.add_argument("dest", metavar="DEST", help="folder, empty or with an earlier copy of the same dataset")
    command.add_argument("--parallel", type=_at_least_1, default=8, metavar="N", help="files at a time (default: 8)")
    _config(command)
    command = _config(_verb(dataset, "order", verbs.dataset_order, "print what a rank will read, as JSON lines"))
    command.add_argument("--nodes", type=_at_least_1, default=1, metavar="N", help="nodes of the run (default: 1)")
    command.add_argument("--world", type=_at_least_1, default=1, metavar="N", help="ranks of the run (default: 1)")
    command.add_argument("--rank", type=_at_least_0, default=0, metavar="R", help="which of them (default: 0)")
    command.add_argument("--steps", type=_at_least_0, default=10, metavar="N", help="updates to list (default: 10)")


def _submit_verbs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    nested = commands.add_parser("submit", help="stages as jobs of a cluster; how they stand; cancel them")
    submit = nested.add_subparsers(metavar="VERB", required=True)
    for name, verb, text, printed in (
        ("slurm", verbs.submit_slurm, "queue stages on SLURM, each after what it needs", "scripts"),
        ("k8s", verbs.submit_k8s, "apply stages to Kubernetes, each after what it needs", "manifests"),
    ):
        command = _config(_verb(submit, name, verb, text))
        command.add_argument(
            "--stage", action="append", choices=STAGES, help="a stage to submit (repeat for more; default: all)"
        )
        command.add_argument("--dry-run", action="store_true", help=f"print the {printed}, submit nothing")
    for name, verb, text in (
        ("status", verbs.submit_status, "how a run's jobs stand, why, and their logs"),
        ("cancel", verbs.submit_cancel, "cancel a run's jobs"),
    ):
        command = _verb(submit, name, verb, text)
        command.add_argument("run", metavar="RUN", help="URL of the run's folder, or its configuration")
        _overrides(command)


def _verb(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, verb: Verb, text: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, epilog=_EPILOG)
    command.set_defaults(verb=verb)
    return command


def _config(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("-c", "--config", required=True, help="name of a preset, or path of a YAML file")
    _overrides(command)
    return command


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of letters, digits, dots, dashes and underscores")
    return text


def _at_least_0(text: str) -> int:
    return _at_least(0, text)


def _at_least_1(text: str) -> int:
    return _at_least(1, text)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return int(text)


def _overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument("overrides", nargs="*", metavar="section.key=value", help="override a configuration value")


def _stop(number: int, frame: FrameType | None) -> None:
    raise StoppedEarly("stopped by a signal: the same command continues")


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"marlin: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
