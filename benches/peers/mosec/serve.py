"""mosec: `python serve.py --port N`. Dynamic batching, and for pictures a stage of decoders before it, as its documentation has it."""

import os
import sys
from pathlib import Path

import numpy as np
from mosec import Server, Worker

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import models  # noqa: E402

BATCH = int(os.environ["PEER_BATCH_SIZE"])
DELAY = int(os.environ["PEER_BATCH_DELAY"])
IS_LINEAR = os.environ["PEER_MODEL"] == "linear"


class Decode(Worker):
    """A picture's file -> a row."""

    def __init__(self) -> None:
        self.model = models.load()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> np.ndarray:
        return self.model.row(data)


class Infer(Worker):
    """A batch of rows, or of parsed documents -> answers."""

    def __init__(self) -> None:
        self.model = models.load()

    def forward(self, data: list) -> list:
        return self.model.run(np.stack([self.model.row(row) for row in data] if IS_LINEAR else data))


if __name__ == "__main__":
    server = Server()
    if not IS_LINEAR:
        server.append_worker(Decode, num=os.cpu_count() or 1)
    server.append_worker(Infer, num=1, max_batch_size=BATCH, max_wait_time=DELAY)
    server.run()
