"""Training data: the 8x8 digits of scikit-learn as 28x28 pictures, plain or distorted.

Owns: the split, the rendering, the augmentation. Does not know: the network, files, or the server's preprocessing.

The digits come as 8x8 counts of ink, while pictures from elsewhere are strokes of any thickness, sharpness, place and
slant. So each digit is drawn smoothly at 56x56, moved, bent, thresholded softly at a random level, and only then
reduced to 28x28.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

SIDE = 28
DIGIT = 20  # a digit's box within the 28x28 picture, as in MNIST
FINE = 2  # distortions happen on a grid this much finer


@dataclass
class Split:
    """`fine` pictures fp32 [rows, 1, 56, 56], 0..1, white on black; `labels` int64 [rows]."""

    fine: Tensor
    labels: Tensor


def load(seed: int, held_out: float) -> tuple[Split, Split]:
    """The same stratified training and held-out splits for the same seed."""
    data = load_digits()
    parts = train_test_split(data.images, data.target, test_size=held_out, random_state=seed, stratify=data.target)
    train_images, test_images, train_labels, test_labels = (torch.from_numpy(part) for part in parts)
    return Split(smooth(train_images), train_labels.long()), Split(smooth(test_images), test_labels.long())


def smooth(images: Tensor, digit: int = DIGIT * FINE, side: int = SIDE * FINE) -> Tensor:
    """Draws 8x8 counts [rows, 8, 8] of 0..16 as `digit` x `digit` in the middle of `side` x `side`."""
    large = F.interpolate(images.float()[:, None] / 16, size=(digit, digit), mode="bicubic", align_corners=False)
    return F.pad(large.clamp(0, 1), [(side - digit) // 2] * 4)


def coarse(fine: Tensor) -> Tensor:
    """[rows, 1, 56, 56] -> [rows, 1, 28, 28] by averaging."""
    return F.avg_pool2d(fine, FINE)


def distorted(fine: Tensor) -> Tensor:
    """A random variant of each picture, [rows, 1, 56, 56] -> [rows, 1, 28, 28]."""
    moved = F.grid_sample(fine, grid(len(fine)), align_corners=False)
    return exposed(coarse(stroked(moved)))


def uniform(rows: int, low: float, high: float) -> Tensor:
    return torch.empty(rows).uniform_(low, high)


def grid(rows: int) -> Tensor:
    """Where each pixel is taken from: rotation to 17 degrees, slant, size 0.7..1.25 per axis, shift, and a gentle bend."""
    angle, slant = uniform(rows, -0.3, 0.3), uniform(rows, -0.3, 0.3)
    size = uniform(rows, 0.8, 1.35)
    across, down = size * uniform(rows, 0.88, 1.14), size * uniform(rows, 0.94, 1.06)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    shear = torch.stack([across, slant, torch.zeros(rows), down], 1).view(-1, 2, 2)
    shift = uniform(2 * rows, -0.18, 0.18).view(-1, 2, 1)
    affine = F.affine_grid(torch.cat([turn @ shear, shift], 2), [rows, 1, SIDE * FINE, SIDE * FINE], align_corners=False)
    bend = F.interpolate(torch.randn(rows, 2, 4, 4) * 0.04, size=SIDE * FINE, mode="bicubic", align_corners=True)
    return affine + bend.permute(0, 2, 3, 1)


def stroked(fine: Tensor) -> Tensor:
    """Ink as strokes: a soft threshold whose level sets the thickness; one picture in four keeps its grey."""
    rows = len(fine)
    level, hardness = uniform(rows, 0.2, 0.65).view(-1, 1, 1, 1), uniform(rows, 5, 25).view(-1, 1, 1, 1)
    strokes = torch.sigmoid((fine - level) * hardness)
    return torch.where((torch.rand(rows) < 0.25).view(-1, 1, 1, 1), fine, strokes)


def exposed(pictures: Tensor) -> Tensor:
    """Blur on some; contrast, a background that is not quite black, and noise on all."""
    rows = len(pictures)
    soft = F.avg_pool2d(pictures, 3, stride=1, padding=1)
    amount = (uniform(rows, 0, 0.9) * (torch.rand(rows) < 0.4)).view(-1, 1, 1, 1)
    pictures = torch.lerp(pictures, soft, amount)
    black, white = uniform(rows, 0, 0.15).view(-1, 1, 1, 1), uniform(rows, 0.55, 1.05).view(-1, 1, 1, 1)
    noise = torch.randn_like(pictures) * uniform(rows, 0, 0.05).view(-1, 1, 1, 1)
    return (black + pictures * (white - black) + noise).clamp(0, 1)
