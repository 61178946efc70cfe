"""genprior evaluate truth: samplers against known posteriors."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from genprior.cli.names import SUITES


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior evaluate truth`."""
    parser.add_argument(
        "--suite", nargs="+", choices=SUITES, default=SUITES[:4], help="which (default: the first four)"
    )
    parser.add_argument("--samplers", help="names, as ddrm,mmps; a wrong one lists them (default: each suite's own)")
    parser.add_argument("--quick", action="store_true", help="fewer problems and draws: all suites in minutes")
    parser.add_argument(
        "--data", type=Path, help="flow: .npz whose last train_images are restored (default: its draws)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("-o", "--out", type=Path, help="folder for SUITE.md, SUITE.csv and SUITE.png")


def run(options: argparse.Namespace) -> int:
    from genprior.devices import alone
    from genprior.truth import report

    alone("genprior evaluate truth")
    names = [name.strip() for name in (options.samplers or "").split(",") if name.strip()]
    for name in options.suite:
        began = time.perf_counter()
        found = report.run(name, names, report.Options(options.quick, options.seed, options.data))
        if not found.table.rows:
            print(f"{name}: none of {', '.join(found.samplers)} suits its priors.\n", flush=True)
            continue
        print(f"{found.markdown()}\n{time.perf_counter() - began:.0f} s\n", flush=True)
        if options.out:
            print(f"-> {', '.join(map(str, found.save(options.out)))}\n", flush=True)
    return 0
