"""TorchServe handler of the linear model: `{"x": [16 numbers]}` in, `{"y": [4 numbers]}` out, a batch at a time."""

import json

import torch
from ts.torch_handler.base_handler import BaseHandler


class LinearHandler(BaseHandler):
    """BaseHandler loads the TorchScript file and runs it; only the two ends are ours."""

    def preprocess(self, data):
        """Requests -> fp32 [rows, 16]. TorchServe has parsed a body that was sent as JSON."""
        bodies = (row.get("body") or row.get("data") for row in data)
        rows = [(body if isinstance(body, dict) else json.loads(body))["x"] for body in bodies]
        return torch.tensor(rows, dtype=torch.float32, device=self.device)

    def postprocess(self, data):
        """fp32 [rows, 4] -> one answer per request."""
        return [{"y": row} for row in data.tolist()]
