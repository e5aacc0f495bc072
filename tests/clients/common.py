"""What holds over HTTP and gRPC alike."""

from collections.abc import Callable
from types import ModuleType

import ml_dtypes
import numpy as np
from tritonclient.utils import np_to_triton_dtype


def rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of `multi`: numbers whose sums and differences are exact."""
    numbers = np.random.default_rng(seed)
    return tuple(numbers.integers(-1000, 1000, (count, 3)).astype(np.float32) for _ in "ab")


def inputs(module: ModuleType, arrays: dict[str, np.ndarray], **how: object) -> list:
    """Arrays as a client's inputs."""
    made = []
    for name, array in arrays.items():
        one = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        one.set_data_from_numpy(array, **how)
        made.append(one)
    return made


def metadata(client: object, as_json: Callable) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("multi") and client.is_model_ready("multi", "1.0")
    server = as_json(client.get_server_metadata())
    assert server["name"] == "lantern" and "binary_tensor_data" in server["extensions"], server
    model = as_json(client.get_model_metadata("multi"))
    assert model["versions"] == ["1.0"] and model["platform"] == "onnx_onnxv1", model
    assert [one["name"] for one in model["inputs"]] == ["a", "b"], model
    assert [int(axis) for axis in model["inputs"][0]["shape"]] == [-1, 3], model
    config = as_json(client.get_model_config("multi"))
    config = config.get("config", config)
    assert config["max_batch_size"] == 8 and config["input"][0]["data_type"] == "TYPE_FP32", config


def every_dtype(client: object, module: ModuleType) -> None:
    """Each datatype that models may have, there and back."""
    arrays = {
        "boolean": np.array([[True, False]]),
        "uint8": np.array([[0, 255]], np.uint8),
        "int8": np.array([[-128, 127]], np.int8),
        "int16": np.array([[-32768, 32767]], np.int16),
        "int32": np.array([[-(2**31), 2**31 - 1]], np.int32),
        "int64": np.array([[-(2**63), 2**63 - 1]], np.int64),
        "fp16": np.array([[0.5, 65504]], np.float16),
        "bf16": np.array([[-2, 1]], ml_dtypes.bfloat16),
        "fp32": np.array([[0.1, -1.5]], np.float32),
        "fp64": np.array([[0.1, -1e300]], np.float64),
    }
    result = client.infer("dtypes", inputs(module, arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(result.as_numpy(f"{name}_out"), array, name)
    unsigned = {
        "uint16": np.array([[0, 2**16 - 1]], np.uint16),
        "uint32": np.array([[0, 2**32 - 1]], np.uint32),
        "uint64": np.array([[0, 2**64 - 1]], np.uint64),
    }
    result = client.infer("unsigned", inputs(module, unsigned))
    for name, array in unsigned.items():
        np.testing.assert_array_equal(result.as_numpy(f"{name}_out"), array, name)
    texts = np.array([["", "caf\u00e9\0"], ["x" * 300, "\U0001f56f"]], dtype=object)
    encoded = np.array([[text.encode() for text in row] for row in texts], dtype=object)
    result = client.infer("strings", inputs(module, {"bytes": encoded}))
    assert (result.as_numpy("bytes_out") == encoded).all()


def classification(client: object, module: ModuleType) -> None:
    a = np.array([[1, 5, 3]], np.float32)
    outputs = [module.InferRequestedOutput("sum", class_count=2)]
    result = client.infer("multi", inputs(module, {"a": a, "b": np.zeros_like(a)}), outputs=outputs)
    classes = result.as_numpy("sum")
    assert classes.tolist() == [[b"5.000000:1", b"3.000000:2"]], classes


def schedule(client: object, module: ModuleType) -> None:
    a, b = rows(1)
    asked = inputs(module, {"a": a, "b": b})
    result = client.infer("multi", asked, priority=1, timeout=60_000_000, parameters={"own": "x"})
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)


def failures(client: object, module: ModuleType, exception: type) -> None:
    """A failure is the client's exception, with the server's text."""
    a, b = rows(1)
    good = inputs(module, {"a": a, "b": b})
    cases = [
        (lambda: client.infer("nomodel", good), "Model not found"),
        (lambda: client.infer("multi", good, model_version="7"), "does not exist"),
        (lambda: client.infer("multi", good[:1]), '"b" is missing'),
        (lambda: client.infer("multi", inputs(module, {"a": a, "c": b})), 'no input "c"'),
        (lambda: client.infer("multi", inputs(module, {"a": a[:, :2], "b": b})), "expected a"),
        (lambda: client.infer("multi", inputs(module, {"a": a.astype(np.float64), "b": b})), "expected a"),
        (lambda: client.infer("multi", good, outputs=[module.InferRequestedOutput("z")]), 'no output "z"'),
        (lambda: client.infer("multi", good, priority=9), "priority"),
        (lambda: client.infer("multi", good, sequence_id=5, sequence_start=True), "sequence"),
        (lambda: client.get_model_metadata("nomodel"), "Model not found"),
    ]
    for call, says in cases:
        try:
            call()
        except exception as error:
            assert says in error.message(), f"{says!r} is not in {error}"
        else:
            raise AssertionError(f"no failure that says {says!r}")
    # Over HTTP an unknown version is not ready, over gRPC it is a failure.
    try:
        assert not client.is_model_ready("multi", "7")
    except exception as error:
        assert "does not exist" in error.message(), error


def repository(client: object, as_json: Callable) -> None:
    def states() -> dict[str, str]:
        index = as_json(client.get_model_repository_index())
        index = index if isinstance(index, list) else index["models"]
        return {one["name"]: one["state"] for one in index}

    assert states()["shelf-1.0"] == "UNAVAILABLE", states()
    client.load_model("shelf-1.0")
    assert states()["shelf-1.0"] == "READY" and client.is_model_ready("shelf-1.0")
    client.unload_model("shelf-1.0")
    assert states()["shelf-1.0"] == "UNAVAILABLE" and states()["multi"] == "READY", states()


def statistics(client: object, as_json: Callable) -> None:
    stats = as_json(client.get_inference_statistics("multi"))["model_stats"]
    assert len(stats) == 1 and stats[0]["version"] == "1.0", stats
    success = int(stats[0]["inference_stats"]["success"]["count"])
    executions = sum(int(batch["compute_infer"]["count"]) for batch in stats[0]["batch_stats"])
    assert 0 < executions == int(stats[0]["execution_count"]) <= success, stats
    assert int(stats[0]["inference_count"]) >= success, stats
    assert len(as_json(client.get_inference_statistics())["model_stats"]) >= 3
