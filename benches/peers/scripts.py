#!/usr/bin/env python3
"""The peers whose server is a script: mosec, LitServe and BentoML. Sets them up, starts and stops them.

    scripts.py setup --runtime DIR --venvs DIR
    scripts.py serve --venvs DIR --peer mosec --model linear ...

Owns: what these three have in common. What each does is in its folder: requirements.txt and serve.py. Does not know: loads, figures,
or Lantern. README.md has the contract. Standard library only, since it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import peer

HERE = Path(__file__).resolve().parent
X = {"x": [round(0.1 * index, 1) for index in range(1, 17)]}
PICTURE = peer.ROOT / "examples/digits/samples/seven.jpg"
BOUNDARY = "peers"
CORES = os.cpu_count() or 1

# What is configured beside the size of batches, as the table shows it.
PEERS = {
    "mosec": {"linear": "1 worker", "digits": f"{CORES} decoders, 1 worker"},
    "litserve": dict.fromkeys(("linear", "digits"), f"{CORES} workers, {CORES} API servers, fast_queue"),
    "bentoml": dict.fromkeys(("linear", "digits"), f"{CORES} workers, adaptive batching"),
}


def fail(message: str) -> None:
    """Ends with a message that says what to do."""
    sys.exit(f"scripts.py: {message}")


def setup(args: argparse.Namespace) -> None:
    """A virtual environment for each, which borrows torch (some 5 GB) from `--runtime`."""
    for name in PEERS:
        venv, wanted = args.venvs / name, HERE / name / "requirements.txt"
        peer.environment(args.runtime, venv, wanted, name)


# --- requests ----------------------------------------------------------------------------------------------------


def request(name: str, model: str) -> tuple[str, str, bytes]:
    """Path, media type and body, as the peer takes them."""
    picture = PICTURE.read_bytes()
    path = "/inference" if name == "mosec" else "/predict"
    match name, model:
        case "bentoml", "linear":
            return path, "application/json", json.dumps({"x": [X["x"]]}).encode()
        case _, "linear":
            return path, "application/json", json.dumps(X).encode()
        case "mosec", _:
            return path, "image/jpeg", picture
        case "litserve", _:
            return path, "application/json", json.dumps({"image": base64.b64encode(picture).decode()}).encode()
        case _:
            return path, f"multipart/form-data; boundary={BOUNDARY}", multipart(picture)


def multipart(picture: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def answer(port: int, asked: tuple[str, str, bytes]) -> str | None:
    """What the server answers with 200; `None` as long as it does not."""
    path, media, body = asked
    asking = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, headers={"Content-Type": media})
    try:
        with urllib.request.urlopen(asking, timeout=10) as answered:
            return answered.read().decode()
    except (urllib.error.URLError, OSError):
        return None


# --- serving -----------------------------------------------------------------------------------------------------


def command(args: argparse.Namespace, port: int) -> list[str]:
    binaries, script = args.venvs.resolve() / args.peer / "bin", HERE / args.peer / "serve.py"
    match args.peer:
        case "mosec":
            return [f"{binaries}/python", str(script), "--port", str(port), "--address", "127.0.0.1", "--capacity", "10000", "--log-level", "warning"]
        case "litserve":
            return [f"{binaries}/python", str(script), "--port", str(port)]
        case _:
            return [f"{binaries}/bentoml", "serve", "serve:Service", "--working-dir", str(script.parent), "--host", "127.0.0.1", "--port", str(port)]


def start(args: argparse.Namespace, folder: Path, port: int) -> subprocess.Popen:
    """Starts the server in a session of its own."""
    ours = {"PEER_MODEL": args.model, "PEER_BATCH_SIZE": str(args.batch_size), "PEER_BATCH_DELAY": str(args.max_batch_delay),
            "OMP_NUM_THREADS": "1", "TMPDIR": str(folder), "BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}  # fmt: skip
    output = (folder / "output.log").open("wb")
    return subprocess.Popen(command(args, port), cwd=folder, env=os.environ | ours, stdout=output, stderr=output,
                            stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip


def wait_until_ready(args: argparse.Namespace, server: subprocess.Popen, port: int, folder: Path) -> str:
    """The first answer."""
    deadline, asked = time.monotonic() + peer.READY_WITHIN, request(args.peer, args.model)
    while time.monotonic() < deadline:
        if server.poll() is not None:
            fail(f"{args.peer} ended with {server.returncode}:\n{peer.tail(folder)}")
        if (answered := answer(port, asked)) is not None:
            return answered
        time.sleep(0.05)
    fail(f"{args.peer} did not answer within {peer.READY_WITHIN} s:\n{peer.tail(folder)}")


def check(model: str, answered: str) -> None:
    """Fails if that is not what the model answers."""
    document = json.loads(answered)
    document = document[0] if isinstance(document, list) else document
    is_right = len(document.get("y", [])) == 4 if model == "linear" else max(document, key=document.get) == "7"
    if not is_right:
        fail(f"an unexpected answer: {answered[:200]}")


def descendants(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += descendants(int(child))
    return found


def stop(server: subprocess.Popen) -> None:
    """Asks the server to end; what is left of its session is killed."""
    pids = descendants(server.pid)
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(peer.STOP_WITHIN)
    except subprocess.TimeoutExpired:
        peer.say("the server did not stop when asked")
    for kill, number in [(os.killpg, server.pid), *((os.kill, pid) for pid in pids)]:
        try:
            kill(number, signal.SIGKILL)
        except ProcessLookupError:
            pass
    server.wait()


def version(args: argparse.Namespace) -> str:
    lines = (HERE / args.peer / "requirements.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{args.peer}=="))


def serve(args: argparse.Namespace) -> None:
    """Serves until stdin closes, SIGTERM or SIGINT. Prints one line of JSON when ready."""
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as name:
        folder, [port], started = Path(name), peer.free_ports(1), time.monotonic()
        server = start(args, folder, port)
        try:
            check(args.model, wait_until_ready(args, server, port, folder))
            path, media, body = request(args.peer, args.model)
            ready = {"ready_ms": round((time.monotonic() - started) * 1000), "pids": descendants(server.pid), "ports": {"inference": port},
                     "version": version(args), "settings": PEERS[args.peer][args.model],
                     "request": {"path": path, "content_type": media, "body": body.hex()}}  # fmt: skip
            print(json.dumps(ready), flush=True)
            peer.wait_for_the_end(server, folder)
        finally:
            stop(server)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True)
    setting_up = commands.add_parser("setup", help=setup.__doc__)
    setting_up.set_defaults(run=setup)
    setting_up.add_argument("--runtime", type=Path, required=True)
    serving = commands.add_parser("serve", help=serve.__doc__)
    serving.set_defaults(run=serve)
    serving.add_argument("--peer", choices=sorted(PEERS), required=True)
    serving.add_argument("--model", choices=["digits", "linear"], required=True)
    serving.add_argument("--batch-size", type=peer.positive, default=32)
    serving.add_argument("--max-batch-delay", type=peer.positive, default=1, help="ms, where the peer has one")
    for each in (setting_up, serving):
        each.add_argument("--venvs", type=Path, required=True)
    return top


if __name__ == "__main__":
    arguments = parser().parse_args()
    arguments.run(arguments)
