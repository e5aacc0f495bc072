"""Trains the network on scikit-learn's digits and writes everything that the example serves.

    pip install -r requirements.txt && python train.py

Writes `digits.pt`, `digits.onnx`, `training.json`, `samples/` and `expected.json`. Seeded; about two minutes on one core.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F

import elsewhere
import export
import pictures
from network import DigitNet, for_serving
from reference import pixels, tensor

SEED = 7
HELD_OUT = 0.2
EPOCHS = 60
BATCH = 64
RATE = 4e-3


def train(split: pictures.Split, epochs: int) -> DigitNet:
    """One-cycle AdamW over freshly distorted pictures."""
    network = DigitNet()
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    steps = epochs * (len(split.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(epochs):
        started = time.monotonic()
        loss = train_epoch(network, split, optimizer, schedule)
        print(f"epoch {epoch + 1:3}/{epochs}  loss {loss:.4f}  {time.monotonic() - started:.1f} s", flush=True)
    return network.eval()


def train_epoch(network: DigitNet, split: pictures.Split, optimizer, schedule) -> float:
    """One pass in random order, an incomplete last batch left out; the mean loss."""
    losses = []
    for rows in torch.randperm(len(split.labels)).split(BATCH):
        if len(rows) < BATCH:
            break
        loss = F.cross_entropy(network(pictures.distorted(split.fine[rows])), split.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.inference_mode()
def accuracy(network: DigitNet, images: np.ndarray, labels: np.ndarray) -> dict:
    """Of uint8 pictures [rows, 28, 28]: how many, and how many are right."""
    right = network(torch.from_numpy(tensor(images))).argmax(1).numpy() == labels
    return {"pictures": len(labels), "right": int(right.sum()), "accuracy": round(float(right.mean()), 4)}


def evaluate(network: DigitNet, held_out: pictures.Split) -> dict:
    """On the held-out split, as 28x28 pictures of whole grey levels, and on digits drawn elsewhere."""
    results = {"held_out": accuracy(network, export.grey(held_out), held_out.labels.numpy())}
    for name, drawn in (("font", elsewhere.fonts()), ("pen", elsewhere.pens(SEED))):
        labels, images = zip(*drawn)
        results[name] = accuracy(network, np.stack([pixels(image) for image in images]), np.array(labels))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)  # the sums come out the same on any number of cores
    torch.manual_seed(SEED)
    training, held_out = pictures.load(SEED, HELD_OUT)
    network = for_serving(train(training, epochs))
    results = evaluate(network, held_out)
    print(results)
    split = {"dataset": "sklearn.datasets.load_digits", "training": len(training.labels), "held_out": len(held_out.labels),
             "seed": SEED, "stratified": True}  # fmt: skip
    export.write_models(network)
    export.write_training(network, split | {"epochs": epochs, "batch": BATCH}, results)
    export.write_samples(held_out, SEED)


if __name__ == "__main__":
    main()
