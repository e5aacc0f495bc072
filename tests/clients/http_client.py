"""tritonclient over HTTP, unmodified, against a running server.

Usage: http_client.py HOST:PORT
The server has `multi` and `dtypes` (tests/fixtures), `fake` and, in its store, the archive `shelf-1.0.mar`.
"""

import sys

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
        compressed(client)
        concurrent(client)
        common.every_dtype(client, http)
        common.classification(client, http)
        common.schedule(client, http)
        common.failures(client, http, InferenceServerException)
        common.repository(client, as_json=lambda message: message)
        common.statistics(client, as_json=lambda message: message)


main()
