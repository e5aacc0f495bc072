#!/usr/bin/env python3
"""Prints how many images a second `resnet18.pt` takes with nothing around it: resnet18_bare.py FILE BATCH THREADS SECONDS."""

import sys
import time

import torch


def images_per_second(network, batch, seconds: float) -> float:
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        network(batch)
        images += len(batch)
    return images / (time.perf_counter() - started)


if __name__ == "__main__":
    file, size, threads, seconds = sys.argv[1:]
    torch.set_num_threads(int(threads))
    network, batch = torch.jit.load(file).eval(), torch.full((int(size), 3, 224, 224), 0.5)
    with torch.inference_mode():
        images_per_second(network, batch, 1.0)
        print(images_per_second(network, batch, float(seconds)))
