"""tritonclient over gRPC, unmodified, against a running server.

Usage: grpc_client.py HOST:PORT
The models are those of http_client.py.
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as grpc
from google.protobuf.json_format import MessageToDict
from tritonclient.utils import InferenceServerException

import common


def as_json(message: object) -> object:
    """A message as the JSON that HTTP would have."""
    return MessageToDict(message, preserving_proto_field_name=True)


def raw(client: grpc.InferenceServerClient) -> None:
    a, b = common.rows(2)
    inputs = common.inputs(grpc, {"a": a, "b": b})
    result = client.infer("multi", inputs, request_id="r-1")
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
    assert result.get_response().id == "r-1"
    assert len(result.get_response().raw_output_contents) == 2
    outputs = [grpc.InferRequestedOutput("diff")]
    result = client.infer("multi", inputs, outputs=outputs, model_version="1.0")
    np.testing.assert_array_equal(result.as_numpy("diff"), a - b)


def streamed(client: grpc.InferenceServerClient) -> None:
    """Each message is answered in its turn; a failure is one message's own."""
    answers: queue.Queue = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    pairs = [common.rows(1, seed) for seed in range(20)]
    for number, (a, b) in enumerate(pairs):
        client.async_stream_infer("multi", common.inputs(grpc, {"a": a, "b": b}), request_id=str(number))
    client.async_stream_infer("nomodel", common.inputs(grpc, {"a": pairs[0][0]}))
    for number, (a, b) in enumerate(pairs):
        result, error = answers.get(timeout=30)
        assert error is None, error
        assert result.get_response().id == str(number)
        np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
    result, error = answers.get(timeout=30)
    assert result is None and "Model not found" in str(error), error
    client.stop_stream()


def concurrent(client: grpc.InferenceServerClient) -> None:
    answers: queue.Queue = queue.Queue()
    pairs = [common.rows(1, seed) for seed in range(32)]
    for number, (a, b) in enumerate(pairs):
        client.async_infer(
            "multi",
            common.inputs(grpc, {"a": a, "b": b}),
            callback=lambda result, error, number=number: answers.put((number, result, error)),
        )
    for _ in pairs:
        number, result, error = answers.get(timeout=30)
        assert error is None, error
        a, b = pairs[number]
        np.testing.assert_array_equal(result.as_numpy("sum"), a + b)


def main() -> None:
    with grpc.InferenceServerClient(sys.argv[1]) as client:
        common.metadata(client, as_json)
        raw(client)
        concurrent(client)
        streamed(client)
        common.every_dtype(client, grpc)
        common.classification(client, grpc)
        common.schedule(client, grpc)
        common.failures(client, grpc, InferenceServerException)
        common.repository(client, as_json)
        common.statistics(client, as_json)


main()
