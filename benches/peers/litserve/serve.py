"""LitServe: `python serve.py --port N`. Batches, as many workers and API servers as cores, and ZeroMQ between them."""

import argparse
import base64
import os
import sys
from pathlib import Path

import litserve
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import models  # noqa: E402


class Api(litserve.LitAPI):
    """Pictures come in base64, which is LitServe's form for them in JSON."""

    def setup(self, device: str) -> None:
        self.model = models.load()

    def decode_request(self, request: dict) -> np.ndarray:
        return self.model.row(base64.b64decode(request["image"]) if "image" in request else request)

    def batch(self, inputs: list) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, rows: np.ndarray) -> list:
        return self.model.run(rows)

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: dict) -> dict:
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    cores = os.cpu_count() or 1
    api = Api(max_batch_size=int(os.environ["PEER_BATCH_SIZE"]), batch_timeout=int(os.environ["PEER_BATCH_DELAY"]) / 1000)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=cores, fast_queue=True)
    server.run(host="127.0.0.1", port=parser.parse_args().port, num_api_servers=cores, log_level="warning", generate_client_file=False)
