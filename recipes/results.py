"""Recompute the figures of README and docs, and list when each was last made.

    python recipes/results.py                     (what `make results` runs: commands of minutes that need no data)
    python recipes/results.py --only blind        every command that contains this, however long, where its data lies

`docs/figures.json` lists the commands whose figures stand on a page, with date and commit. Output goes to OUT; rows not
on the page are shown: times differ, and so may last digits. Once it has the new rows, --record stores date and commit.
"""

import argparse
import datetime
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from genprior.devices import alone
from genprior.files import write_text

ROOT = Path(__file__).parents[1]
LIST = ROOT / "docs" / "figures.json"
QUICK = 3  # minutes
PROGRAMS = {"python": [], "genprior": ["-m", "genprior"], "pytest": ["-m", "pytest"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="commands that contain this, long ones too")
    parser.add_argument("--record", action="store_true", help="write date and commit of what ran to docs/figures.json")
    parser.add_argument("--out", type=Path, default=Path("figures"))
    options = parser.parse_args()
    alone("results")
    figures, failed = json.loads(LIST.read_text()), 0
    for k, figure in enumerate(figures):
        quick = (figure["minutes"] or QUICK + 1) <= QUICK and not figure.get("data")
        if not (options.only in figure["command"] if options.only else quick):
            continue
        began = time.monotonic()
        done = subprocess.run(words(figure["command"]), stdout=subprocess.PIPE, text=True)
        minutes = round((time.monotonic() - began) / 60, 1)
        write_text(options.out / f"{k}.txt", f"$ {figure['command']}\n{done.stdout}")
        print(f"`{figure['command']}`, {minutes} minutes: {verdict(done, figure['page'])}", flush=True)
        failed += done.returncode != 0
        if options.record and done.returncode == 0:
            head = subprocess.check_output(["git", "describe", "--always", "--dirty"], text=True, cwd=ROOT).strip()
            figures[k] |= {"minutes": minutes, "date": f"{datetime.date.today()}", "commit": head}
            write_text(LIST, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    print("\n| page | command | minutes | date | commit |\n|---|---|---|---|---|")
    for figure in figures:
        print("| {page} | `{command}` | {minutes} | {date} | {commit} |".format_map(figure))
    sys.exit(f"{failed} commands failed" if failed else 0)


def words(command: str) -> list[str]:
    """Return the command for this Python, to run from whatever folder the data lies in."""
    program, *rest = shlex.split(command)
    ours = (str(ROOT / word) if word.startswith(("recipes/", "tests/")) else word for word in rest)
    return [sys.executable, *PROGRAMS[program], *ours]


def verdict(done: subprocess.CompletedProcess, page: str) -> str:
    """Say which rows of the printed tables stand on the page."""
    if done.returncode:
        return f"failed with {done.returncode}"
    there = set(map(cells, (ROOT / page).read_text(encoding="utf-8").splitlines()))
    tables = re.sub(r"^\|.*\n(?=\|[ |-]+\|$)", "", done.stdout, flags=re.MULTILINE)  # without their headings
    printed = [line for line in tables.splitlines() if line.startswith("|") and re.search(r"\d", line)]
    other = [line for line in printed if cells(line) not in there]
    return "\n  ".join([f"{len(printed) - len(other)} of {len(printed)} rows stand in {page}", *other])


def cells(line: str) -> str:  # a row without its first cell, which a page may name differently
    return "".join(line.split()).partition("|")[2].partition("|")[2]


if __name__ == "__main__":
    main()
