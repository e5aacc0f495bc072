"""The network: 28x28 grey pixels in, ten logits out.

Owns: its layers and how they are folded for serving. Does not know: pictures, training, or file formats.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    """3x3 convolution, batch normalization, ReLU; the size stays."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


class DigitNet(nn.Module):
    """`image` fp32 [batch, 1, 28, 28], 0 (background) to 1 (stroke) -> logits fp32 [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            block(1, 16), block(16, 16), nn.MaxPool2d(2),
            block(16, 32), block(32, 32), nn.MaxPool2d(2),
            block(32, 48), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(48 * 3 * 3, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).flatten(1))


def for_serving(network: DigitNet) -> DigitNet:
    """A copy in evaluation mode whose batch normalizations are folded into the convolutions before them."""
    folded = copy.deepcopy(network).eval()
    for name, layer in folded.features.named_children():
        if isinstance(layer, nn.Sequential):
            setattr(folded.features, name, nn.Sequential(fuse_conv_bn_eval(layer[0], layer[1]), layer[2]))
    return folded
