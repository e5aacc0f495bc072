"""What Python's onnxruntime answers, set up as the server sets it up: one thread, no memory patterns, optimized graphs."""

from __future__ import annotations

import ctypes
import io
import os
import re
from dataclasses import replace
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the library is loaded

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from wire import Tensor, named  # noqa: E402

onnxruntime.set_default_logger_severity(4)

# Dtypes that numpy has not: the integer of their size and ONNX's number for them.
OWN = {
    "bfloat16": (np.uint16, onnx.TensorProto.BFLOAT16),
    "float8e4m3fn": (np.uint8, onnx.TensorProto.FLOAT8E4M3FN),
    "float8e4m3fnuz": (np.uint8, onnx.TensorProto.FLOAT8E4M3FNUZ),
    "float8e5m2": (np.uint8, onnx.TensorProto.FLOAT8E5M2),
    "float8e5m2fnuz": (np.uint8, onnx.TensorProto.FLOAT8E5M2FNUZ),
}


class Refusal(Exception):
    """What the runtime said instead of an answer."""


def onnx_answers(model: bytes, inputs: dict[str, object], calls: int) -> list[list[Tensor]]:
    """Outputs in the form that a client gets. What differs from call to call is drawn at random, and may be anything."""
    try:
        session = onnxruntime.InferenceSession(model, options(), providers=["CPUExecutionProvider"])
        values = [run(session, inputs) for _ in range(calls)]
    except Exception as error:  # noqa: BLE001: the library has a type for each of its codes, and raises others beside
        raise Refusal(f"{type(error).__name__}: {error}") from error
    outputs = session.get_outputs()
    answers = [[tensor for output, value in zip(outputs, one) for tensor in named(output.name, value, output.type)] for one in values]
    return [[settled(same) for same in zip(*answers, strict=True)]] * calls


def settled(same: tuple[Tensor, ...]) -> Tensor:
    """One output of all calls."""
    return same[0] if len(set(same)) == 1 else replace(same[0], data=None)


def torch_answers(model: bytes, inputs: dict[str, object], calls: int) -> list[list[Tensor]]:
    """What a TorchScript module answers, call after call: it may keep a state. Its library is loaded where it is needed alone."""
    import torch

    torch.set_num_threads(1)
    module = torch.jit.load(io.BytesIO(model)).eval()
    arguments = [value.item() if value.ndim == 0 else torch.from_numpy(value) for value in inputs.values()]
    with torch.inference_mode():
        return [named("output_0", module(*arguments).numpy()) for _ in range(calls)]


def options() -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = made.inter_op_num_threads = 1
    made.enable_mem_pattern = False
    return made


def run(session: onnxruntime.InferenceSession, inputs: dict[str, object]) -> list[object]:
    """By numpy, or by values of the library's own where numpy lacks the dtype."""
    types = {entry.name: element(entry.type) for entry in session.get_inputs() + session.get_outputs()}
    if not set(types.values()) & set(OWN):
        return session.run(None, inputs)
    feeds = {name: value_of(np.asarray(value), types[name]) for name, value in inputs.items()}
    return [array_of(value) for value in session.run_with_ort_values(None, feeds)]


def element(kind: str) -> str:
    """`float` of `tensor(float)`."""
    return re.sub(r".*\((\w+)\)+$", r"\1", kind)


def value_of(array: np.ndarray, kind: str) -> onnxruntime.OrtValue:
    if kind not in OWN:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    integer, number = OWN[kind]
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(np.array(array, order="C").view(integer), number)


def array_of(value: onnxruntime.OrtValue) -> np.ndarray:
    """The bytes where they lie."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.element_type())
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, dtype).reshape(value.shape())


def version() -> str:
    return onnxruntime.__version__


def library() -> Path:
    """The shared library in the same package, for the server: one version, one build."""
    return Path(onnxruntime.__file__).parent / f"capi/libonnxruntime.so.{version()}"
