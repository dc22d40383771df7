"""The `marlin` command: parse, run the verb, turn errors into one line and an exit status."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import pipeline
from pipeline import verbs
from pipeline.errors import MarlinError, StoppedEarly
from pipeline.log import setup_logging

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
    for name, verb, text in (
        ("run", verbs.run, "all stages of a configuration, here, each resumable"),
        ("preprocess", verbs.preprocess, "raw videos to shards"),
        ("train", verbs.train, "pretraining; also the entry point under torchrun and deepspeed"),
    ):
        _config(_verb(commands, name, verb, text))
    command = _config(_verb(commands, "eval", verbs.evaluate, "evaluation of one published checkpoint"))
    command.add_argument("--checkpoint", help="name such as step-00001000.r0 (default: the newest)")
    command = _verb(commands, "report", verbs.report, "the HTML report of a run, or of several side by side")
    command.add_argument("-c", "--config", action="append", required=True, help="preset or YAML; repeat to compare")
    command.add_argument("-o", "--output", default="report.html", help="file to write (default: report.html)")
    _overrides(command)
    _dataset_verbs(commands)
    for name, verb, text in (
        ("models", verbs.models_pull, "model files"),
        ("samples", verbs.samples_pull, "sample videos"),
    ):
        nested = commands.add_parser(name, help=f"pinned {text}").add_subparsers(metavar="VERB", required=True)
        _verb(nested, "pull", verb, f"{text}, pinned by sha256, into the user's cache")
    command = _verb(commands, "doctor", verbs.doctor, "what this machine has, what is missing, and the fix")
    command.add_argument("-c", "--config", help="also check the storage and model files of this configuration")
    _overrides(command)
    return parser


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
