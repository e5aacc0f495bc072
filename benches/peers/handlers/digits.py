"""TorchServe handler of the digits model: a picture in, class probabilities out, a batch at a time.

The same preprocessing as `examples/digits/reference.py`, for pictures without transparency.
"""

import io

import numpy as np
import torch
from PIL import Image
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import map_class_to_label

SIDE = 28


def pixels(encoded):
    """PNG or JPEG -> uint8 [28, 28], strokes bright."""
    grey = Image.open(io.BytesIO(encoded)).convert("L")
    edges = np.asarray(grey)
    if np.concatenate([edges[0], edges[-1], edges[:, 0], edges[:, -1]]).mean() >= 128:
        grey = grey.point(lambda value: 255 - value)
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


class DigitsHandler(BaseHandler):
    """BaseHandler loads the TorchScript file and index_to_name.json, and runs the model."""

    def preprocess(self, data):
        """Requests -> fp32 [rows, 1, 28, 28], 0..1."""
        rows = np.stack([pixels(row.get("body") or row.get("data")) for row in data])
        return torch.from_numpy(rows).to(self.device).unsqueeze(1).float().div(255)

    def postprocess(self, data):
        """Logits [rows, 10] -> one `{class: probability}` per request, the likeliest first."""
        chances, classes = torch.softmax(data, 1).topk(10, dim=1)
        return map_class_to_label(chances.tolist(), self.mapping, classes.tolist())
