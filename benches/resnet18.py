#!/usr/bin/env python3
"""Writes a randomly initialized ResNet-18 as `resnet18.pt` and `resnet18.onnx`, for benchmarks of a real model's size.

    .runtime/python/bin/python benches/resnet18.py DIR

46 MB each, so they are made when wanted and never committed. Seeded. `image` fp32 [batch, 3, 224, 224] -> `logits` fp32
[batch, 1000]. The numbers it answers mean nothing; the work is that of the real network. Needs onnx and onnxscript beside torch
for the ONNX file; without them it writes the other one and says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SEED = 18
STAGES = [(64, 1), (128, 2), (256, 2), (512, 2)]


def convolution(channels_in: int, channels_out: int, size: int, stride: int) -> nn.Module:
    """A convolution with its batch normalization folded in, as a deployed network has it."""
    bare = nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(bare.weight, mode="fan_out", nonlinearity="relu")
    return fuse_conv_bn_eval(bare.eval(), nn.BatchNorm2d(channels_out).eval())


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(channels_in, channels_out, 3, stride)
        self.second = convolution(channels_out, channels_out, 3, 1)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else convolution(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class ResNet18(nn.Module):
    """Stem, four stages of two blocks, mean over the picture, one linear layer."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for width, stride in STAGES:
            layers += [Block(channels, width, stride), Block(width, width, 1)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).mean(dim=(2, 3)))


def write_torchscript(network: nn.Module, example: Tensor, path: Path) -> None:
    torch.jit.save(torch.jit.freeze(torch.jit.trace(network, example)), str(path))
    print(f"{path}: {path.stat().st_size} bytes")


def write_onnx(network: nn.Module, example: Tensor, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  the exporter's own requirement
    except ImportError:
        print(f"{path}: left out; the exporter needs `pip install onnx onnxscript`")
        return
    torch.onnx.export(
        network, (example,), str(path), input_names=["image"], output_names=["logits"], opset_version=18, dynamo=True,
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}}, external_data=False, verbose=False,
    )  # fmt: skip
    print(f"{path}: {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    network = ResNet18().eval().requires_grad_(False)
    example = torch.rand(2, 3, 224, 224)
    write_torchscript(network, example, folder / "resnet18.pt")
    write_onnx(network, example, folder / "resnet18.onnx")


if __name__ == "__main__":
    main()
