"""Tensors as Open Inference Protocol has them, and what is no tensor.

One form for every transport: a datatype, a shape, and data as the binary forms carry it (little-endian; BYTES each behind its
length). `named` is the one place that knows how sequences, maps and optionals become tensors.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

DATATYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
    "BF16": ml_dtypes.bfloat16, "BYTES": np.object_,
}  # fmt: skip
NAMES = {np.dtype(dtype): name for name, dtype in DATATYPES.items()}
SHOWN = 6  # elements of a tensor in a report


@dataclass(frozen=True)
class Tensor:
    """A named tensor on the wire. Data of a right answer is None where any will do."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | None

    def __str__(self) -> str:
        elements = self.elements() if self.data is not None else ["any"]
        rest = f", … {len(elements)} elements" if len(elements) > SHOWN else ""
        return f"{self.datatype}{list(self.shape)} {', '.join(map(repr, elements[:SHOWN]))}{rest}"

    def elements(self) -> list:
        """Flat, as JSON takes them: floats as the doubles that they are."""
        if self.datatype == "BYTES":
            return [text.decode() for text in texts(self.data)]
        array = np.frombuffer(self.data, DATATYPES.get(self.datatype, np.uint8))
        return (array.astype(np.float64) if is_float(self.datatype) else array).tolist()


def is_float(datatype: str) -> bool:
    return datatype in ("FP16", "BF16", "FP32", "FP64")


def of_array(name: str, value: object) -> Tensor:
    """A numpy array as a tensor. A dtype without a name in the protocol keeps its own, in capitals: no server takes it."""
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        return Tensor(name, "BYTES", array.shape, packed(array.ravel().tolist()))
    datatype = NAMES.get(array.dtype, array.dtype.name.upper())
    return Tensor(name, datatype, array.shape, array.tobytes())


def of_elements(name: str, datatype: str, shape: list[int], data: list) -> Tensor:
    """A tensor from JSON."""
    if datatype == "BYTES":
        return Tensor(name, datatype, tuple(shape), packed(data))
    exact = np.array(data, np.float64 if is_float(datatype) else DATATYPES[datatype])
    return Tensor(name, datatype, tuple(shape), exact.astype(DATATYPES[datatype]).tobytes())


def packed(values: list) -> bytes:
    """Texts, each behind its length."""
    encoded = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def texts(data: bytes) -> Iterator[bytes]:
    """The texts in `packed` data."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


# --- what is no tensor -------------------------------------------------------------------------------------------


ELEMENTS = {"float": np.float32, "double": np.float64, "int64": np.int64, "int32": np.int32, "string": np.object_, "bool": np.bool_}


def named(name: str, value: object, kind: str = "tensor") -> list[Tensor]:
    """What a model gives under one name, as the outputs of the protocol. `kind` is onnxruntime's word, `seq(tensor(float))`."""
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        return [of_array(name, value)]
    dtypes = [ELEMENTS.get(word, np.float32) for word in re.findall(r"\w+(?=[,)])", kind)]
    if isinstance(value, dict):
        return [of_array(f"{name}.{part}", array) for part, array in halves(value, dtypes).items()]
    if "map" in kind:
        rows = [halves(one, dtypes) for one in value]
        parts = zip(("keys", "values"), dtypes)
        return [tensor for part, dtype in parts for tensor in sequence(f"{name}.{part}", [row[part] for row in rows], dtype)]
    return sequence(name, value, dtypes[-1])


def halves(one: dict, dtypes: list) -> dict[str, np.ndarray]:
    """Keys and values of a map, in the order of the keys."""
    keys, values = zip(*sorted(one.items())) if one else ((), ())
    return {"keys": np.array(keys, dtypes[0]), "values": np.array(values, dtypes[1])}


def sequence(name: str, parts: list, dtype: type) -> list[Tensor]:
    """Stacked if all have one shape, else one by one; of none, one axis of nothing."""
    if not parts:
        return [of_array(name, np.zeros(0, dtype))]
    if len({np.shape(part) for part in parts}) == 1:
        return [of_array(name, np.stack(parts))]
    return numbered(name, parts)


def numbered(name: str, parts: list) -> list[Tensor]:
    return [of_array(f"{name}.{index}", part) for index, part in enumerate(parts)]


def given(name: str, value: object) -> list[Tensor]:
    """What a client sends for one input: a sequence in numbered parts, nothing for an optional that is left out."""
    if value is None:
        return []
    return numbered(name, value) if isinstance(value, list) else [of_array(name, value)]


# --- comparing ---------------------------------------------------------------------------------------------------


def differences(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 0.0) -> list[str]:
    """How outputs differ, a line each. Without a tolerance bits must be equal; one NaN is as good as another."""
    if [tensor.name for tensor in ours] != [tensor.name for tensor in theirs]:
        return [f"outputs: {[tensor.name for tensor in theirs]} → {[tensor.name for tensor in ours]}"]
    return [f"{own.name}: {other} → {own}" for own, other in zip(ours, theirs) if not is_equal(own, other, tolerance)]


def is_equal(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """`other` is the right one."""
    if (one.datatype, one.shape) != (other.datatype, other.shape):
        return False
    return other.data in (None, one.data) or (is_float(one.datatype) and is_close(one, other, tolerance))


def is_close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether floats differ by no more than a part of the larger, and have the same sign bits where that is nothing."""
    left, right = (np.array(tensor.elements(), np.float64) for tensor in (one, other))
    if left.shape != right.shape:
        return False
    if tolerance:
        return bool(np.isclose(left, right, rtol=tolerance, atol=tolerance * 1e-2, equal_nan=True).all())
    is_same = (left == right) & (np.signbit(left) == np.signbit(right))
    return bool((is_same | (np.isnan(left) & np.isnan(right))).all())
