"""What newman found, compared with what is known to fail, as a page. Does not know how the collections are run."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHOWN = 200  # characters of an answer


@dataclass
class Failure:
    """A check of a collection that did not hold."""

    suite: str
    item: str
    request: str
    check: str
    answer: str
    why: str = ""


@dataclass
class Result:
    """One run of a collection."""

    suite: str
    requests: int = 0
    checks: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Result) -> None:
        """Counts what another run of the collection found as well."""
        self.requests += other.requests
        self.checks += other.checks
        self.failures += other.failures

    def line(self) -> str:
        return f"{self.suite}: {self.checks - len(self.failures)} of {self.checks} checks hold in {self.requests} requests"


# --- what newman found -------------------------------------------------------------------------------------------


def read(suite: str, file: Path, rows: list[dict]) -> Result:
    """A result from newman's JSON. A request that got no answer counts as a check that failed."""
    result = Result(suite)
    found = json.loads(file.read_text())
    executions = found["run"]["executions"]
    expected = len(found["collection"]["item"]) * max(1, len(rows))
    if len(executions) != expected:
        raise SystemExit(f"newman ran {len(executions)} requests of {suite} instead of {expected}")
    for execution in executions:
        result.requests += 1
        made = checks(execution)
        result.checks += len(made)
        title, request, came = item(execution, rows), asked(execution), answer(execution)
        result.failures += [Failure(suite, title, request, f"{name}: {wrong}", came) for name, wrong in made if wrong]
    return result


def not_started(suite: str, log: str) -> Result:
    """The result of a collection whose server did not start."""
    lines = log.splitlines()
    errors = [line for line in lines if line.startswith("error:")] or lines[-1:]
    failure = Failure(suite, "start with TorchServe's settings", "lantern serve", "the server starts", short(" ".join(errors)))
    return Result(suite, checks=1, failures=[failure])


def checks(execution: dict) -> list[tuple[str, str]]:
    """Names of the checks of a request, each with what is wrong or with nothing."""
    found = [(check["assertion"], message(check.get("error"))) for check in execution.get("assertions", [])]
    if "requestError" in execution:
        found.append(("the request is answered", message(execution["requestError"])))
    return found + [("the script runs", message(script["error"])) for script in execution.get("testScript", []) if "error" in script]


def message(error: dict | None) -> str:
    return (error.get("message") or error.get("code") or "failed") if error else ""


def item(execution: dict, rows: list[dict]) -> str:
    """The name of the request, and of the row of data that it was made from."""
    row = rows[execution["cursor"]["iteration"]] if rows else {}
    label = next((row[key] for key in ("test", "model_name", "workflow_name") if key in row), "")
    return f"{execution['item']['name']}: {label}" if label else execution["item"]["name"]


def asked(execution: dict) -> str:
    """`POST /models?url=mnist.mar`."""
    request = execution["request"]
    url = request["url"]
    query = "&".join(f"{entry['key']}={entry.get('value') or ''}" for entry in url.get("query", []))
    return f"{request['method'].upper()} /{'/'.join(url.get('path', []))}" + (f"?{query}" if query else "")


def answer(execution: dict) -> str:
    """`404 {"code": 404, ...}`."""
    response = execution.get("response")
    if not response:
        return "no answer"
    return f"{response['code']} {short(bytes(response['stream']['data']).decode(errors='replace'))}"


def short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) < SHOWN else text[:SHOWN] + "…"


# --- what is known -----------------------------------------------------------------------------------------------


def explain(results: list[Result], known: list[dict]) -> list[dict]:
    """Gives failures their reasons; the entries of the collections that were run which explain nothing."""
    for failure in (failure for result in results for failure in result.failures):
        for entry in known:
            if holds(entry, failure):
                entry["used"] = True
                failure.why = entry["why"]
                break
    return [entry for entry in known if not entry.get("used") and any(re.fullmatch(entry["collections"], result.suite) for result in results)]


def holds(entry: dict, failure: Failure) -> bool:
    """Whether a failure is the one that an entry explains: the same request, answered as it says."""
    names = re.fullmatch(entry["collections"], failure.suite) and re.fullmatch(entry["item"], failure.item)
    return bool(names and re.match(entry["answer"], failure.answer))


# --- the page ----------------------------------------------------------------------------------------------------


def write(results: list[Result], out: Path) -> int:
    """Writes the page; 1 if a failure has no reason."""
    unused = explain(results, tomllib.loads((HERE / "known.toml").read_text()).get("known", []))
    failures = [failure for result in results for failure in result.failures]
    open_ = [failure for failure in failures if not failure.why]
    total = sum(result.checks for result in results)
    summary = f"{total} checks: {total - len(failures)} hold; {len(failures) - len(open_)} fail for a known reason; {len(open_)} are not explained."
    page = ["# TorchServe's Postman collections, put to Lantern", "", summary, "", *table(results)]
    page += section("Not explained", open_)
    for why in dict.fromkeys(failure.why for failure in failures if failure.why):
        page += section(why, [failure for failure in failures if failure.why == why])
    page += ["", "## Explanations that nothing needs", "", *map(stale, unused)] if unused else []
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(page) + "\n")
    print("\n".join([f"{out}: {summary}", *map(line, open_), *(f"explains nothing: {stale(entry)}" for entry in unused)]))
    return 1 if open_ else 0


def table(results: list[Result]) -> list[str]:
    """A row for each collection."""
    rows = ["| collection | requests | checks | hold | known to fail | not explained |", "|---|---|---|---|---|---|"]
    for result in results:
        known = sum(bool(failure.why) for failure in result.failures)
        failed = len(result.failures)
        rows.append(f"| {result.suite} | {result.requests} | {result.checks} | {result.checks - failed} | {known} | {failed - known} |")
    return rows


def section(title: str, failures: list[Failure]) -> list[str]:
    return ["", f"## {title}", "", *map(line, failures)] if failures else []


def line(failure: Failure) -> str:
    """One line of a list."""
    return f"- {failure.suite}, {failure.item}: `{failure.request}`, {short(failure.check)}. Answer: `{failure.answer}`"


def stale(entry: dict) -> str:
    return f"- {entry['collections']}, {entry['item']}: {entry['why']}"
