"""Proof that it learns, docs/learning.md.

python -m benchmarks.learning data                 # draw the corpora, make datasets
python -m benchmarks.learning run --stage tune     # train and measure what has no result yet
python -m benchmarks.learning table                # what was found
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from benchmarks.learning.protocol import PRESETS, Job, Protocol, StageName, load_protocol
from pipeline.errors import MarlinError, UsageError
from pipeline.log import setup_logging

_ROOT, _RESULTS = Path("learning"), Path(__file__).parent / "results"


def data(args: argparse.Namespace) -> None:
    """Draw the corpora and make datasets."""
    from benchmarks.learning.corpora import make_datasets

    make_datasets(load_protocol(args.protocol), args.root.absolute(), args.only, workers=args.workers)


def run(args: argparse.Namespace) -> None:
    """Train and measure what has no result yet."""
    from benchmarks.learning.jobs import Place, run_jobs

    protocol = _protocol(args)
    jobs = [
        job
        for job in protocol.jobs(args.stage)
        if (not args.variants or job.variant in args.variants) and (not args.seeds or job.seed in args.seeds)
    ]
    place = Place(args.protocol, args.root.absolute(), _out(args), args.threads)
    run_jobs(protocol, jobs, place, at_once=args.jobs, minutes=args.minutes)


def measure(args: argparse.Namespace) -> None:
    """Measure one variant with one seed."""
    from benchmarks.learning.measure import measure as measured
    from benchmarks.learning.results import write_result

    protocol, job = _protocol(args), Job(args.stage, args.variant, args.seed, args.setting)
    log = args.root / "logs" / f"{protocol.run_of(job)}.log" if job.trained else None
    write_result(_out(args), job, measured(protocol, job, args.root.absolute(), log, args.threads))


def check(args: argparse.Namespace) -> None:
    """Whether anything is learned, also when the method is broken; one line of JSON, or many of a calibration."""
    from benchmarks.learning.check import calibrate, learn, only_variant
    from benchmarks.learning.corpora import make_datasets

    protocol, root = load_protocol(args.protocol), args.root.absolute()
    job = Job("report", only_variant(protocol), args.seed)
    make_datasets(protocol, root)
    if args.calibrate:
        rows = calibrate(args.protocol, root, range(args.calibrate), args.jobs)
    else:
        found = learn(protocol, job, root, how=args.how, threads=args.threads)
        rows = [{"broken": args.how, "seed": args.seed, **asdict(found), "enough": found.enough}]
    sys.stdout.write("".join(f"{json.dumps(row)}\n" for row in rows))


def table(args: argparse.Namespace) -> None:
    """What was found, as markdown or JSON, or put into a page."""
    from benchmarks.learning.results import whole_results
    from benchmarks.learning.table import markdown, put_into, summary

    protocol = load_protocol(args.protocol)
    results = whole_results(_out(args), protocol, args.stage)
    if args.into:
        put_into(args.into, protocol, results)
    else:
        sys.stdout.write(json.dumps(summary(protocol, results), indent=1) if args.json else markdown(protocol, results))


def pack(args: argparse.Namespace) -> None:
    """All results in one file, or back."""
    from benchmarks.learning.results import pack as packed
    from benchmarks.learning.results import unpack

    count = unpack(args.file, _out(args)) if args.unpack else packed(_out(args), args.file)
    sys.stdout.write(f"{count} results\n")


def _protocol(args: argparse.Namespace) -> Protocol:
    """The protocol with the setting that the command line chooses."""
    from benchmarks.learning.results import all_results
    from benchmarks.learning.table import best_setting

    protocol, chosen = load_protocol(args.protocol), args.chosen
    if chosen == "best":
        chosen, scores = best_setting(protocol, all_results(_out(args), "tune"))
        told = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
        logging.getLogger(__name__).info("setting %s is the best of %s", chosen, told)
    if not chosen:
        return protocol
    if not protocol.search or chosen not in protocol.search.settings:
        raise UsageError(f"protocol {protocol.name} has no setting '{chosen}': see search.settings")
    return protocol.model_copy(update={"chosen": chosen})


def _out(args: argparse.Namespace) -> Path:
    out: Path = args.out or _RESULTS / load_protocol(args.protocol).name
    return out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.learning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-p", "--protocol", default="small", help=f"{', '.join(PRESETS)}, or a YAML file")
    shared.add_argument("--root", type=Path, default=_ROOT, help="datasets, runs and logs (default: learning)")
    shared.add_argument("--out", type=Path, help="results (default: benchmarks/learning/results/<protocol>)")
    stage = argparse.ArgumentParser(add_help=False)
    stage.add_argument("--stage", choices=get_args(StageName), default="report")
    threads = argparse.ArgumentParser(add_help=False)
    threads.add_argument("--threads", type=int, default=1, help="of arithmetic, for each job")
    setting = argparse.ArgumentParser(add_help=False)
    setting.add_argument("--chosen", default="", help="setting of the search; 'best': by the results of tuning")
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("data", parents=[shared], help="draw the corpora, make datasets")
    verb.add_argument("--only", nargs="*", default=(), help="these corpora")
    verb.add_argument("--workers", type=int, help="processes (default: one for each core)")
    verb.set_defaults(verb=data)
    verb = verbs.add_parser(
        "run", parents=[shared, stage, threads, setting], help="train and measure what has no result yet"
    )
    verb.add_argument("--variants", nargs="*", default=(), help="these only")
    verb.add_argument("--seeds", nargs="*", type=int, default=(), help="these only")
    verb.add_argument("--jobs", type=int, default=1, help="so many at once")
    verb.add_argument("--minutes", type=float, help="begin no job after these")
    verb.set_defaults(verb=run)
    verb = verbs.add_parser("measure", parents=[shared, threads, setting], help="measure one variant with one seed")
    verb.add_argument("stage", choices=get_args(StageName))
    verb.add_argument("variant")
    verb.add_argument("seed", type=int)
    verb.add_argument("--setting", default="", help="of the search, in tuning")
    verb.set_defaults(verb=measure)
    verb = verbs.add_parser("check", parents=[shared, threads], help="whether anything is learned (-p check)")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--break", dest="how", default="", help="break the method: shuffled, frozen or nowhere")
    verb.add_argument("--calibrate", type=int, default=0, metavar="N", help="whole and broken, with N seeds each")
    verb.add_argument("--jobs", type=int, default=1, help="so many at once in a calibration")
    verb.set_defaults(verb=check)
    verb = verbs.add_parser("table", parents=[shared, stage], help="what was found, as markdown")
    verb.add_argument("--json", action="store_true", help="as JSON, with every reading compared")
    verb.add_argument("--into", type=Path, help="a page, between its marks of this protocol")
    verb.set_defaults(verb=table)
    verb = verbs.add_parser("pack", parents=[shared], help="all results in one file, or back")
    verb.add_argument("file", type=Path)
    verb.add_argument("--unpack", action="store_true")
    verb.set_defaults(verb=pack)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong usage."""
    args = _parser().parse_args(arguments)
    setup_logging()
    try:
        args.verb(args)
    except MarlinError as error:
        logging.getLogger(__name__).error("%s", error)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
