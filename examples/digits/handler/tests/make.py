"""Writes a seven in several guises, all the same drawing: four kinds of PNG and a JPEG.

    .runtime/python/bin/python examples/digits/handler/tests/make.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

HERE = Path(__file__).parent
SIDE = 112


def seven():
    """White on black."""
    image = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(image).line([(28, 28), (84, 28), (48, 88)], fill=255, width=12)
    return image


def main():
    ink = seven()
    paper = ImageOps.invert(ink)
    transparent = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    transparent.putalpha(ink)
    ink.save(HERE / "white_on_black.png")
    paper.save(HERE / "black_on_white.png")
    transparent.save(HERE / "black_on_transparent.png")
    paper.convert("RGB").save(HERE / "photo.jpg", quality=92)
    ink.resize((28, 28), Image.Resampling.BILINEAR).save(HERE / "small.png")


if __name__ == "__main__":
    main()
