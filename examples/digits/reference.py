"""The reference answer for a picture: the handler's preprocessing, in Python, and both Python runtimes.

    python reference.py samples/three.png ...

Owns: what the handler must do to a picture. Does not know: training. The handler's resize may differ from Pillow's by a
grey level or so; `expected.json` therefore holds the pixels too, so that backends can be checked exactly.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
SIDE = 28


def pixels(picture: Image.Image) -> np.ndarray:
    """uint8 [28, 28], strokes bright.

    1. Transparency as if on white paper; then to grey, L = (299 R + 587 G + 114 B) / 1000.
    2. Inverted if the outermost pixels are brighter than 127 on average: dark on bright.
    3. To 28x28 without regard to proportions: a triangle (bilinear) filter, widened when reducing.
    """
    grey = picture.convert("L") if not picture.has_transparency_data else flattened(picture).convert("L")
    if border_brightness(np.asarray(grey)) > 127:
        grey = grey.point(lambda value: 255 - value)
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def flattened(picture: Image.Image) -> Image.Image:
    """Blended over white."""
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)


def border_brightness(grey: np.ndarray) -> int:
    """The mean of the four edges, 0 to 255; a corner belongs to two of them."""
    return int(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]).mean())


def tensor(grey: np.ndarray) -> np.ndarray:
    """uint8 [rows, 28, 28] -> the model's input, fp32 [rows, 1, 28, 28], 0..1."""
    return grey[:, None].astype(np.float32) / np.float32(255)


def softmax(logits: np.ndarray) -> np.ndarray:
    """[rows, classes] -> probabilities."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def torch_logits(image: np.ndarray) -> np.ndarray:
    """What `digits.pt` answers."""
    import torch

    with torch.inference_mode():
        return torch.jit.load(str(HERE / "digits.pt"))(torch.from_numpy(image)).numpy()


def onnx_logits(image: np.ndarray) -> np.ndarray:
    """What `digits.onnx` answers."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(HERE / "digits.onnx"), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": image})[0]


def main(files: list[str]) -> None:
    image = tensor(np.stack([pixels(Image.open(file)) for file in files]))
    for runtime, logits in (("torch", torch_logits(image)), ("onnxruntime", onnx_logits(image))):
        for file, row in zip(files, softmax(logits)):
            print(f"{runtime:12} {file}: {row.argmax()} ({row.max():.4f})")


if __name__ == "__main__":
    main(sys.argv[1:])
