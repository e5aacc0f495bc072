"""The two models as every script here runs them: bodies become rows, rows a batch, a batch answers.

The same weights and the same preprocessing as the TorchServe handlers in `handlers/`. It knows no server.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
SIDE = 28


class Linear:
    """`{"x": [16 numbers]}` in, `{"y": [4 numbers]}` out."""

    def __init__(self) -> None:
        self.model = torch.jit.load(ROOT / "tests/fixtures/linear.pt").eval()

    def row(self, document: dict) -> np.ndarray:
        """A parsed body -> fp32 [16]."""
        return np.asarray(document["x"], dtype=np.float32)

    def run(self, rows: np.ndarray) -> list[dict]:
        """fp32 [rows, 16] -> one answer for each row."""
        with torch.inference_mode():
            return [{"y": row} for row in self.model(torch.from_numpy(rows)).tolist()]


class Digits:
    """A PNG or JPEG in, `{class: probability}` out."""

    def __init__(self) -> None:
        self.model = torch.jit.load(ROOT / "examples/digits/digits.pt").eval()
        self.names = json.loads((ROOT / "examples/digits/index_to_name.json").read_text())

    def row(self, encoded: bytes) -> np.ndarray:
        """A picture's file -> fp32 [1, 28, 28]."""
        return self.row_of(Image.open(io.BytesIO(encoded)))

    def row_of(self, picture: Image.Image) -> np.ndarray:
        """A picture -> fp32 [1, 28, 28], strokes bright."""
        grey = picture.convert("L")
        edges = np.asarray(grey)
        if np.concatenate([edges[0], edges[-1], edges[:, 0], edges[:, -1]]).mean() >= 128:
            grey = grey.point(lambda value: 255 - value)
        pixels = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        return pixels.astype(np.float32)[None] / 255

    def run(self, rows: np.ndarray) -> list[dict]:
        """fp32 [rows, 1, 28, 28] -> one answer for each row, the likeliest class first."""
        with torch.inference_mode():
            chances, classes = torch.softmax(self.model(torch.from_numpy(rows)), 1).topk(10, dim=1)
        pairs = zip(classes.tolist(), chances.tolist())
        return [{self.names[str(name)]: chance for name, chance in zip(*pair)} for pair in pairs]


def load() -> Linear | Digits:
    """The model that `PEER_MODEL` names, with as many threads as it may have."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return {"linear": Linear, "digits": Digits}[os.environ["PEER_MODEL"]]()
