#!/usr/bin/env python3
"""Puts models that others made to Lantern and to Python's onnxruntime, and says where the answers differ.

    compare.py --lantern PROGRAM --handler PASSTHROUGH.wasm --out REPORT.md [--sample]

cases.py has the models, reference.py the right answers, transport.py the ways to ask, explained.toml what the server refuses
though onnxruntime does not, each with its reason. Ends with status 1 on an answer that is wrong and on a refusal that nobody
explained. `--sample` asks a part of the models. README.md beside this file says how to read the report.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import local
from zlib import crc32

import numpy as np

import cases
import reference
import server
from cases import Case
from transport import TRANSPORTS, Refused, Rest
from wire import Tensor, differences, given

HERE = Path(__file__).resolve().parent
THREADS = 4
SHOWN = 20  # open verdicts on the terminal; the report has all
ROUNDS = 3  # of requests that come two at a time
ROUNDING = 1e-3  # of floats that were computed in a batch; the node cases allow as much
EQUAL, BOTH, OURS, MORE, WRONG = "equal", "refused by both", "refused by us alone", "answered by us alone", "wrong"
OUTCOMES = (EQUAL, BOTH, OURS, MORE, WRONG)  # the worst last


@dataclass
class Verdict:
    """What became of a case in one pass."""

    case: Case
    where: str
    outcome: str
    lines: list[str]
    why: str = ""

    @property
    def is_open(self) -> bool:
        """Whether somebody has to look at it."""
        return self.outcome == WRONG or (self.outcome in (OURS, MORE) and not self.why)


# --- asking ------------------------------------------------------------------------------------------------------

Heard = tuple[str, object, object]  # over which transport, what is right, what was answered


class Client:
    """What one thread asks with: connections of its own, and another thread for requests that come at once."""

    def __init__(self, running: server.Server) -> None:
        self.management = Rest(running.addresses["management"])
        self.transports = [transport(running.addresses) for transport in TRANSPORTS]
        self.second = TRANSPORTS[0](running.addresses)
        self.aside = ThreadPoolExecutor(1)


def over_all(client: Client, model: str, case: Case) -> list[Heard]:
    """One request over each transport."""
    return [(transport.name, right(case, call), asked(transport, model, case.inputs)) for call, transport in enumerate(client.transports)]


def over_one(client: Client, model: str, case: Case) -> list[Heard]:
    """One request, over a transport that the case's name chooses."""
    transport = client.transports[crc32(case.name.encode()) % len(client.transports)]
    return [(transport.name, right(case), asked(transport, model, case.inputs))]


def together(client: Client, model: str, case: Case) -> list[Heard]:
    """Two requests at once, which a server that batches may stack: each must get its own answer."""
    turned = {name: np.asarray(value).ravel()[::-1].reshape(np.shape(value)) for name, value in case.inputs.items()}
    theirs = right(case), right(replace(case, inputs=turned))
    heard = []
    for _ in range(ROUNDS):
        other = client.aside.submit(asked, client.second, model, turned)
        heard += [("first", theirs[0], asked(client.transports[0], model, case.inputs)), ("second", theirs[1], other.result())]
    return heard


def asked(transport: object, model: str, inputs: dict[str, object]) -> list[Tensor] | Refused:
    """An answer that cannot be read is none."""
    sent = [tensor for name, value in inputs.items() for tensor in given(name, value)]
    try:
        return transport.infer(model, sent)
    except Refused as refusal:
        return refusal
    except (ValueError, LookupError, TypeError) as error:
        return Refused(0, f"the answer cannot be read: {error!r}")


def right(case: Case, call: int = 0) -> list[Tensor] | reference.Refusal:
    """The reference's answer to the call of that number since the model was loaded."""
    return answers(case)[call]


@cache
def answers(case: Case) -> list[list[Tensor] | reference.Refusal]:
    """To as many calls as there are transports, however many passes there are."""
    ask = reference.torch_answers if case.is_torch else reference.onnx_answers
    try:
        return ask(case.model, case.inputs, len(TRANSPORTS))
    except reference.Refusal as refusal:
        return [refusal] * len(TRANSPORTS)


# --- passes ------------------------------------------------------------------------------------------------------

ALONE = "lantern: {intraOpThreads: 1}\n"
TORCH = "lantern: {intraOpThreads: 1, hosting: process}\n"
STACKED = "batchSize: 2\nmaxBatchDelay: 100\nlantern: {waitForFullBatches: true, intraOpThreads: 1}\n"


@dataclass(frozen=True)
class Pass:
    """Cases put to a server of one hosting in one way."""

    name: str
    hosting: str
    ask: Callable[[Client, str, Case], list[Heard]]
    cases: list[Case]
    config: str = ALONE
    tolerance: float = 0.0


def passes(is_sample: bool) -> list[Pass]:
    """All models in the server's process over every transport; parts of them in worker processes, and two at a time."""
    every = cases.every()
    step = 4 if is_sample else 1
    return [
        Pass("inline", "inline", over_all, cases.sample(every, step)),
        Pass("process", "process", over_one, cases.sample(every, 8 * step)),
        Pass("two at once", "inline", together, list(cases.with_rows(every[:: 2 * step])), STACKED, ROUNDING),
    ]


def run(one: Pass, args: argparse.Namespace, folder: Path, explained: dict) -> list[Verdict]:
    """Every case of a pass, by a few threads, in the cases' order."""
    began = time.monotonic()
    with server.started(args.lantern, args.handler, folder / one.name, one.hosting) as running:
        clients = local()
        with ThreadPoolExecutor(THREADS) as pool:
            verdicts = list(pool.map(lambda case: put(one, case, clients, running, explained), one.cases))
    print(f"{one.name}: {len(verdicts)} models in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return verdicts


def put(one: Pass, case: Case, clients: local, running: server.Server, explained: dict) -> Verdict:
    """One case, by the client of this thread."""
    if not hasattr(clients, "own"):
        clients.own = Client(running)
    try:
        with running.serving(case, TORCH if case.is_torch else one.config, clients.own.management) as model:
            heard = one.ask(clients.own, model, case)
    except Refused as refusal:
        heard = [("load", right(case), refusal)]
    return judge(case, one, heard, explained)


# --- judging -----------------------------------------------------------------------------------------------------


def judge(case: Case, one: Pass, heard: list[Heard], explained: dict) -> Verdict:
    """The worst of what was heard."""
    found = [(name, *compare(theirs, ours, one.tolerance)) for name, theirs, ours in heard]
    outcome = max((outcome for _, outcome, _ in found), key=OUTCOMES.index)
    lines = [f"{name}: {line}" for name, own, lines in found if own == outcome for line in lines]
    table = {OURS: "refused", MORE: "answered"}.get(outcome)
    why = reason(explained[table], case, lines) if table else ""
    return Verdict(case, one.name, outcome, lines, why)


def compare(theirs: object, ours: object, tolerance: float) -> tuple[str, list[str]]:
    """An outcome and what there is to say about it. No answer at all is never right."""
    if isinstance(ours, Refused):
        is_lost = ours.status == 0
        is_alone = not isinstance(theirs, reference.Refusal)
        return (WRONG if is_lost else OURS if is_alone else BOTH), [str(ours)]
    if isinstance(theirs, reference.Refusal):
        return MORE, [f"{short(str(theirs))} → {', '.join(f'{tensor.name}: {tensor}' for tensor in ours)}"]
    lines = differences(ours, theirs, tolerance)
    return (WRONG if lines else EQUAL), lines


def reason(entries: list[dict], case: Case, lines: list[str]) -> str:
    """Why what was said is meant: all of it, or nobody said so and it is empty."""
    for entry in entries:
        if re.fullmatch(entry.get("cases", ".*"), case.name) and all(re.search(entry["says"], line) for line in lines):
            entry["used"] = True
            return entry["why"]
    return ""


def short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) < 240 else text[:240] + "…"


# --- the report --------------------------------------------------------------------------------------------------


def write(verdicts: list[Verdict], explained: dict, args: argparse.Namespace) -> int:
    """The report; how many verdicts somebody has to look at."""
    opened = [verdict for verdict in verdicts if verdict.is_open]
    counts = Counter(verdict.outcome for verdict in verdicts)
    summary = "; ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES) + f"; {len(opened)} to be looked at."
    summary = f"{'A sample: ' if args.sample else ''}{len(verdicts)} models asked: {summary}"
    report = [f"# Models of others: Lantern and Python's onnxruntime {reference.version()}", "", summary, "", *table(verdicts)]
    lowered = sum(verdict.case.lowered for verdict in verdicts)
    report += ["", f"{lowered} of them are stamped with an opset or IR newer than this runtime takes, and were asked with the newest it takes."]
    report += [text for title, lines in sections(verdicts) for text in ("", f"## {title} ({len(lines)})", "", *(lines or ["none"]))]
    unused = [entry["why"] for entries in explained.values() for entry in entries if not entry.get("used")]
    if unused and not args.sample:
        report += ["", "## Explanations that nothing needs", "", *(f"- {why}" for why in unused)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(report) + "\n")
    print("\n".join([f"{args.out}: {summary}", *map(line, opened[:SHOWN])]))
    return len(opened)


def sections(verdicts: list[Verdict]) -> Iterator[tuple[str, list[str]]]:
    """What is to be looked at, then what is meant, then what nobody takes."""
    for outcome in (WRONG, OURS, MORE):
        opened = [line(verdict) for verdict in verdicts if verdict.outcome == outcome and verdict.is_open]
        yield f"{outcome.capitalize()}, not explained", opened
    for outcome, why in dict.fromkeys((verdict.outcome, verdict.why) for verdict in verdicts if verdict.why):
        yield f"{outcome.capitalize()}: {why}", [line(verdict) for verdict in verdicts if (verdict.outcome, verdict.why) == (outcome, why)]
    yield BOTH.capitalize(), [line(verdict) for verdict in verdicts if verdict.outcome == BOTH]


def table(verdicts: list[Verdict]) -> list[str]:
    """A row for each pass and kind of models."""
    rows = [f"| pass | models | {' | '.join(OUTCOMES)} |", "|---" * (2 + len(OUTCOMES)) + "|"]
    counts = Counter((verdict.where, verdict.case.suite, verdict.outcome) for verdict in verdicts)
    for where, suite in dict.fromkeys((verdict.where, verdict.case.suite) for verdict in verdicts):
        rows.append(f"| {where} | {suite} | {' | '.join(str(counts[where, suite, outcome]) for outcome in OUTCOMES)} |")
    return rows


def line(verdict: Verdict) -> str:
    return f"- `{verdict.case.name}` ({verdict.where}): {short('; '.join(verdict.lines))}"


# --- the run -----------------------------------------------------------------------------------------------------


def main() -> int:
    """Status of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--lantern", "--handler", "--out"):
        parser.add_argument(option, type=lambda name: Path(name).resolve(), required=True)
    parser.add_argument("--sample", action="store_true", help="ask a part of the models")
    args = parser.parse_args()
    explained = {"refused": [], "answered": []} | tomllib.loads((HERE / "explained.toml").read_text())
    with tempfile.TemporaryDirectory(prefix="models-") as name:
        verdicts = [verdict for one in passes(args.sample) for verdict in run(one, args, Path(name), explained)]
    return 1 if write(verdicts, explained, args) else 0


if __name__ == "__main__":
    sys.exit(main())
