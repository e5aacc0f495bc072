"""The three ways to ask a model: REST with binary data, REST with JSON, gRPC. Each takes and gives `wire.Tensor`."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from wire import Tensor, of_elements

LENGTH = "Inference-Header-Content-Length"
SECONDS = 60  # that an answer may take


@dataclass
class Refused(Exception):
    """What a server said instead of an answer; status 0 if it said nothing."""

    status: int
    text: str

    def __str__(self) -> str:
        return f"{self.status} {self.text}"


class Rest:
    """A listener. Each request has a connection of its own: a server closes those that are kept idle."""

    def __init__(self, address: str) -> None:
        self.connection = http.client.HTTPConnection(address, timeout=SECONDS)

    def send(self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[bytes, object]:
        """Body and headers of an answer that is no failure."""
        try:
            self.connection.request(method, target, body, headers or {})
            answer = self.connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Refused(0, repr(error)) from error
        finally:
            self.connection.close()
        if answer.status >= 300:
            raise Refused(answer.status, message(content))
        return content, answer.headers


def message(content: bytes) -> str:
    """The text in an error's body."""
    try:
        document = json.loads(content)
        return document.get("error") or document.get("message") or str(document)
    except (ValueError, AttributeError):
        return content.decode(errors="replace")


class Binary:
    """REST, data behind the JSON in both directions."""

    name = "binary"

    def __init__(self, addresses: dict[str, str]) -> None:
        self.rest = Rest(addresses["inference"])

    def infer(self, model: str, inputs: list[Tensor]) -> list[Tensor]:
        heads = [head(tensor) | {"parameters": {"binary_data_size": len(tensor.data)}} for tensor in inputs]
        document = json.dumps({"inputs": heads, "parameters": {"binary_data_output": True}}).encode()
        body = b"".join([document, *(tensor.data for tensor in inputs)])
        content, headers = self.rest.send("POST", f"/v2/models/{model}/infer", body, {LENGTH: str(len(document))})
        length = int(headers.get(LENGTH, len(content)))
        return behind(json.loads(content[:length])["outputs"], content[length:])


def head(tensor: Tensor) -> dict:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def behind(outputs: list[dict], data: bytes) -> list[Tensor]:
    """Outputs whose data lies one behind the other."""
    tensors, at = [], 0
    for output in outputs:
        size = output["parameters"]["binary_data_size"]
        tensors.append(Tensor(output["name"], output["datatype"], tuple(output["shape"]), data[at : at + size]))
        at += size
    return tensors


class Json:
    """REST, data in the JSON in both directions. Python writes and reads NaN, Infinity and -Infinity."""

    name = "json"

    def __init__(self, addresses: dict[str, str]) -> None:
        self.rest = Rest(addresses["inference"])

    def infer(self, model: str, inputs: list[Tensor]) -> list[Tensor]:
        document = {"inputs": [head(tensor) | {"data": tensor.elements()} for tensor in inputs]}
        content, _ = self.rest.send("POST", f"/v2/models/{model}/infer", json.dumps(document).encode())
        outputs = json.loads(content)["outputs"]
        return [of_elements(one["name"], one["datatype"], one["shape"], one["data"]) for one in outputs]


class Grpc:
    """gRPC, data in raw contents."""

    name = "grpc"

    def __init__(self, addresses: dict[str, str]) -> None:
        limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        channel = grpc.insecure_channel(addresses["gRPC inference"], options=limits)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def infer(self, model: str, inputs: list[Tensor]) -> list[Tensor]:
        heads = [service_pb2.ModelInferRequest.InferInputTensor(**head(tensor)) for tensor in inputs]
        contents = [tensor.data for tensor in inputs]
        request = service_pb2.ModelInferRequest(model_name=model, inputs=heads, raw_input_contents=contents)
        try:
            answer = self.stub.ModelInfer(request, timeout=SECONDS)
        except grpc.RpcError as error:
            is_silent = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            raise Refused(0 if is_silent else error.code().value[0], error.details()) from error
        if not answer.raw_output_contents:
            return [typed(one) for one in answer.outputs]  # as a request without inputs is answered
        outputs = zip(answer.outputs, answer.raw_output_contents, strict=True)
        return [Tensor(one.name, one.datatype, tuple(one.shape), data) for one, data in outputs]


def typed(output: object) -> Tensor:
    """An output whose elements lie in the message."""
    elements = [element for _, field in output.contents.ListFields() for element in field]
    return of_elements(output.name, output.datatype, list(output.shape), elements)


TRANSPORTS = (Binary, Json, Grpc)
