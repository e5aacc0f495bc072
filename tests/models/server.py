"""A server of this build, and models in it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from cases import Case
from reference import library
from transport import Refused, Rest

LISTENERS = ("inference", "management", "gRPC inference")
STARTED_WITHIN = 60  # seconds
LOGGED_WITHIN = 2  # seconds
STORE, LOG = "store", "server.log"
HANDLER = "passthrough.wasm"
SETTINGS = """
inference_address=http://127.0.0.1:0
management_address=http://127.0.0.1:0
metrics_address=http://127.0.0.1:0
grpc_inference_port=0
grpc_management_port=0
enable_model_api=true
disable_token_authorization=true
default_response_timeout=60
max_request_size=100000000
max_response_size=100000000
lantern_log_files=false
"""


class Server:
    """Where it listens, and what is in its store."""

    def __init__(self, addresses: dict[str, str], folder: Path, handler: bytes) -> None:
        self.addresses, self.store, self.log, self.handler = addresses, folder / STORE, folder / LOG, handler

    @contextlib.contextmanager
    def serving(self, case: Case, config: str, management: Rest) -> Iterator[str]:
        """The name of a case's model, which is registered meanwhile. Raises `Refused` where the server does not take it."""
        archive = self.store / f"{case.id}.mar"
        pack(archive, case, config, self.handler)
        try:
            self.register(archive.name, management)
            yield case.id
            management.send("DELETE", f"/models/{case.id}")
        finally:
            archive.unlink()

    def register(self, archive: str, management: Rest) -> None:
        """A refusal has what the operator is told, too: clients are told one line of why a file does not load."""
        query = urlencode({"url": archive, "initial_workers": 1, "synchronous": "true"})
        try:
            management.send("POST", f"/models?{query}")
        except Refused as refusal:
            raise Refused(refusal.status, self.told(archive) or refusal.text) from refusal

    def told(self, archive: str) -> str:
        """Why an archive does not load, from the log, which is written a little later."""
        until = time.monotonic() + LOGGED_WITHIN
        while time.monotonic() < until:
            found = re.search(rf"Failed to load model: {re.escape(archive)}: (.*) model=", plain(self.log))
            if found:
                return found[1]
            time.sleep(0.05)
        return ""


def pack(path: Path, case: Case, config: str, handler: bytes) -> None:
    """An archive as `lantern archive` makes them, without a process for each."""
    names = {"handler": HANDLER, "serializedFile": case.file, "configFile": "model-config.yaml"}
    manifest = {"runtime": "wasm", "model": {"modelName": case.id, "modelVersion": "1.0", **names}}
    contents = dict(zip(names.values(), (handler, case.model, config)))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (contents | {"MAR-INF/MANIFEST.json": json.dumps(manifest)}).items():
            archive.writestr(name, content)


@contextlib.contextmanager
def started(lantern: Path, handler: Path, folder: Path, hosting: str) -> Iterator[Server]:
    """A server without models, on free ports, in a folder of its own."""
    (folder / STORE).mkdir(parents=True)
    settings = folder / "config.properties"
    settings.write_text(f"{SETTINGS}lantern_hosting={hosting}\nlantern_onnxruntime={library()}\n")
    command = [lantern, "serve", "--ts-config", settings, "--model-store", folder / STORE, "--no-config-snapshots"]
    log = folder / LOG
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=folder)
        try:
            yield Server(listening(process, log), folder, handler.read_bytes())
        finally:
            process.terminate()
            process.wait(timeout=60)
    panics = [line for line in plain(log).splitlines() if "panicked" in line]
    if panics:
        raise SystemExit("\n".join(["the server panicked:", *panics]))


def listening(process: subprocess.Popen, log: Path) -> dict[str, str]:
    """Addresses, once every listener has one."""
    until = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < until and process.poll() is None:
        found = dict(re.findall(r"((?:gRPC )?\w+) API listens on (?:http://)?([\d.:]+)", plain(log)))
        if set(LISTENERS) <= set(found):
            return found
        time.sleep(0.1)
    raise SystemExit(f"the server did not start:\n{plain(log)}")


def plain(log: Path) -> str:
    """A log without colors."""
    return re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
