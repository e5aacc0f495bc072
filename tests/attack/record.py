#!/usr/bin/env python3
"""Records which system calls worker processes of both backends make under load, and names those that are not on the list.

    tests/attack/record.py --lantern PROGRAM --store DIR

PROGRAM is `lantern`, with `lantern-torch` beside it; DIR holds the archives that `examples/pack.sh` makes. The server runs without
walls under `strace`, which has to be installed. The list is in `src/sandbox/seccomp.rs`. Exit code 1 if a call is missing there.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "examples/digits/samples"
MODELS = ["digits-onnx", "digits-torch"]
REQUESTS = 400
# Made before the list is in force, while the program starts and puts up its walls.
BEFORE = {"execve", "capset", "unshare", "setgroups", "setresuid", "setresgid", "setrlimit", "set_tid_address",
          "sendmsg", "recvmsg"}


def listed():
    source = (ROOT / "src/sandbox/seccomp.rs").read_text()
    return set(re.findall(r"libc::SYS_(\w+)", source))


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def ask(url, body=None, method=None):
    headers = {"Content-Type": "image/png"} if body else {}
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read()


def wait_until_ready(management, model):
    for _ in range(1200):
        try:
            if b'"READY"' in ask(f"{management}/models/{model}"):
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"{model} was not ready within two minutes")


def load(inference, management):
    body = (SAMPLES / "three.png").read_bytes()
    for model in MODELS:
        wait_until_ready(management, model)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            urls = [f"{inference}/predictions/{model}"] * REQUESTS
            list(pool.map(lambda url: ask(url, body), urls))
        ask(f"{management}/models/{model}?min_worker=3&synchronous=true", method="PUT")
        ask(f"{inference}/predictions/{model}", body)
        ask(f"{management}/models/{model}?min_worker=1&max_worker=1&synchronous=true", method="PUT")


def serve(lantern, store, directory):
    inference, management, metrics, grpc, grpc_management = free_ports(5)
    command = ["strace", "-ff", "-s", "4096", "-o", f"{directory}/calls", lantern, "serve", "--disable-token-auth", "--enable-model-api",
               "--no-config-snapshots", "--model-store", store, "--models", *[f"{model}={model}.mar" for model in MODELS]]
    settings = {
        "inference_address": f"http://127.0.0.1:{inference}", "management_address": f"http://127.0.0.1:{management}",
        "metrics_address": f"http://127.0.0.1:{metrics}", "grpc_inference_port": grpc,
        "grpc_management_port": grpc_management, "lantern_sandbox": "off", "lantern_log_files": "false",
    }
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        load(f"http://127.0.0.1:{inference}", f"http://127.0.0.1:{management}")
    finally:
        # strace ends with what it runs, and not by a signal of its own.
        children = pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        server.wait(60)


def workers(directory):
    """The files of worker processes: those that execute the program, and of the threads that they start."""
    files = {path.suffix[1:]: path.read_text(errors="replace") for path in pathlib.Path(directory).glob("calls.*")}
    is_worker = re.compile(r'^execve\("[^"]*", \["[^"]*lantern(-torch"|", "worker")', re.M)
    found, pending = {}, [one for one, text in files.items() if is_worker.search(text)]
    while pending:
        one = pending.pop()
        if one in found or one not in files:
            continue
        found[one] = files[one]
        pending += re.findall(r"^clone3?\(.*\) = (\d+)$", files[one], re.M)
    return found.values()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--lantern", required=True)
    arguments.add_argument("--store", required=True)
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        serve(arguments.lantern, arguments.store, directory)
        texts = list(workers(directory))
    if not texts:
        sys.exit("no worker process was recorded")
    calls = {}
    for text in texts:
        after = re.split(r'^execve\(.*$', text, flags=re.M)[-1]
        for name in re.findall(r"^(\w+)\(", after, re.M):
            calls[name] = calls.get(name, 0) + 1
    missing = sorted(set(calls) - listed() - BEFORE)
    for name, count in sorted(calls.items(), key=lambda call: -call[1]):
        print(f"{count:>9}  {name}{'  NOT ON THE LIST' if name in missing else ''}")
    print(f"{len(texts)} threads, {len(calls)} calls, {len(missing)} not on the list")
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
