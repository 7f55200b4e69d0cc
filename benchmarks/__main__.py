"""Measure and print: ``python -m benchmarks --help``."""

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from benchmarks import machine, report
from benchmarks.load import wrk_path
from benchmarks.plan import Plan
from benchmarks.servers import BenchmarkError
from benchmarks.workloads import WORKLOAD_BY_NAME


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen workloads; 0 even where a bar is missed, unless ``--strict``."""
    options = _parse(arguments)
    # A plain kill must unwind as Ctrl-C does, or the servers would stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine.raise_open_files_limit()
    plan = Plan(options.rounds, options.seconds)
    is_awake = machine.may_be_kept_awake() if options.keep_awake is None else options.keep_awake
    rows: list[report.Row] = []
    try:
        wrk_path()
        with machine.kept_awake() if is_awake else nullcontext():
            for name in options.only:
                rows += _measure(name, plan)
    except (BenchmarkError, machine.CannotKeepAwakeError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; all servers have been ended", file=sys.stderr)
        _print(rows, is_awake)
        return 130
    _print(rows, is_awake)
    if options.json is not None:
        chosen = {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "only": options.only,
            "keep_awake": is_awake,
        }
        options.json.write_text(report.as_json(rows, machine.description(), chosen) + "\n")
    return int(options.strict and report.is_short(rows))


def _measure(name: str, plan: Plan) -> list[report.Row]:
    plan.tell(f"{name} ...")
    rows: list[report.Row] = []
    try:
        for row in WORKLOAD_BY_NAME[name](plan):
            rows.append(row)
    except BenchmarkError as error:
        rows.append(report.failed(name, str(error)))
    return rows


def _print(rows: Sequence[report.Row], is_awake: bool) -> None:
    if not rows:
        return
    print("\n".join(f"{name}: {value}" for name, value in machine.description().items()))
    print(f"idle cores: {'kept awake' if is_awake else 'may sleep; see --keep-awake'}")
    print()
    print(report.table(rows))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Modelport beside a bare uvicorn or grpc.aio in the same run.",
        epilog=f"Workloads: {', '.join(WORKLOAD_BY_NAME)}. See docs/design/measuring.md.",
    )
    parser.add_argument("--rounds", type=_positive, default=5, help="rounds of each (default 5)")
    parser.add_argument(
        "--seconds", type=_positive, default=2, help="seconds of load per round (default 2)"
    )
    parser.add_argument(
        "--only",
        type=_names,
        default=list(WORKLOAD_BY_NAME),
        metavar="W1,W2,...",
        help="these workloads alone",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument(
        "--keep-awake",
        action=argparse.BooleanOptionalAction,
        help="keep idle cores from sleeping, so that no wake-up of them is measured "
        "(default: where the system lets us, which is root on Linux)",
    )
    parser.add_argument("--strict", action="store_true", help="fail if a bar is missed")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got '{text}'")
    return int(text)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in WORKLOAD_BY_NAME:
            known = ", ".join(WORKLOAD_BY_NAME)
            raise argparse.ArgumentTypeError(f"no workload {name!r}; there are {known}")
    return names


if __name__ == "__main__":
    sys.exit(main())
