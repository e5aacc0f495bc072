"""Digits that do not come from scikit-learn: a check on pictures that the network was not made for.

Owns: drawing digits from Pillow's built-in font and from hand-written stroke lists. Does not know: the network.
These are drawings by a program, not handwriting: they tell whether the network survives another source, no more.
"""

from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw, ImageFont

# Points on a unit square, y downwards. Each digit has one or more strokes.
STROKES: dict[int, list[list[list[tuple[float, float]]]]] = {
    0: [[[(0.5, 0), (0.2, 0.12), (0.08, 0.5), (0.2, 0.88), (0.5, 1), (0.8, 0.88), (0.92, 0.5), (0.8, 0.12), (0.5, 0)]]],
    1: [[[(0.5, 0), (0.5, 1)]], [[(0.3, 0.2), (0.52, 0), (0.52, 1)]]],
    2: [[[(0.12, 0.25), (0.25, 0.05), (0.5, 0), (0.78, 0.08), (0.85, 0.28), (0.7, 0.52), (0.1, 1), (0.92, 1)]]],
    3: [[[(0.12, 0.1), (0.45, 0), (0.78, 0.08), (0.82, 0.3), (0.65, 0.45), (0.4, 0.48)],
         [(0.4, 0.48), (0.75, 0.55), (0.88, 0.75), (0.75, 0.95), (0.45, 1), (0.1, 0.9)]]],
    4: [[[(0.65, 1), (0.65, 0), (0.05, 0.68), (0.95, 0.68)]], [[(0.15, 0), (0.12, 0.5), (0.85, 0.5)], [(0.75, 0), (0.72, 1)]]],
    5: [[[(0.85, 0), (0.22, 0), (0.15, 0.45), (0.5, 0.38), (0.82, 0.5), (0.88, 0.72), (0.75, 0.93), (0.45, 1), (0.1, 0.9)]]],
    6: [[[(0.75, 0.02), (0.4, 0.2), (0.18, 0.55), (0.15, 0.8), (0.35, 0.98), (0.65, 0.98), (0.84, 0.8), (0.75, 0.58),
          (0.5, 0.5), (0.2, 0.65)]]],
    7: [[[(0.08, 0), (0.92, 0), (0.4, 1)]], [[(0.08, 0.02), (0.92, 0), (0.38, 1)], [(0.3, 0.5), (0.82, 0.5)]]],
    8: [[[(0.5, 0.47), (0.2, 0.33), (0.2, 0.12), (0.5, 0), (0.8, 0.12), (0.8, 0.33), (0.5, 0.47), (0.15, 0.65),
          (0.15, 0.88), (0.5, 1), (0.85, 0.88), (0.85, 0.65), (0.5, 0.47)]]],
    9: [[[(0.82, 0.3), (0.5, 0.5), (0.22, 0.42), (0.15, 0.2), (0.35, 0.02), (0.65, 0.02), (0.83, 0.18), (0.8, 0.5),
          (0.6, 1)]]],
}  # fmt: skip
SIDE = 280  # drawn ten times larger, reduced by whoever uses the picture


def font(digit: int, size: int) -> Image.Image:
    """The digit in Pillow's built-in font, `size` pixels of 280, white on black."""
    picture = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(picture).text((SIDE / 2, SIDE / 2), str(digit), 255, ImageFont.load_default(size), anchor="mm")
    return picture


def smoothed(points: list[tuple[float, float]], rounds: int = 3) -> list[tuple[float, float]]:
    """Cuts corners (Chaikin), so that a stroke bends as a pen does."""
    for _ in range(rounds if len(points) > 3 else 0):
        cut = [points[0]]
        for (x, y), (u, v) in zip(points, points[1:]):
            cut += [(0.75 * x + 0.25 * u, 0.75 * y + 0.25 * v), (0.25 * x + 0.75 * u, 0.25 * y + 0.75 * v)]
        points = [*cut, points[-1]]
    return points


def pen(digit: int, numbers: random.Random, ink=255, paper=0, mode: str = "L") -> Image.Image:
    """The digit drawn with a round pen: place, slant, size, thickness and every point vary with `numbers`."""
    angle, width, height = numbers.uniform(-0.2, 0.2), numbers.uniform(100, 150), numbers.uniform(170, 210)
    shift_x, shift_y, radius = numbers.uniform(-15, 15), numbers.uniform(-12, 12), numbers.uniform(7, 15)

    def place(x: float, y: float) -> tuple[float, float]:
        x, y = (x - 0.5 + numbers.gauss(0, 0.02)) * width, (y - 0.5 + numbers.gauss(0, 0.02)) * height
        turned = (x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle))
        return SIDE / 2 + shift_x + turned[0], SIDE / 2 + shift_y + turned[1]

    picture = Image.new(mode, (SIDE, SIDE), paper)
    draw = ImageDraw.Draw(picture)
    for stroke in numbers.choice(STROKES[digit]):
        points = smoothed([place(*point) for point in stroke])
        draw.line(points, ink, round(2 * radius), joint="curve")
        for x, y in points:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], ink)
    return picture


def fonts() -> list[tuple[int, Image.Image]]:
    """50 pictures: each digit at five sizes."""
    return [(digit, font(digit, size)) for digit in range(10) for size in (180, 200, 220, 240, 260)]


def pens(seed: int) -> list[tuple[int, Image.Image]]:
    """300 pictures: each digit thirty times."""
    numbers = random.Random(seed)
    return [(digit, pen(digit, numbers)) for digit in range(10) for _ in range(30)]
