#!/usr/bin/env python3
"""The peer that Lantern is measured against: sets TorchServe up, packs its archives, starts and stops it.

    peer.py setup   --runtime DIR --venv DIR
    peer.py archive --venv DIR --store DIR
    peer.py serve   --venv DIR --store DIR --model linear ...

Owns: everything about TorchServe. Does not know: loads, figures, or Lantern. README.md has the contract. Standard library
only, since it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VERSION = "1.0"
READY_WITHIN = 180  # seconds; workers import torch, which takes long on a busy machine
STOP_WITHIN = 20  # seconds

# Weights, handler and extra files of each model.
MODELS = {
    "linear": (ROOT / "tests/fixtures/linear.pt", HERE / "handlers/linear.py", []),
    "digits": (ROOT / "examples/digits/digits.pt", HERE / "handlers/digits.py", [ROOT / "examples/digits/index_to_name.json"]),
}
PORTS = ["inference", "management", "metrics", "grpc_inference", "grpc_management", "worker"]


def fail(message: str) -> None:
    """Ends with a message that says what to do."""
    sys.exit(f"peer.py: {message}")


def say(message: str) -> None:
    """Progress, on stderr: stdout holds results alone."""
    print(f"peer: {message}", file=sys.stderr, flush=True)


# --- setup and archives ------------------------------------------------------------------------------------------


def need_java() -> None:
    """TorchServe's front end is Java."""
    java = Path(os.environ["JAVA_HOME"]) / "bin/java" if "JAVA_HOME" in os.environ else "java"
    if shutil.which(java) is None:
        fail(f"{java} is missing; TorchServe needs Java 11 or later. Install it: sudo apt-get install openjdk-17-jre-headless")


def packages(venv: Path) -> Path:
    """The one site-packages of a virtual environment."""
    found = sorted((venv / "lib").glob("python3.*/site-packages"))
    if not found:
        fail(f"{venv} holds no Python environment. Make it: make runtime")
    return found[-1].resolve()


def setup(args: argparse.Namespace) -> None:
    """A virtual environment with TorchServe that borrows torch (some 5 GB) from `--runtime`."""
    need_java()
    environment(args.runtime, args.venv, HERE / "requirements.txt", "TorchServe")


def environment(runtime: Path, venv: Path, requirements: Path, name: str) -> None:
    """A virtual environment at `venv` with what `requirements` lists. Returns at once when nothing has changed."""
    wanted, stamp = requirements.read_text(), venv / "requirements.txt"
    if stamp.is_file() and stamp.read_text() == wanted:
        return say(f"{name} is in {venv}")
    borrowed = packages(runtime / "python")
    say(f"installing {name} into {venv}")
    subprocess.run([runtime / "python/bin/python", "-m", "venv", "--clear", venv], check=True)
    # Appended to the path, so whatever the environment has itself comes first.
    (packages(venv) / "runtime.pth").write_text(f"{borrowed}\n")
    pip = [venv / "bin/python", "-m", "pip", "install", "--disable-pip-version-check", "-r", requirements]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    stamp.write_text(wanted)


def archive(args: argparse.Namespace) -> None:
    """Packs every model with TorchServe's own tool."""
    args.store.mkdir(parents=True, exist_ok=True)
    for name, (weights, handler, extra) in MODELS.items():
        command = [
            args.venv / "bin/torch-model-archiver", "--model-name", name, "--version", VERSION, "--serialized-file", weights,
            "--handler", handler, "--export-path", args.store, "--force",
        ]  # fmt: skip
        if extra:
            command += ["--extra-files", ",".join(map(str, extra))]
        subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
        say(f"packed {args.store / name}.mar")


# --- serving -----------------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def choose_ports(args: argparse.Namespace) -> dict[str, int]:
    """Those given, and free ones for the rest. `worker` is a number in the name of the workers' Unix sockets."""
    given = {"inference": args.inference_port, "management": args.management_port, "metrics": args.metrics_port}
    return {name: given.get(name) or port for name, port in zip(PORTS, free_ports(len(PORTS)))}


def properties(args: argparse.Namespace, ports: dict[str, int]) -> str:
    """`config.properties`: config.properties here, with this run's ports, models and settings."""
    entry = {
        "defaultVersion": True, "minWorkers": args.workers, "maxWorkers": args.workers, "batchSize": args.batch_size,
        "maxBatchDelay": args.max_batch_delay, "responseTimeout": 120,
    }  # fmt: skip
    models = {name: {VERSION: {"marName": f"{name}.mar"} | entry} for name in args.model}
    lines = [f"{name}_address=http://127.0.0.1:{ports[name]}" for name in ("inference", "management", "metrics")]
    lines += [f"{name}_port={ports[name]}" for name in ("grpc_inference", "grpc_management")]
    lines += [f"initial_worker_port={ports['worker']}", f"job_queue_size={args.job_queue_size}"]
    lines += [f"model_store={args.store.resolve()}", f"load_models={','.join(f'{name}.mar' for name in args.model)}"]
    return (HERE / "config.properties").read_text() + "\n".join([*lines, f"models={json.dumps(models)}"]) + "\n"


def start(args: argparse.Namespace, folder: Path, ports: dict[str, int]) -> subprocess.Popen:
    """Starts TorchServe in a session of its own; logs, sockets and the pid file stay in `folder`."""
    (folder / "config.properties").write_text(properties(args, ports))
    threads = args.threads or max(1, (os.cpu_count() or 1) // args.workers)
    path = f"{(args.venv / 'bin').resolve()}{os.pathsep}{os.environ.get('PATH', '')}"
    ours = {"TEMP": str(folder), "TMPDIR": str(folder), "LOG_LOCATION": str(folder / "logs"), "PATH": path,
            "METRICS_LOCATION": str(folder / "logs"), "OMP_NUM_THREADS": str(threads)}  # fmt: skip
    command = [args.venv.resolve() / "bin/torchserve", "--start", "--foreground", "--ncs", "--ts-config",
               folder / "config.properties", "--model-store", args.store.resolve()]  # fmt: skip
    output = (folder / "output.log").open("wb")
    return subprocess.Popen(list(map(str, command)), cwd=folder, env=os.environ | ours, stdout=output, stderr=output,
                            stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip


def describe(ports: dict[str, int], model: str) -> list[dict]:
    """The model's workers as the management API shows them; none while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['management']}/models/{model}", timeout=5) as answer:
            return json.load(answer)[0]["workers"]
    except (urllib.error.URLError, OSError, ValueError):
        return []


def wait_until_ready(args: argparse.Namespace, server: subprocess.Popen, ports: dict[str, int], folder: Path) -> list[int]:
    """The process ids of all workers, once each is READY."""
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if server.poll() is not None:
            fail(f"TorchServe ended with {server.returncode}:\n{tail(folder)}")
        workers = [worker for model in args.model for worker in describe(ports, model)]
        if len(workers) == len(args.model) * args.workers and all(worker["status"] == "READY" for worker in workers):
            return [worker["pid"] for worker in workers]
        time.sleep(0.05)
    fail(f"no {args.workers} READY workers per model within {READY_WITHIN} s:\n{tail(folder)}")


def tail(folder: Path, lines: int = 40) -> str:
    return "\n".join((folder / "output.log").read_text(errors="replace").splitlines()[-lines:])


def front_end(folder: Path) -> int:
    """The Java process, from the pid file that TorchServe's launcher writes."""
    return int((folder / ".model_server.pid").read_text())


def stop(server: subprocess.Popen, folder: Path) -> None:
    """Asks the front end to end, which ends its workers; what is left of the session is killed."""
    try:
        os.kill(front_end(folder), signal.SIGTERM)
        server.wait(STOP_WITHIN)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        say("TorchServe did not stop when asked")
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    server.wait()


def wait_for_the_end(server: subprocess.Popen, folder: Path) -> None:
    """Returns when stdin closes or a signal says so; fails if the server ends first."""
    stdin = sys.stdin.fileno()
    while server.poll() is None:
        # A terminal or a pipe: readable when there is input, and at its end.
        if select.select([stdin], [], [], 0.5)[0] and not os.read(stdin, 4096):
            return
    fail(f"the server ended by itself with {server.returncode}:\n{tail(folder)}")


def serve(args: argparse.Namespace) -> None:
    """Serves until stdin closes, SIGTERM or SIGINT. Prints one line of JSON when ready."""
    need_java()
    for name in args.model:
        if not (args.store / f"{name}.mar").is_file():
            fail(f"{args.store} holds no {name}.mar. Make it: peer.py archive --venv {args.venv} --store {args.store}")
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        folder, ports, started = Path(name), choose_ports(args), time.monotonic()
        server = start(args, folder, ports)
        try:
            workers = wait_until_ready(args, server, ports, folder)
            ready = {"ready_ms": round((time.monotonic() - started) * 1000), "front_pid": front_end(folder), "worker_pids": workers,
                     "ports": {kind: ports[kind] for kind in PORTS[:3]}}  # fmt: skip
            print(json.dumps(ready), flush=True)
            wait_for_the_end(server, folder)
        finally:
            stop(server, folder)


# --- command line ------------------------------------------------------------------------------------------------


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True)

    def command(run, *options: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__, help=run.__doc__)
        sub.set_defaults(run=run)
        for option in options:
            sub.add_argument(option, type=Path, required=True)
        return sub

    command(setup, "--runtime", "--venv")
    command(archive, "--venv", "--store")
    serving = command(serve, "--venv", "--store")
    serving.add_argument("--model", action="append", choices=sorted(MODELS), required=True, help="may be repeated")
    serving.add_argument("--workers", type=positive, default=1, help="of each model")
    serving.add_argument("--batch-size", type=positive, default=1)
    serving.add_argument("--max-batch-delay", type=positive, default=1, help="ms")
    serving.add_argument("--threads", type=positive, help="of each worker; the machine's cores divided by --workers")
    serving.add_argument("--job-queue-size", type=positive, default=10000)
    for port in PORTS[:3]:
        serving.add_argument(f"--{port}-port", type=positive, help="a free one by default")
    return top


if __name__ == "__main__":
    arguments = parser().parse_args()
    arguments.run(arguments)
