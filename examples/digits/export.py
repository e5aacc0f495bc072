"""Writes the trained network and what belongs to it: models, record of the training, samples with expected answers.

Owns: the files of this folder that are made by a program. Does not know: how the network was trained.
"""

from __future__ import annotations

import io
import json
import platform
import random
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image

import elsewhere
import pictures
from network import DigitNet
from reference import onnx_logits, pixels, softmax, tensor, torch_logits

HERE = Path(__file__).resolve().parent
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
OPSET = 18


def write(path: str, data: bytes) -> None:
    """Writes `HERE/path` and says so."""
    (HERE / path).parent.mkdir(exist_ok=True)
    (HERE / path).write_bytes(data)
    print(f"{path:24} {len(data):>8} bytes")


def write_json(path: str, value: dict) -> None:
    write(path, (json.dumps(value, indent=2) + "\n").encode())


# --- models ------------------------------------------------------------------------------------------------------


def write_models(network: DigitNet) -> None:
    """`digits.pt` and `digits.onnx`, both with a dynamic batch axis."""
    example = torch.rand(2, 1, 28, 28)
    write("digits.pt", torchscript(network, example))
    write("digits.onnx", onnx_model(network, example))


def torchscript(network: DigitNet, example: torch.Tensor) -> bytes:
    """Traced and frozen, without the debug records, which hold the paths of whoever exported it."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    saved, stripped = io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.freeze(torch.jit.trace(network, example)), saved)
    reader = torch._C.PyTorchFileReader(io.BytesIO(saved.getvalue()))
    writer = torch._C.PyTorchFileWriter(stripped)
    for record in reader.get_all_records():
        if not record.endswith(".debug_pkl") and record not in ("version", ".data/serialization_id"):
            data = reader.get_record(record)
            writer.write_record(record, data, len(data))
    writer.write_end_of_file()
    return stripped.getvalue()


def onnx_model(network: DigitNet, example: torch.Tensor) -> bytes:
    """One file, input `image` [batch, 1, 28, 28], output `logits` [batch, 10], without the exporter's notes."""
    program = torch.onnx.export(
        network, (example,), input_names=["image"], output_names=["logits"], opset_version=OPSET, dynamo=True,
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}}, external_data=False, verbose=False,
    )  # fmt: skip
    model = program.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info,
                 *model.graph.initializer):  # fmt: skip
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def write_training(network: DigitNet, split: dict, results: dict) -> None:
    """`training.json`: what was trained on what, and what it reached."""
    packages = ["torch", "onnx", "onnxruntime", "onnxscript", "scikit-learn", "numpy", "pillow"]
    versions = {"python": platform.python_version()} | {name: version(name).split("+")[0] for name in packages}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    write_json("training.json", split | {"parameters": parameters, "results": results, "versions": versions})


# --- samples -----------------------------------------------------------------------------------------------------


def grey(split: pictures.Split) -> np.ndarray:
    """The split as undistorted pictures, uint8 [rows, 28, 28]."""
    return (pictures.coarse(split.fine)[:, 0].numpy() * 255).round().astype(np.uint8)


def clear(images: np.ndarray, labels: np.ndarray, digit: int) -> Image.Image:
    """The first picture of `digit` that both models are sure of: samples show the server, not the network's limits."""
    rows = images[labels == digit]
    sure = np.minimum(softmax(torch_logits(tensor(rows))), softmax(onnx_logits(tensor(rows))))[:, digit] > 0.95
    return Image.fromarray(rows[sure.argmax()])


def enlarged(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture.resize(size, Image.Resampling.BICUBIC)


def sample_pictures(split: pictures.Split, seed: int) -> dict[str, Image.Image]:
    """By file name: held-out digits as they are, enlarged and inverted, and one drawn with blue ink on cream paper."""
    images, labels = grey(split), split.labels.numpy()
    held_out = lambda digit: clear(images, labels, digit)
    seven = enlarged(held_out(7), (480, 480)).point(lambda value: 255 - value)
    four = elsewhere.pen(4, random.Random(seed), ink=(28, 46, 140), paper=(246, 240, 222), mode="RGB")
    return {
        "zero.png": held_out(0), "three.png": held_out(3), "eight.png": held_out(8),
        "five.png": enlarged(held_out(5), (300, 300)), "seven.jpg": seven, "four.jpg": enlarged(four, (420, 560)),
    }  # fmt: skip


def encoded(name: str, picture: Image.Image) -> bytes:
    data = io.BytesIO()
    options = {"quality": 85} if name.endswith(".jpg") else {"optimize": True}
    picture.save(data, "JPEG" if name.endswith(".jpg") else "PNG", **options)
    return data.getvalue()


def write_samples(split: pictures.Split, seed: int) -> None:
    """`samples/` and `expected.json`, computed from the files as written."""
    samples = sample_pictures(split, seed)
    for name, picture in samples.items():
        write(f"samples/{name}", encoded(name, picture))
    inputs = np.stack([pixels(Image.open(HERE / "samples" / name)) for name in samples])
    torch_rows, onnx_rows = softmax(torch_logits(tensor(inputs))), softmax(onnx_logits(tensor(inputs)))
    rows = [
        {"file": f"samples/{name}", "class": str(WORDS.index(name.split(".")[0])), "digits.pt": by_torch.tolist(),
         "digits.onnx": by_onnx.tolist(), "pixels": image.flatten().tolist()}
        for name, image, by_torch, by_onnx in zip(samples, inputs, torch_rows, onnx_rows)
    ]  # fmt: skip
    assert all(row[model][int(row["class"])] > 0.9 for row in rows for model in ("digits.pt", "digits.onnx"))
    write_expected(rows)


def write_expected(rows: list[dict]) -> None:
    """`expected.json`, one sample a line."""
    about = ("class probabilities in class order; `pixels` are the 28x28 grey levels (strokes bright) that reference.py's "
             "preprocessing gives, the model's input is pixels / 255 as fp32 [1, 1, 28, 28]")  # fmt: skip
    tolerance = {"from_pixels": 1e-4, "from_picture": 0.01}
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    head = f'{{\n  "about": {json.dumps(about)},\n  "tolerance": {json.dumps(tolerance)},\n  "samples": [\n'
    write("expected.json", (head + lines + "\n  ]\n}\n").encode())
