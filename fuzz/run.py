#!/usr/bin/env python3
"""Runs the fuzzer on each target in turn, and says how often and what was found.

    run.py --program FILE --corpus DIR --seconds N [--target NAME] [--out FILE]

Inputs that reach new code are kept in the corpus, so that the next run goes on from there. The status is 1 if anything was found:
mend it, and keep the input as a seed in fuzz/seeds/. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMEOUT = 10  # seconds that one input may take
MEMORY = 1024  # MiB that the program may use
LINES = 40  # of a finding's report


def targets(program: Path) -> list[str]:
    """The names that the program lists when it is given none."""
    listed = subprocess.run([program], env=os.environ | {"LANTERN_FUZZ_TARGET": ""}, check=True, capture_output=True, text=True)
    return listed.stdout.split()


def fuzz(args: argparse.Namespace, target: str) -> dict[str, str]:
    """One target: its row in the table."""
    corpus = args.corpus / target
    corpus.mkdir(parents=True, exist_ok=True)
    findings = args.corpus / "findings"
    findings.mkdir(exist_ok=True)
    before = set(findings.iterdir())
    command = [args.program, corpus, HERE / "seeds" / target, f"-max_total_time={args.seconds}", f"-timeout={TIMEOUT}",
               f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={findings}/{target}-", "-print_final_stats=1"]  # fmt: skip
    words = HERE / "dictionaries" / f"{target}.dict"
    if words.is_file():
        command.append(f"-dict={words}")
    environment = os.environ | {"LANTERN_FUZZ_TARGET": target}
    if Path("/dev/shm").is_dir():
        # Some targets write files.
        environment["TMPDIR"] = "/dev/shm"
    run = subprocess.run(list(map(str, command)), env=environment, stderr=subprocess.PIPE, errors="replace")
    # Another target may be run at the same time.
    found = sorted(path.name for path in set(findings.glob(f"{target}-*")) - before)
    if run.returncode != 0:
        print("\n".join(run.stderr.splitlines()[-LINES:]), file=sys.stderr)
        found = found or [f"status {run.returncode}"]
    return {"executions": executions(run.stderr), "coverage": last(r"cov: (\d+)", run.stderr), "findings": ", ".join(found)}


def executions(report: str) -> str:
    """How many inputs were run: from the final statistics, or, where a finding cut them off, from the last line of progress."""
    return last(r"number_of_executed_units: (\d+)", report) or last(r"^#(\d+)", report)


def last(pattern: str, text: str) -> str:
    found = re.findall(pattern, text, re.MULTILINE)
    return found[-1] if found else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True, help="where inputs and findings are kept")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", help="this one alone")
    parser.add_argument("--out", type=Path, help="the table, in Markdown")
    args = parser.parse_args()
    names = targets(args.program)
    if args.target and args.target not in names:
        parser.error(f"there is no target {args.target}; there are {', '.join(names)}")
    lines = [f"| target ({args.seconds} s each) | executions | coverage | findings |", "|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    is_clean = True
    for name in [args.target] if args.target else names:
        row = fuzz(args, name)
        is_clean &= not row["findings"]
        lines.append(f"| `{name}` | {int(row['executions'] or 0):,} | {row['coverage']} | {row['findings'] or '–'} |")
        print(lines[-1], flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("\n".join(lines) + "\n")
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
