#!/usr/bin/env python3
"""Puts the same requests to TorchServe 0.12 and to Lantern, and says where the answers differ.

    compare.py --lantern PROGRAM --guests DIR --venv DIR --out REPORT.md

cases.py has the requests, expected.toml the differences that are meant, each with its reason. What differs without one makes the
run fail. What no two servers can have in common (ids, times, process numbers, ports, sizes) is masked first. Needs Java and
`peer.py setup`. Standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT / "benches/peers")]

import cases  # noqa: E402
import peer  # noqa: E402

STARTED_WITHIN = 120  # seconds
HEADERS = ["content-type", "connection", "pragma", "cache-control", "expires", "content-length", "transfer-encoding",
           "access-control-allow-origin"]  # fmt: skip
VOLATILE = {"pid", "memoryUsage", "startTime", "id", "gpuUsage", "runtime", "maxHeap"}


# --- the servers -------------------------------------------------------------------------------------------------


class Server:
    """One of the two, in a folder of its own; ended with its whole process group."""

    def __init__(self, name: str, command: list[str], folder: Path, ports: dict[str, int], env: dict[str, str]) -> None:
        self.name, self.folder, self.ports = name, folder, ports
        self.output = folder / "output.log"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=os.environ | env, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def wait_until_started(self) -> None:
        """Until the line is printed that TorchServe's own tests wait for."""
        deadline = time.monotonic() + STARTED_WITHIN
        while b"Model server started." not in self.output.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{self.name} did not start:\n{self.output.read_text(errors='replace')[-4000:]}")
            time.sleep(0.1)

    def wait_until_ready(self, model: str) -> None:
        """Until every worker of the model's default version is READY."""
        deadline = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['management']}/models/{model}", timeout=10) as answer:
                described = json.load(answer)[0]
            if len(described["workers"]) >= described["minWorkers"] and all(w["status"] == "READY" for w in described["workers"]):
                return
            time.sleep(0.2)
        sys.exit(f"{self.name}: the workers of {model} are not READY")

    def stop(self) -> None:
        """Asks, waits, and makes sure."""
        pid = self.folder / ".model_server.pid"
        try:
            os.kill(int(pid.read_text()) if pid.is_file() else self.process.pid, signal.SIGTERM)
            self.process.wait(20)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def settings(folder: Path, ports: dict[str, int], store: Path, guarded: bool) -> Path:
    """One `config.properties` for both."""
    lines = [f"{name}_address=http://127.0.0.1:{ports[name]}" for name in ("inference", "management", "metrics")]
    lines += [f"{name}_port={ports[name]}" for name in ("grpc_inference", "grpc_management")]
    lines += [f"initial_worker_port={ports['worker']}", f"model_store={store}", "metrics_mode=prometheus", "decode_input_request=false"]
    lines += ["default_response_timeout=120", "metric_time_interval=3600"]
    if not guarded:
        lines += ["disable_token_authorization=true", "enable_model_api=true"]
    path = folder / "config.properties"
    path.write_text("\n".join(lines) + "\n")
    return path


def start(name: str, args: argparse.Namespace, folder: Path, guarded: bool) -> Server:
    """Starts one server on ports of its own with a store of its own."""
    folder.mkdir(parents=True)
    ports = dict(zip(peer.PORTS, peer.free_ports(len(peer.PORTS))))
    store = folder / "store"
    pack(name, args, store)
    config = settings(folder, ports, store, guarded)
    env = {"TEMP": str(folder), "TMPDIR": str(folder), "LOG_LOCATION": str(folder / "logs"), "METRICS_LOCATION": str(folder / "logs")}
    flags = ["--ncs", "--ts-config", str(config), "--model-store", str(store)]
    if name == "lantern":
        command = [str(args.lantern), "serve", *flags]
    else:
        bin_folder = args.venv.resolve() / "bin"
        env["PATH"] = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
        command = [str(bin_folder / "torchserve"), "--start", "--foreground", *flags]
    return Server(name, command, folder, ports, env)


def pack(name: str, args: argparse.Namespace, store: Path) -> None:
    """`echo` in two versions, and a file that is no archive."""
    store.mkdir()
    if name == "lantern":
        program, handler = [str(args.lantern), "archive"], args.guests / "echo.wasm"
    else:
        program, handler = [str(args.venv / "bin/torch-model-archiver")], HERE / "handlers/echo.py"
    # The file is named after the model, so the second version is packed first and makes room.
    for version, file in (("2.0", "echo_v2.mar"), ("1.0", "echo.mar")):
        command = [*program, "--model-name", "echo", "--version", version, "--handler", str(handler), "--export-path", str(store)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (store / "echo.mar").rename(store / file)
    (store / "junk.mar").write_bytes(b"this is no zip")


# --- asking and masking ------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What came back, as far as two servers can agree."""

    status: str
    headers: dict[str, str]
    body: object


def ask(server: Server, case: cases.Case, keys: dict[str, str]) -> Answer:
    """Sends one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ports[case.listener], timeout=90)
    headers = {name: key_in(value, keys) for name, value in case.headers.items()}
    try:
        connection.putrequest(case.method, case.target, skip_accept_encoding=True)
        for name, value in (headers | {"content-length": str(len(case.body))}).items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            connection.send(case.body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The answer may be there all the same: 413 is sent before the body is read.
        answer = connection.getresponse()
        found = {name: answer.headers[name] for name in HEADERS if answer.headers[name] is not None}
        found["x-request-id"] = "present" if answer.headers["x-request-id"] else "absent"
        body = b"" if case.method == "HEAD" else answer.read()
        return Answer(str(answer.status), found, masked(body, answer.headers.get("content-type") or ""))
    except (OSError, http.client.HTTPException) as error:
        return Answer(type(error).__name__, {}, None)
    finally:
        connection.close()


def key_in(value: str, keys: dict[str, str]) -> str:
    """`KEY:inference` becomes this server's inference key."""
    return re.sub(r"(KEY|OLD):\w+", lambda match: keys.get(match[0], match[0]), value)


def masked(body: bytes, media_type: str) -> object:
    """The body less what changes from run to run."""
    if media_type.startswith("text/plain; version"):
        return families(body.decode())
    if not media_type.startswith("application/json"):
        return body.decode(errors="replace") if len(body) < 4096 else f"{len(body)} bytes"
    try:
        value = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    return operations(value) if isinstance(value, dict) and "openapi" in value else scrub(value)


def scrub(value: object) -> object:
    """Masks members whose values no two servers share."""
    if isinstance(value, dict):
        return {key: "*" if key in VOLATILE else scrub(member) for key, member in value.items()}
    return [scrub(member) for member in value] if isinstance(value, list) else value


def families(text: str) -> dict[str, object]:
    """Type and label names of each family of a scrape."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    labels = {name: re.findall(r"(\w+)=", found) for name, found in re.findall(r"^(\w+)\{(.*)\} ", text, re.M)}
    return {name: [kind, labels.get(name, [])] for name, kind in sorted(kinds.items())}


def operations(document: dict) -> dict[str, object]:
    """Each operation of an OpenAPI document: its parameters and answers."""
    found = {}
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            names = [parameter["name"] for parameter in operation.get("parameters", [])]
            found[f"{verb} {path}"] = [operation.get("operationId"), sorted(names), sorted(operation["responses"])]
    return found


# --- comparing ---------------------------------------------------------------------------------------------------


def differences(ours: Answer, theirs: Answer) -> list[str]:
    """What differs, a line each: `what: theirs → ours`."""
    if ours.status != theirs.status:
        return [f"status: {theirs.status} {short(theirs.body)} → {ours.status} {short(ours.body)}"]
    found = []
    for name in sorted(set(ours.headers) | set(theirs.headers)):
        if name == "content-length" and (ours.body != theirs.body or "version=0.0.4" in ours.headers.get("content-type", "")):
            continue  # Of bodies that differ, and of figures, nobody expects one length.
        if ours.headers.get(name) != theirs.headers.get(name):
            found.append(f"{name}: {theirs.headers.get(name)} → {ours.headers.get(name)}")
    return found + body_differences("body", ours.body, theirs.body)


def body_differences(where: str, ours: object, theirs: object) -> list[str]:
    """Member by member, where both are objects or lists of one length."""
    if ours == theirs:
        return []
    if isinstance(ours, dict) and isinstance(theirs, dict):
        absent = object()
        pairs = ((key, ours.get(key, absent), theirs.get(key, absent)) for key in sorted(set(ours) | set(theirs), key=str))
        return [line for key, one, other in pairs for line in member(f"{where}.{key}", one, other, absent)]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [line for index, (one, other) in enumerate(zip(ours, theirs)) for line in body_differences(f"{where}[{index}]", one, other)]
    return [f"{where}: {short(theirs)} → {short(ours)}"]


def member(where: str, ours: object, theirs: object, absent: object) -> list[str]:
    """A member that one of two objects may lack."""
    if theirs is absent:
        return [f"{where}: only Lantern: {short(ours)}"]
    return [f"{where}: only TorchServe: {short(theirs)}"] if ours is absent else body_differences(where, ours, theirs)


def short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else text[:200] + "…"


def explained(case: str, line: str, expected: list[dict]) -> str:
    """Why a difference is meant; empty if nobody said so."""
    for entry in expected:
        if re.fullmatch(entry.get("cases", ".*"), case) and re.search(entry["difference"], line):
            entry["used"] = True
            return entry["why"]
    return ""


def read_keys(server: Server, kept: dict[str, str]) -> dict[str, str]:
    """The keys in the server's key file; those of the last reading become `OLD`."""
    path = server.folder / "key_file.json"
    if not path.is_file():
        return kept
    found = {f"KEY:{name}": entry["key"] for name, entry in json.loads(path.read_text()).items()}
    old = {name.replace("KEY", "OLD"): value for name, value in kept.items() if name.startswith("KEY") and found.get(name) != value}
    return kept | old | found


def run(suite: list[cases.Case], args: argparse.Namespace, folder: Path, guarded: bool) -> list[tuple[cases.Case, list[str]]]:
    """Every case put to both servers, and what differed."""
    servers = [start(name, args, folder / name, guarded) for name in ("torchserve", "lantern")]
    keys: list[dict[str, str]] = [{}, {}]
    try:
        for server in servers:
            server.wait_until_started()
        compared = []
        for number, case in enumerate(suite, 1):
            keys = [read_keys(server, kept) for server, kept in zip(servers, keys)]
            if case.wait:
                for server in servers:
                    server.wait_until_ready(case.wait)
            theirs, ours = (ask(server, case, known) for server, known in zip(servers, keys))
            compared.append((case, differences(ours, theirs)))
            if number % 50 == 0 or number == len(suite):
                print(f"{number} of {len(suite)} requests", file=sys.stderr, flush=True)
        return compared
    finally:
        for server in servers:
            server.stop()


def write(compared: list[tuple[cases.Case, list[str]]], expected: list[dict], out: Path) -> int:
    """The report; how many differences nobody explained."""
    equal, meant, open_ = [], {}, []
    for case, lines in compared:
        if not lines:
            equal.append(case)
        for line in lines:
            why = explained(case.id, line, expected)
            target = f"`{case.id}` {case.method} {case.target}: {line}"
            meant.setdefault(why, []).append(target) if why else open_.append(target)
    report = ["# The same requests to TorchServe 0.12 and to Lantern", "", f"{len(compared)} requests: {len(equal)} answered alike; "
              f"{sum(map(len, meant.values()))} differences are meant; {len(open_)} are not explained."]  # fmt: skip
    if open_:
        report += ["", "## Not explained", "", *(f"- {line}" for line in open_)]
    for why, lines in meant.items():
        report += ["", f"## {why}", "", *(f"- {line}" for line in lines)]
    report += ["", "## Alike", "", *(f"- `{case.id}` {case.method} {case.target}" for case in equal)]
    unused = [entry["why"] for entry in expected if not entry.get("used")]
    if unused:
        report += ["", "## Explanations that nothing needs", "", *(f"- {why}" for why in unused)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(report) + "\n")
    print(f"{out}: {report[2]}")
    return len(open_)


def main() -> int:
    """Runs both suites; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--lantern", "--guests", "--venv", "--out"):
        parser.add_argument(option, type=Path, required=True)
    args = parser.parse_args()
    args.lantern, args.guests, args.venv = args.lantern.resolve(), args.guests.resolve(), args.venv.resolve()
    peer.need_java()
    expected = tomllib.loads((HERE / "expected.toml").read_text()).get("difference", [])
    with tempfile.TemporaryDirectory(prefix="differential-") as name:
        compared = run(cases.LIFE_CYCLE, args, Path(name) / "open", guarded=False)
        compared += run(cases.GUARDED, args, Path(name) / "guarded", guarded=True)
    return 1 if write(compared, expected, args.out) else 0


if __name__ == "__main__":
    sys.exit(main())
