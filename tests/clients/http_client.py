"""tritonclient over HTTP, unmodified, against a running server.

Usage: http_client.py HOST:PORT
The server has `multi`, `dtypes` and `unsigned` (tests/fixtures), `fake` and, in its store, the archive `shelf-1.0.mar`.
"""

import sys

import ml_dtypes
import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

import common


def binary(client: http.InferenceServerClient) -> None:
    """Data behind the JSON, both ways; all outputs, and some."""
    a, b = common.rows(2)
    inputs = common.inputs(http, {"a": a, "b": b})
    result = client.infer("multi", inputs, request_id="r-1")
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(result.as_numpy("diff"), a - b)
    assert result.get_response()["id"] == "r-1"
    outputs = [http.InferRequestedOutput("diff")]
    result = client.infer("multi", inputs, outputs=outputs, model_version="1.0")
    np.testing.assert_array_equal(result.as_numpy("diff"), a - b)
    assert result.as_numpy("sum") is None


def json(client: http.InferenceServerClient) -> None:
    """Data in the JSON, both ways, and a mixture."""
    a, b = common.rows(1)
    inputs = common.inputs(http, {"a": a, "b": b}, binary_data=False)
    outputs = [http.InferRequestedOutput("sum", binary_data=False), http.InferRequestedOutput("diff")]
    result = client.infer("multi", inputs, outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(result.as_numpy("diff"), a - b)


def numbers_in_json(client: http.InferenceServerClient) -> None:
    """Every dtype in the JSON, both ways, with what is no finite number. BF16 the client sends in binary alone."""
    floats = {
        "fp16": np.array([[np.nan, -65504], [np.inf, 6e-8]], np.float16),
        "fp32": np.array([[np.nan, 0.1], [-np.inf, -0.0]], np.float32),
        "fp64": np.array([[0.45914118284447325, np.nan], [np.inf, 5e-324]], np.float64),
    }
    info = {name: np.iinfo(name) for name in ("uint8", "int8", "int16", "int32", "int64")}
    whole = {name: np.array([[of.min, of.max], [0, 7]], name) for name, of in info.items()}
    flags = {"boolean": np.array([[True, False], [False, True]])}
    brain = {"bf16": np.array([[np.nan, -3], [-np.inf, 0.1]], ml_dtypes.bfloat16)}
    sent = flags | whole | floats
    asked = common.inputs(http, sent, binary_data=False) + common.inputs(http, brain)
    outputs = [http.InferRequestedOutput(f"{name}_out", binary_data=False) for name in sent | brain]
    result = client.infer("dtypes", asked, outputs=outputs)
    for name, array in (sent | brain).items():
        got = result.as_numpy(f"{name}_out")
        assert "data" in result.get_output(f"{name}_out") and got.dtype == array.dtype, name
        np.testing.assert_array_equal(got.astype(np.float64), array.astype(np.float64), name)
        if array.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(got), np.signbit(array), name)
    large = {name: np.array([[0, np.iinfo(name).max]], name) for name in ("uint16", "uint32", "uint64")}
    outputs = [http.InferRequestedOutput(f"{name}_out", binary_data=False) for name in large]
    result = client.infer("unsigned", common.inputs(http, large, binary_data=False), outputs=outputs)
    for name, array in large.items():
        np.testing.assert_array_equal(result.as_numpy(f"{name}_out"), array, name)


def compressed(client: http.InferenceServerClient) -> None:
    """gzip and deflate in both directions."""
    a, b = common.rows(64)
    inputs = common.inputs(http, {"a": a, "b": b})
    for coding in ("gzip", "deflate"):
        result = client.infer(
            "multi", inputs, request_compression_algorithm=coding, response_compression_algorithm=coding
        )
        np.testing.assert_array_equal(result.as_numpy("sum"), a + b)


def concurrent(client: http.InferenceServerClient) -> None:
    """Requests under way at the same time each get their own rows."""
    pairs = [common.rows(1, seed) for seed in range(32)]
    waiting = [client.async_infer("multi", common.inputs(http, {"a": a, "b": b})) for a, b in pairs]
    for (a, b), request in zip(pairs, waiting):
        np.testing.assert_array_equal(request.get_result().as_numpy("sum"), a + b)


def main() -> None:
    with http.InferenceServerClient(sys.argv[1], concurrency=8) as client:
        common.metadata(client, as_json=lambda message: message)
        binary(client)
        json(client)
        numbers_in_json(client)
        compressed(client)
        concurrent(client)
        common.every_dtype(client, http)
        common.classification(client, http)
        common.schedule(client, http)
        common.failures(client, http, InferenceServerException)
        common.repository(client, as_json=lambda message: message)
        common.statistics(client, as_json=lambda message: message)


main()
