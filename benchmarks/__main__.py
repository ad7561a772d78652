# SPDX-License-Identifier: Apache-2.0
"""
Measure this provider beside its peers, print the figures as tables and draw them.

An interrupted run goes on where it stopped, as long as no code has changed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks import figures, page, parsing, server, waiting
from benchmarks.figures import FULL, QUICK, Figures, Notebook, Plan


def measure_server(plan: Plan, notebook: Notebook) -> Figures:
    """Measure what the server can do, so that it is visibly not the limit."""
    return notebook.get("server", server.measure_ceiling)


def measure_waiting(plan: Plan, notebook: Notebook) -> Figures:
    """Measure waiting where KIE answers at once."""
    return {"interval": plan.interval, "rows": waiting.measure(plan, notebook, slow=False)}


def measure_slow(plan: Plan, notebook: Notebook) -> Figures:
    """Measure waiting where KIE takes the time that it usually takes."""
    return {"interval": plan.interval, "rows": waiting.measure(plan, notebook, slow=True)}


def measure_parse(plan: Plan, notebook: Notebook) -> Figures:
    """Measure imports."""
    return {"rows": parsing.measure(plan, notebook)}


BENCHMARKS: Final[dict[str, Callable[[Plan, Notebook], Figures]]] = {
    "server": measure_server,
    "parse": measure_parse,
    "waiting": measure_waiting,
    "slow": measure_slow,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; the result is the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure this provider beside its peers.")
    parser.add_argument("--quick", action="store_true", help="a small version, whose results stay in .tmp/bench")
    parser.add_argument("--only", choices=BENCHMARKS, action="append", help="one of the benchmarks; may be repeated")
    parser.add_argument("--most", type=int, default=1_000_000, metavar="N", help="conversions waiting at most")
    parser.add_argument("--once", action="store_true", help="measure everything only once")
    parser.add_argument("--fresh", action="store_true", help="measure again what an earlier run has measured")
    parser.add_argument("--redraw", action="store_true", help="only draw plots and tables from the saved figures")
    args = parser.parse_args(argv)
    plan = figures.reduced(QUICK if args.quick else FULL, args.most, once=args.once)
    if not args.redraw:
        notebook = Notebook(fresh=args.fresh)
        for name in args.only or BENCHMARKS:
            started, subjects = time.monotonic(), figures.digest(figures.SUBJECTS)
            print(f"{name}…", flush=True)
            figures.save(plan.results, name, BENCHMARKS[name](plan, notebook), subjects)
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    return show(plan.results, figures.load(plan.results))


def show(results: Path, found: Figures) -> int:
    """Print, draw and write down the figures."""
    if not found:
        print("There are no figures yet.", file=sys.stderr)
        return 1
    from benchmarks import plots  # a second for matplotlib, after the measurements

    for name, cells in page.tables(found).items():
        print(f"\n[{name}]\n{page.plain(cells)}")
    print(f"\n{page.origin(found)}")
    if outdated := figures.outdated(found):
        print(f"The sources have changed since these were measured: {', '.join(outdated)}.")
    for path in plots.draw_all(results, found):
        print(f"drawn: {path.relative_to(figures.ROOT)}")
    if results == figures.IMAGES and page.update(found):
        print(f"updated: {page.PAGE.relative_to(figures.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
