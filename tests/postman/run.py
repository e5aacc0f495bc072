#!/usr/bin/env python3
"""Runs TorchServe's own Postman collections against Lantern, and says which of their checks fail.

    run.py --lantern PROGRAM --handler STAND_IN.wasm --newman PACKAGE --collections CHECKOUT --out REPORT.md

CHECKOUT is a checkout of TorchServe, or as much of one as `test/postman`, `test/resources` and the request bodies that the
collections name. suites.py says which collections there are, archives.py what stands for TorchServe's archives, known.toml why
checks fail that are known to. What fails for no known reason makes the run fail. Standard library and newman only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import archives
import report
from suites import SUITES, Suite

LISTENERS = ("inference", "management", "metrics")
PORTS = {"inference": ("pred-port", "sec-pred-port"), "management": ("mgmt-port", "sec-mgmt-port"),
         "metrics": ("metric-port", "sec-metric-port")}  # fmt: skip
FIXED_HOST, FIXED_PORT = "localhost", "8082"  # of the metrics, for which the collections use no variable
STARTED_WITHIN = 60  # seconds
ENDED_WITHIN = 60  # seconds
RUN_WITHIN = 600  # seconds, for one collection
NAMED = 3  # files that are missing
# Newman's own program ends when its connections do, which may be as late as the server closes idle ones.
NEWMAN = """
const [, newman, options] = process.argv;
require(newman).run(JSON.parse(options), (error) => {
    if (error) console.error(error);
    process.exit(error ? 1 : 0);
});
"""


# --- what the server needs ---------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Address of a web server, in place of TorchServe's, that has the files of a folder meanwhile."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def fill_stores(suite: Suite, args: argparse.Namespace, work: Path) -> None:
    """The archives: all of them for the web server, and in the model store those that collections name without a host."""
    local = archives.local_names(args.collections / "test/postman/environment.json")
    public, store = work / "web/mar_files", work / "store"
    public.mkdir(parents=True)
    store.mkdir()
    packer = archives.Packer(args.lantern, args.handler)
    for name, answer in archives.answers(suite, args.collections, local).items():
        packer.pack(name, answer, public)
        if name in local.values():
            (store / name).hardlink_to(public / name)


def write_config(suite: Suite, args: argparse.Namespace, work: Path, web: str) -> Path:
    """TorchServe's settings for this collection, with ports that the system chooses and archives from the web server here."""
    lines = suite.config(args.collections)
    lines += [f"{listener}_address={suite.scheme}://127.0.0.1:0" for listener in LISTENERS]
    lines += ["grpc_inference_port=0", "grpc_management_port=0", f"allowed_urls={web}/", "lantern_private_hosts=127.0.0.1"]
    # Paths of certificates in TorchServe's settings start from `test`.
    (work / "resources").symlink_to(args.collections / "test/resources")
    path = work / "config.properties"
    path.write_text("\n".join(lines) + "\n")
    return path


@contextlib.contextmanager
def serving(args: argparse.Namespace, config: Path, work: Path) -> Iterator[dict[str, str]]:
    """Ports of the listeners of a server that runs meanwhile."""
    command = [args.lantern, "serve", "--ncs", "--ts-config", config, "--model-store", work / "store"]
    places = {"LOG_LOCATION": str(work / "logs"), "METRICS_LOCATION": str(work / "logs"), "TEMP": str(work)}
    log = work / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=work, env=os.environ | places)
        try:
            yield wait(server, log)
        finally:
            server.terminate()
            server.wait(timeout=ENDED_WITHIN)
    panics = [line for line in plain(log).splitlines() if "panicked" in line]
    if panics:
        sys.exit("\n".join(["the server panicked:", *panics]))


def wait(server: subprocess.Popen, log: Path) -> dict[str, str]:
    """The ports, once the server listens."""
    until = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < until and server.poll() is None:
        ports = dict(re.findall(r"(?<!gRPC )\b(\w+) API listens on https?://[\d.]+:(\d+)", plain(log)))
        if set(LISTENERS) <= set(ports):
            return ports
        time.sleep(0.1)
    raise NotStarted(plain(log))


class NotStarted(Exception):
    """The server did not start, with its log."""


def plain(log: Path) -> str:
    """A log without colors."""
    return re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))


# --- newman ------------------------------------------------------------------------------------------------------


def run(suite: Suite, args: argparse.Namespace, work: Path) -> report.Result:
    """One collection, put to a server of its own. If that refuses TorchServe's certificate, it makes one."""
    began = time.monotonic()
    result = report.Result(suite.name)
    fill_stores(suite, args, work)
    with web_server(work / "web") as web:
        config = write_config(suite, args, work, web)
        try:
            ask(suite, args, work, config, web)
        except NotStarted as error:
            result.add(report.not_started(suite.name, str(error)))
            drop_certificate(config)
            ask(suite, args, work, config, web)
    result.add(report.read(suite.name, work / "newman.json", suite.rows(args.collections)))
    print(f"{result.line()} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    return result


def ask(suite: Suite, args: argparse.Namespace, work: Path, config: Path, web: str) -> None:
    """Every request of a collection to a server with these settings. Raises `NotStarted`."""
    with serving(args, config, work) as ports:
        run_newman(suite, args, work, ports, web)


def drop_certificate(config: Path) -> None:
    """Without the certificate's settings the server makes a certificate of its own."""
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith(("private_key_file=", "certificate_file="))))


def run_newman(suite: Suite, args: argparse.Namespace, work: Path, ports: dict[str, str], web: str) -> None:
    """Leaves `newman.json`. Bodies are read from where TorchServe's runner reads them."""
    postman = args.collections / "test/postman"
    variables = {"hostname": "127.0.0.1"} | {name: ports[listener] for listener, names in PORTS.items() for name in names}
    found = work / "newman.json"
    options = {
        "collection": rewritten(postman / suite.collection, work, ports, web),
        "environment": postman / "environment.json",
        "envVar": [{"key": key, "value": value} for key, value in variables.items()],
        "workingDir": args.collections / "test",
        "insecure": True,
        "reporters": ["json"],
        "reporter": {"json": {"export": found}},
    }
    if suite.data:
        options["iterationData"] = rewritten(postman / suite.data, work, ports, web)
    command = ["node", "--eval", NEWMAN, args.newman, json.dumps(options, default=str)]
    done = subprocess.run(command, timeout=RUN_WITHIN, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode or not found.is_file():
        sys.exit(f"newman did not run {suite.name}:\n{done.stdout}{done.stderr}")


def rewritten(file: Path, work: Path, ports: dict[str, str], web: str) -> Path:
    """A copy that asks the servers here where TorchServe's names a public host or a fixed port."""
    text = archives.HOST.sub(web, file.read_text())
    copy = work / file.name
    copy.write_text(text.replace(f'"{FIXED_HOST}"', '"127.0.0.1"').replace(f'"{FIXED_PORT}"', f'"{ports["metrics"]}"'))
    return copy


# --- the run -----------------------------------------------------------------------------------------------------


def missing(checkout: Path) -> list[str]:
    """Files that the collections need and the checkout lacks."""
    needed = {"test/postman/environment.json"}
    for suite in SUITES:
        needed |= {f"test/postman/{name}" for name in (suite.collection, suite.data) if name}
        needed |= {f"test/resources/{suite.resource}"} if suite.resource else set()
    if lacking := [name for name in sorted(needed) if not (checkout / name).is_file()]:
        return lacking
    texts = [(checkout / name).read_text() for name in needed if name.startswith("test/postman")]
    bodies = {body for text in texts for body in re.findall(r'"(?:file|src)": ?"\.\./([^"{}]+)"', text)}
    return [body for body in sorted(bodies) if not (checkout / body).is_file()]


def main() -> int:
    """Status of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--lantern", "--handler", "--newman", "--collections", "--out"):
        parser.add_argument(option, type=lambda name: Path(name).resolve(), required=True)
    parser.add_argument("--only", default=".*", help="a regular expression: the collections to run, by their names in suites.py")
    args = parser.parse_args()
    if lacking := missing(args.collections):
        more = f" and {len(lacking) - NAMED} other files" if len(lacking) > NAMED else ""
        sys.exit(f"{args.collections} is no checkout of TorchServe 0.12 (https://github.com/pytorch/serve): no {', '.join(lacking[:NAMED])}{more}")
    chosen = [suite for suite in SUITES if re.fullmatch(args.only, suite.name)]
    with tempfile.TemporaryDirectory(prefix="postman-") as folder:
        results = []
        for suite in chosen:
            work = Path(folder) / suite.name
            work.mkdir()
            results.append(run(suite, args, work))
    return report.write(results, args.out)


if __name__ == "__main__":
    sys.exit(main())
