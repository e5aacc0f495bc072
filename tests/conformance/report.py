#!/usr/bin/env python3
"""The conformance report: what TorchServe's clients can see, the check that covers it, and how the check ended.

    report.py --results JUNIT.xml --out REPORT.md

Reads every `*.toml` beside it: one `[[behaviour]]` for each numbered behaviour, with the tests that check it. Joins them with
the results of a test run. Ends with status 1 if a check failed, names a test that did not run, or an entry breaks the
rules below. Does not know: what is tested, or how. Standard library only.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tomllib
import xml.etree.ElementTree as xml
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PASS, DEVIATION, FAIL, MISSING = "pass", "deviation", "FAIL", "no check"
KEYS = {"id", "says", "checks", "deviation", "missing"}


@dataclass
class Behaviour:
    """One row of the report."""

    id: str
    says: str
    checks: list[str]
    deviation: str
    missing: str
    problems: list[str] = field(default_factory=list)

    def outcome(self, results: dict[str, bool]) -> str:
        """How the checks of this row ended."""
        self.problems += [f"`{check}` did not run" for check in self.checks if check not in results]
        self.problems += [f"`{check}` failed" for check in self.checks if results.get(check) is False]
        if self.problems:
            return FAIL
        if not self.checks:
            return MISSING
        return DEVIATION if self.deviation else PASS


def parse(entry: dict, where: str, seen: set[str]) -> Behaviour:
    """One entry, checked."""
    row = Behaviour(
        id=str(entry.get("id", "?")),
        says=entry.get("says", ""),
        checks=entry.get("checks", []),
        deviation=entry.get("deviation", ""),
        missing=entry.get("missing", ""),
    )
    unknown = sorted(set(entry) - KEYS)
    rules = {
        f"unknown keys {unknown}": unknown,
        "`id` and `says` are required": row.id == "?" or not row.says,
        "the id is used twice": row.id in seen,
        "`missing` says why there is no check, yet `checks` has some": row.missing and row.checks,
        "without checks it needs `missing`, which says why": not row.checks and not row.missing,
    }
    row.problems = [f"{where}: {rule}" for rule, broken in rules.items() if broken]
    seen.add(row.id)
    return row


def load(seen: set[str]) -> dict[str, list[Behaviour]]:
    """The rows of each file, by the file's title: its first comment."""
    sections = {}
    for path in sorted(HERE.glob("*.toml")):
        text = path.read_text()
        first = text.splitlines()[0] if text else ""
        title = first.removeprefix("#").strip() if first.startswith("#") else path.stem
        entries = tomllib.loads(text).get("behaviour", [])
        sections[title] = [parse(entry, f"{path.name} {entry.get('id')}", seen) for entry in entries]
    return sections


def results_of(path: Path) -> dict[str, bool]:
    """Whether each test passed, by its name without the binary's."""
    results: dict[str, bool] = {}
    for case in xml.parse(path).getroot().iter("testcase"):
        passed = case.find("failure") is None and case.find("error") is None
        name = case.get("name", "")
        results[name] = results.get(name, True) and passed
    return results


def cell(text: str) -> str:
    """Text that does not break a table."""
    return " ".join(text.split()).replace("|", "\\|")


def lines_of(title: str, rows: list[tuple[Behaviour, str]]) -> list[str]:
    """One section of the report."""
    lines = ["", f"## {title}", "", "| id | behaviour | result | check, or why not |", "|---|---|---|---|"]
    for row, outcome in rows:
        notes = [f"`{check}`" for check in row.checks]
        notes += row.problems
        notes += [f"**differs**: {row.deviation}"] if row.deviation else []
        notes += [row.missing] if row.missing else []
        lines.append(f"| {cell(row.id)} | {cell(row.says)} | {outcome} | {cell('; '.join(notes))} |")
    return lines


def main() -> int:
    """Writes the report; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results = results_of(args.results)
    judged = {
        title: [(row, row.outcome(results)) for row in rows] for title, rows in load(set()).items()
    }
    counts = collections.Counter(outcome for rows in judged.values() for _, outcome in rows)
    total = sum(counts.values())
    summary = ", ".join(f"{counts[kind]} {kind}" for kind in (PASS, DEVIATION, MISSING, FAIL))
    report = [
        "# Conformance with TorchServe 0.12 and Open Inference Protocol v2",
        "",
        f"{total} behaviours: {summary}. *deviation*: Lantern differs on purpose, and the check covers what it does instead; the",
        "reason stands beside it. *no check*: nothing verifies this row; why stands beside it.",
    ]
    for title, rows in judged.items():
        report += lines_of(title, rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(report) + "\n")
    print(f"{args.out}: {total} behaviours: {summary}")
    broken = [(row, problem) for rows in judged.values() for row, outcome in rows if outcome == FAIL for problem in row.problems]
    for row, problem in broken:
        print(f"  {row.id}: {problem}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
