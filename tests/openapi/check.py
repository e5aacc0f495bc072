#!/usr/bin/env python3
"""Asks a running server what its OpenAPI documents promise.

    check.py --lantern PROGRAM --handler ECHO.wasm

Starts the server with one example model on free ports, validates every document that it gives (each listener's and each
model's), and lets schemathesis send requests made from them to all three listeners. Ends with status 1 on a document that
is not valid, an answer that its document does not have, or a 5xx that is not documented. Needs requirements.txt. Does not
know what the right answers are: the integration tests do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from openapi_spec_validator import validate

HERE = Path(__file__).resolve().parent
LISTENERS = ("inference", "management", "metrics")
MODEL = "echo"
# A model that exists is asked by these alone: the others would take it away, or give it more workers than fit.
EXISTING = r"predict|infer|invo|explain|describeModel|modelDescription|setDefault"
START_SECONDS = 30
RUN_SECONDS = 120


def main() -> int:
    """Status of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lantern", required=True, type=Path)
    parser.add_argument("--handler", required=True, type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        pack(arguments.lantern, arguments.handler, work)
        with serving(arguments.lantern, work) as addresses:
            documents = {listener: document(address, "/") for listener, address in addresses.items()}
            check_documents(documents, addresses)
            failed = [name for name in LISTENERS if not fuzz(name, documents[name], addresses[name], work)]
            still = ask(addresses["inference"] + "/ping", "GET")
    if failed:
        print(f"==> not as documented: {', '.join(failed)}")
    if still.get("status") != "Healthy":
        print(f"==> the server is not well afterwards: {still}")
    return int(bool(failed) or still.get("status") != "Healthy")


def pack(lantern: Path, handler: Path, work: Path) -> None:
    """Makes the model store."""
    store = work / "store"
    store.mkdir()
    command = [lantern, "archive", "--model-name", MODEL, "--version", "1.0", "--handler", handler, "--export-path", store]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def serving(lantern: Path, work: Path) -> Iterator[dict[str, str]]:
    """Addresses of the listeners of a server that runs meanwhile."""
    settings = work / "config.properties"
    addresses = "".join(f"{listener}_address=http://127.0.0.1:0\n" for listener in LISTENERS)
    settings.write_text(addresses + "enable_model_api=true\ndisable_token_authorization=true\n")
    command = [lantern, "serve", "--ts-config", settings, "--model-store", work / "store", "--models", f"{MODEL}.mar"]
    log = work / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=work)
        try:
            yield wait(server, log)
        finally:
            server.terminate()
            server.wait(timeout=60)
    panics = [line for line in log.read_text().splitlines() if "panicked" in line]
    if panics:
        sys.exit("\n".join(["the server panicked:", *panics]))


def wait(server: subprocess.Popen, log: Path) -> dict[str, str]:
    """The addresses, once the server listens and has its model."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text())
        found = re.findall(r"(?<!gRPC )\b(\w+) API listens on (http://[\d.:]+)", text)
        if {name for name, _ in found} >= set(LISTENERS) and "models loaded in" in text:
            return {name: address for name, address in found if name in LISTENERS}
        time.sleep(0.1)
    sys.exit(f"the server did not start:\n{log.read_text()}")


def ask(url: str, method: str) -> dict:
    """JSON from the server."""
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as response:
        return json.load(response)


def document(address: str, path: str) -> dict:
    """The document of a path."""
    return ask(address + path, "OPTIONS")


def check_documents(documents: dict[str, dict], addresses: dict[str, str]) -> None:
    """Validates every document there is."""
    of_model = {
        "predictions of a model": document(addresses["inference"], f"/predictions/{MODEL}"),
        "management of a model": document(addresses["management"], f"/models/{MODEL}"),
    }
    for name, one in {**documents, **of_model}.items():
        validate(one)
        operations = sum(len(item) for item in one["paths"].values())
        print(f"==> {name}: a valid document, {operations} operations")


def fuzz(name: str, described: dict, address: str, work: Path) -> bool:
    """Whether a listener answers as its document says: to names that are made up, and to the model's own."""
    schema = work / f"{name}.json"
    schema.write_text(json.dumps(described))
    base = (HERE / "schemathesis.toml").read_text()
    existing = f'[parameters]\n"path.model_name" = "{MODEL}"\n"path.model_version" = "1.0"\n'
    passed = True
    if name != "metrics":
        only = ["--include-operation-id-regex", EXISTING]
        passed &= run(f"{name} of {MODEL}", schema, address, f"{base}\n{existing}", only)
    # Afterwards: it learns the model's name from answers, and removes it.
    return run(name, schema, address, base, []) and passed


def run(name: str, schema: Path, address: str, config: str, options: list[str]) -> bool:
    """Whether one run of schemathesis found nothing."""
    settings = schema.with_name("schemathesis.toml")
    settings.write_text(config)
    print(f"==> schemathesis: {name}", flush=True)
    program = Path(sys.executable).with_name("schemathesis")
    command = [program, "--config-file", settings, "run", schema, "--url", address, *options]
    try:
        return subprocess.run(command, cwd=schema.parent, timeout=RUN_SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"==> {name} took longer than {RUN_SECONDS} s")
        return False


if __name__ == "__main__":
    sys.exit(main())
