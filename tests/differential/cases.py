"""What both servers are asked, in order: later cases stand on what earlier ones registered.

Owns: the requests. Does not know: who answers, or what the answers should be.
"""

from __future__ import annotations

from dataclasses import dataclass, field

INFERENCE, MANAGEMENT, METRICS = "inference", "management", "metrics"


@dataclass(frozen=True)
class Case:
    """One request. `wait` names a model whose workers are to be READY before it is sent."""

    id: str
    listener: str
    method: str
    target: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: str = ""


def _many(prefix: str, listener: str, rows: list[tuple[str, str] | tuple[str, str, bytes, dict]]) -> list[Case]:
    """Cases that need no name of their own: `prefix-N`."""
    return [Case(f"{prefix}-{number:02}", listener, *row) for number, row in enumerate(rows, 1)]


JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
MULTIPART = {"content-type": "multipart/form-data; boundary=edge"}
PARTS = (
    b"--edge\r\ncontent-disposition: form-data; name=\"data\"; filename=\"a.bin\"\r\ncontent-type: image/png\r\n\r\nfile\r\n--edge--\r\n"
)

EMPTY_SERVER = _many("empty-inference", INFERENCE, [
    ("GET", "/ping"), ("POST", "/ping"), ("GET", "/ping/"), ("GET", "/ping/more"), ("HEAD", "/ping"), ("GET", "//ping"),
    ("GET", "/"), ("POST", "/"), ("GET", "/nowhere"), ("GET", "/predictions"), ("POST", "/predictions/"),
    ("POST", "/predictions/none"), ("POST", "/predictions/none/1.0"), ("OPTIONS", "/predictions/none"),
    ("POST", "/invocations"), ("POST", "/invocations/x"), ("POST", "/models/none/invoke"), ("POST", "/none/predict"),
    ("POST", "/none/1.0/predict"), ("POST", "/v1/models/none:predict"), ("POST", "/v2/models/none/infer"),
    ("POST", "/wfpredict/none"), ("POST", "/wfpredict"), ("GET", "/metrics"), ("GET", "/ping%zz"), ("GET", "/%2Fping"),
    ("GET", "/models"), ("DELETE", "/predictions/none"), ("GET", "/token?type=inference"),
    ("POST", "/predictions/a%2Fb"), ("POST", "/predictions/%00"),
]) + _many("empty-management", MANAGEMENT, [
    ("GET", "/models"), ("GET", "/models?limit=0"), ("GET", "/models?limit=-1"), ("GET", "/models?next_page_token=12"),
    ("PUT", "/models"), ("PATCH", "/models"), ("DELETE", "/models"), ("OPTIONS", "/models"), ("GET", "/models/none"),
    ("GET", "/models/none/1.0"), ("GET", "/models/none/all"), ("PUT", "/models/none"), ("DELETE", "/models/none"),
    ("OPTIONS", "/models/none"), ("POST", "/models/none"), ("PATCH", "/models/none"), ("PUT", "/models/none/1.0/set-default"),
    ("GET", "/v1/models/none"), ("POST", "/v1/models/none"), ("GET", "/token?type=management"), ("GET", "/workflows"),
    ("GET", "/workflows/none"), ("DELETE", "/workflows/none"), ("PUT", "/workflows/none"), ("GET", "/"), ("GET", "/ping"),
    ("GET", "/nowhere"), ("GET", "/metrics"),
]) + _many("empty-metrics", METRICS, [("GET", "/ping"), ("GET", "/"), ("GET", "/nowhere")])

DOCUMENTS = [
    Case("document-inference", INFERENCE, "OPTIONS", "/"),
    Case("document-inference-alias", INFERENCE, "GET", "/api-description"),
    Case("document-management", MANAGEMENT, "OPTIONS", "/"),
    Case("document-metrics", METRICS, "OPTIONS", "/"),
]

REGISTER = _many("register-refused", MANAGEMENT, [
    ("POST", "/models"), ("POST", "/models?url="), ("POST", "/models?url=..%2Fecho.mar"), ("POST", "/models?url=missing.mar"),
    ("POST", "/models?url=echo.mar&runtime=python4"), ("POST", "/models?url=junk.mar"), ("POST", "/models?url=s3%3A%2F%2Fbucket%2Fmissing.mar"),
    ("POST", "/models?url=http%3A%2F%2F127.0.0.1%3A1%2Fx.mar"), ("POST", "/models?url=http%3A%2F%2Flocalhost%3Aaaaa%2Fx.mar"),
    ("POST", "/models?url=file%3A%2F%2F%2Fnowhere%2Fx.mar"), ("POST", "/models", b"{", JSON), ("POST", "/models", b"", JSON),
    ("POST", "/models", b"[]", JSON), ("POST", "/models", b"url=echo.mar", FORM), ("POST", "/models", b'{"model_name": "x"}', JSON),
]) + [
    Case("register", MANAGEMENT, "POST", "/models?url=echo.mar"),
    Case("register-again", MANAGEMENT, "POST", "/models?url=echo.mar"),
    Case("describe-without-workers", MANAGEMENT, "GET", "/models/echo"),
    Case("predict-without-workers", INFERENCE, "POST", "/predictions/echo", b"x", TEXT),
    Case("predict-version-without-workers", INFERENCE, "POST", "/predictions/echo/1.0", b"x", TEXT),
    Case("describe-customized-without-workers", MANAGEMENT, "GET", "/models/echo?customized=true"),
    Case("ready-without-workers", MANAGEMENT, "GET", "/v1/models/echo"),
    Case("ping-without-workers", INFERENCE, "GET", "/ping"),
    Case("register-second-version", MANAGEMENT, "POST", "/models?url=echo_v2.mar&initial_workers=1&synchronous=true"),
    Case("register-under-a-name", MANAGEMENT, "POST", "/models?url=echo.mar&model_name=other&batch_size=3&max_batch_delay=7&response_timeout=77"),
    Case("register-json", MANAGEMENT, "POST", "/models", b'{"url": "echo.mar", "model_name": "fromjson", "batch_size": "2", "max_batch_delay": 5}', JSON),
    Case("register-bad-numbers", MANAGEMENT, "POST", "/models?url=echo.mar&model_name=bad&batch_size=dd&max_batch_delay=junk&initial_workers=-1&synchronous=-1"),
    Case("describe-bad-numbers", MANAGEMENT, "GET", "/models/bad"),
    Case("unregister-bad-numbers", MANAGEMENT, "DELETE", "/models/bad/?timeout=true&synchronous=-1"),
]

LIST = _many("list", MANAGEMENT, [
    ("GET", "/models"), ("GET", "/models?limit=1"), ("GET", "/models?limit=1&next_page_token=1"), ("GET", "/models?limit=3"),
    ("GET", "/models?limit=2&next_page_token=2"), ("GET", "/models?limit=1&next_page_token=-1"), ("GET", "/models?limit=&next_page_token="),
    ("GET", "/models?limit=101"), ("GET", "/models?next_page_token=99"), ("GET", "/models?limit=1&limit=2"), ("GET", "/models/"),
])

DESCRIBE = _many("describe", MANAGEMENT, [
    ("GET", "/models/echo"), ("GET", "/models/echo/1.0"), ("GET", "/models/echo/2.0"), ("GET", "/models/echo/9"), ("GET", "/models/other"),
    ("GET", "/models/fromjson"), ("GET", "/models/echo/set-default"), ("GET", "/models/echo/"), ("GET", "/models/echo?customized=false"),
    ("GET", "/models/ec%68o"),
])

SCALE = [
    Case("scale-max-below-min", MANAGEMENT, "PUT", "/models/echo?min_worker=2&max_worker=1"),
    Case("scale-max-negative", MANAGEMENT, "PUT", "/models/echo?max_worker=-1"),
    Case("scale-unknown-version", MANAGEMENT, "PUT", "/models/echo/0.0?min_worker=1&synchronous=true"),
    Case("scale-synchronous", MANAGEMENT, "PUT", "/models/echo?min_worker=1&synchronous=true"),
    Case("scale-version-synchronous", MANAGEMENT, "PUT", "/models/echo/1.0?min_worker=1&synchronous=true"),
    Case("scale-asynchronous", MANAGEMENT, "PUT", "/models/echo?min_worker=1"),
    Case("scale-nothing", MANAGEMENT, "PUT", "/models/echo"),
    Case("scale-nonsense", MANAGEMENT, "PUT", "/models/echo?min_worker=nan&synchronous=nan"),
    Case("scale-gpu", MANAGEMENT, "PUT", "/models/echo?number_gpu=10&timeout=-1"),
    Case("describe-scaled", MANAGEMENT, "GET", "/models/echo", wait="echo"),
    Case("describe-customized", MANAGEMENT, "GET", "/models/echo?customized=true"),
    Case("ready", MANAGEMENT, "GET", "/v1/models/echo"),
]

PREDICT = _many("predict", INFERENCE, [
    ("POST", "/predictions/echo", b"hello", TEXT), ("POST", "/predictions/echo/1.0", b"hello", TEXT),
    ("POST", "/predictions/echo/1.0/more/path", b"hello", TEXT), ("POST", "/predictions/echo/2.0", b"hello", TEXT),
    ("POST", "/predictions/echo/9.9", b"hello", TEXT), ("POST", "/predictions/echo", b"hello", {}), ("POST", "/predictions/echo", b"", TEXT),
    ("GET", "/predictions/echo"), ("PUT", "/predictions/echo", b"put", TEXT), ("PATCH", "/predictions/echo", b"patch", TEXT),
    ("DELETE", "/predictions/echo", b"delete", TEXT), ("HEAD", "/predictions/echo"), ("POST", "/predictions/echo/", b"slash", TEXT),
    ("POST", "/predictions/echo", b'{"a": 1}', JSON), ("POST", "/predictions/echo", b"data=1+2%26", FORM),
    ("POST", "/predictions/echo", PARTS, MULTIPART), ("POST", "/predictions/echo?data=query", b"body", TEXT),
    ("POST", "/predictions/echo", b"data=1&data=2", FORM), ("POST", "/predictions/echo", b"t", {"content-type": "text/plain; charset=utf-8"}),
    ("POST", "/invocations?model_name=echo", b"inv", TEXT), ("POST", "/invocations", b"model_name=echo&data=x", FORM),
    ("POST", "/invocations", b"x", TEXT), ("POST", "/models/echo/invoke", b"mme", TEXT), ("POST", "/echo/predict", b"legacy", TEXT),
    ("POST", "/echo/1.0/predict", b"legacy", TEXT), ("GET", "/echo/predict?data=query"), ("POST", "/v1/models/echo:predict", b"v1", TEXT),
    ("OPTIONS", "/predictions/echo"), ("OPTIONS", "/predictions/echo/9.9"), ("POST", "/predictions/echo", b"x" * 6_553_500, TEXT),
    ("POST", "/predictions/echo", b"x" * 6_553_501, TEXT), ("POST", "/predictions/echo", b"x", {"expect": "a miracle"}),
    ("POST", "/predictions/echo", b"x", {"x-request-id": "mine"}), ("GET", "/ping"),
])

DEFAULT = [
    Case("delete-default-of-many", MANAGEMENT, "DELETE", "/models/echo"),
    Case("delete-default-by-version", MANAGEMENT, "DELETE", "/models/echo/1.0"),
    Case("set-default-unknown-version", MANAGEMENT, "PUT", "/models/echo/0.0/set-default"),
    Case("set-default-unknown-model", MANAGEMENT, "PUT", "/models/none/1.0/set-default"),
    Case("set-default-four-segments", MANAGEMENT, "PUT", "/models/echo/set-default"),
    Case("set-default", MANAGEMENT, "PUT", "/models/echo/2.0/set-default"),
    Case("describe-default", MANAGEMENT, "GET", "/models/echo", wait="echo"),
    Case("options-model", MANAGEMENT, "OPTIONS", "/models/echo"),
    Case("scrape", METRICS, "GET", "/metrics"),
    Case("scrape-filtered", METRICS, "GET", "/metrics?name[]=ts_inference_requests_total"),
    Case("scrape-nothing", METRICS, "GET", "/metrics?name[]=nothing"),
    Case("scrape-posted", METRICS, "POST", "/metrics/more"),
]

UNREGISTER = [
    Case("delete-unknown-version", MANAGEMENT, "DELETE", "/models/echo/0.0"),
    Case("delete-version", MANAGEMENT, "DELETE", "/models/echo/1.0"),
    Case("delete", MANAGEMENT, "DELETE", "/models/echo"),
    Case("delete-again", MANAGEMENT, "DELETE", "/models/echo"),
    Case("predict-deleted", INFERENCE, "POST", "/predictions/echo", b"x", TEXT),
    Case("scale-to-zero", MANAGEMENT, "PUT", "/models/other?min_worker=0&synchronous=true"),
    Case("delete-other", MANAGEMENT, "DELETE", "/models/other"),
    Case("delete-fromjson", MANAGEMENT, "DELETE", "/models/fromjson?synchronous=true"),
    Case("list-empty", MANAGEMENT, "GET", "/models"),
]

LIFE_CYCLE = EMPTY_SERVER + DOCUMENTS + REGISTER + LIST + DESCRIBE + SCALE + PREDICT + DEFAULT + UNREGISTER

# With tokens on and the model API off, as both servers start when nothing is said. KEY is replaced by the server's own.
GUARDED = [
    Case("token-none", INFERENCE, "GET", "/predictions/echo"),
    Case("token-none-unknown-path", INFERENCE, "GET", "/nowhere"),
    Case("token-none-description", INFERENCE, "GET", "/api-description"),
    Case("token-wrong", INFERENCE, "GET", "/predictions/echo", headers={"authorization": "Bearer nonsense"}),
    Case("token-lower-case", INFERENCE, "GET", "/predictions/none", headers={"authorization": "bearer KEY:inference"}),
    Case("token-spaces", INFERENCE, "GET", "/predictions/none", headers={"authorization": "Bearer   KEY:inference"}),
    Case("token-right", INFERENCE, "GET", "/predictions/none", headers={"authorization": "Bearer KEY:inference"}),
    Case("token-other-scope", INFERENCE, "GET", "/predictions/none", headers={"authorization": "Bearer KEY:management"}),
    Case("token-management-none", MANAGEMENT, "GET", "/models"),
    Case("token-management", MANAGEMENT, "GET", "/models", headers={"authorization": "Bearer KEY:management"}),
    Case("token-management-inference-key", MANAGEMENT, "GET", "/models", headers={"authorization": "Bearer KEY:inference"}),
    Case("token-management-api-key", MANAGEMENT, "GET", "/models", headers={"authorization": "Bearer KEY:API"}),
    Case("token-api-off", MANAGEMENT, "POST", "/models?url=echo.mar", headers={"authorization": "Bearer KEY:management"}),
    Case("token-api-off-delete", MANAGEMENT, "DELETE", "/models/none", headers={"authorization": "Bearer KEY:management"}),
    Case("token-metrics", METRICS, "GET", "/metrics"),
    Case("token-renew-wrong-type", MANAGEMENT, "GET", "/token?type=nonsense", headers={"authorization": "Bearer KEY:API"}),
    Case("token-renew-no-key", MANAGEMENT, "GET", "/token?type=inference"),
    Case("token-renew-management-key", MANAGEMENT, "GET", "/token?type=inference", headers={"authorization": "Bearer KEY:management"}),
    Case("token-renew", MANAGEMENT, "GET", "/token?type=management", headers={"authorization": "Bearer KEY:API"}),
    Case("token-renewed-old", MANAGEMENT, "GET", "/models", headers={"authorization": "Bearer OLD:management"}),
    Case("token-renewed-new", MANAGEMENT, "GET", "/models", headers={"authorization": "Bearer KEY:management"}),
]
