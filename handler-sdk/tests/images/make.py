"""Writes the pictures beside this file and what Pillow makes of them (expected.json).

    .runtime/python/bin/python handler-sdk/tests/images/make.py

Run it only to add or change a picture. Made with Pillow 13.0.
"""

import json
import math
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
WIDTH, HEIGHT = 24, 18


def pixel(x, y):
    """A smooth color, so that JPEG keeps it nearly."""
    return (10 * x, 13 * y, int(127 + 120 * math.sin((x + y) / 9)))


def picture():
    image = Image.new("RGB", (WIDTH, HEIGHT))
    image.putdata([pixel(x, y) for y in range(HEIGHT) for x in range(WIDTH)])
    return image


def described(image):
    return {
        "width": image.width,
        "height": image.height,
        "channels": len(image.getbands()),
        "pixels": image.tobytes().hex(),
    }


def main():
    rgb = picture()
    gray = rgb.convert("L")
    rgba = rgb.copy()
    rgba.putalpha(gray)
    gray_alpha = gray.copy()
    gray_alpha.putalpha(rgb.getchannel("R"))
    palette = rgb.quantize(16)
    bilevel = gray.point(lambda value: 255 if value > 127 else 0).convert("1")
    # 16 bits: the upper eight are the gray picture's.
    deep = Image.frombytes("I;16", gray.size, bytes(b for v in gray.tobytes() for b in (0x80, v)))

    saved = {
        "rgb.png": (rgb, {}, rgb),
        "gray.png": (gray, {}, gray),
        "rgba.png": (rgba, {}, rgba),
        "gray_alpha.png": (gray_alpha, {}, gray_alpha),
        "palette.png": (palette, {}, palette.convert("RGB")),
        "bilevel.png": (bilevel, {}, bilevel.convert("L")),
        "gray16.png": (deep, {}, gray),
        "rgb.jpg": (rgb, {"quality": 95, "subsampling": 0}, None),
        "subsampled.jpg": (rgb, {"quality": 90, "subsampling": 2}, None),
        "progressive.jpg": (rgb, {"quality": 95, "progressive": True}, None),
        "gray.jpg": (gray, {"quality": 95}, None),
        "cmyk.jpg": (rgb.convert("CMYK"), {"quality": 95}, None),
    }
    expected = {}
    for name, (image, options, decoded) in saved.items():
        image.save(HERE / name, **options)
        if decoded is None:
            decoded = Image.open(HERE / name)
            decoded = decoded if decoded.mode == "L" else decoded.convert("RGB")
        expected[name] = described(decoded)
    bilinear = Image.Resampling.BILINEAR
    expected["resized 10x12"] = described(rgb.resize((10, 12), bilinear))
    expected["resized 37x31"] = described(rgb.resize((37, 31), bilinear))
    expected["gray of rgb.png"] = described(gray)
    (HERE / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")


if __name__ == "__main__":
    main()
