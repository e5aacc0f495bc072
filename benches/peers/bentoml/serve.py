"""BentoML: `bentoml serve serve:Service`. Adaptive batching, and as many workers as cores."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from PIL.Image import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import models  # noqa: E402

BATCH = int(os.environ["PEER_BATCH_SIZE"])
LATENCY = 1000  # ms; a bound, not an aim: with less it refuses requests
IS_LINEAR = os.environ["PEER_MODEL"] == "linear"


@bentoml.service(workers=os.cpu_count() or 1, traffic={"timeout": 60})
class Service:
    def __init__(self) -> None:
        self.model = models.load()

    if IS_LINEAR:

        @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=LATENCY)
        def predict(self, x: np.ndarray) -> list:
            return self.model.run(x.astype(np.float32))

    else:

        @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=LATENCY)
        def predict(self, images: list[Image]) -> list:
            return self.model.run(np.stack([self.model.row_of(image) for image in images]))
