"""TorchServe's collections as TorchServe's own runner (`ts_scripts/api_utils.py`) puts them: with which data, and to a server with
which settings. Does not know how any of them is run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

# What TorchServe's runner writes for nearly all collections.
OPEN = ["disable_token_authorization=true", "enable_model_api=true"]
METRICS = ["metrics_mode=prometheus"]
KSERVE, KSERVE_V2 = ["service_envelope=kserve"], ["service_envelope=kservev2"]


@dataclass(frozen=True)
class Suite:
    """One run of a collection."""

    name: str
    collection: str
    data: str = ""
    settings: list[str] = field(default_factory=list)
    # In place of `settings`: a file of TorchServe's `test/resources`.
    resource: str = ""

    def rows(self, checkout: Path) -> list[dict]:
        """What the collection is repeated with, a dictionary each; one without data runs once."""
        return json.loads((checkout / "test/postman" / self.data).read_text()) if self.data else []

    def config(self, checkout: Path) -> list[str]:
        """The lines of `config.properties`, without addresses: the system chooses the ports."""
        text = (checkout / "test/resources" / self.resource).read_text() if self.resource else "\n".join(self.settings)
        return [line for line in text.splitlines() if "_address=" not in line]

    @property
    def scheme(self) -> str:
        return "https" if self.resource else "http"


SUITES = [
    Suite("management", "management_api_test_collection.json", "management_data.json", OPEN),
    Suite("inference", "inference_api_test_collection.json", "inference_data.json", METRICS + OPEN),
    Suite("increased_timeout_inference", "inference_api_test_collection.json", "increased_timeout_inference.json",
          ["default_response_timeout=300", *METRICS, *OPEN]),
    Suite("https", "https_test_collection.json", resource="config.properties"),
    Suite("management_kf", "management_api_test_collection.json", "management_data.json", OPEN + KSERVE),
    Suite("inference_kf", "kf_api_test_collection.json", "kf_inference_data.json", KSERVE + METRICS + OPEN),
    Suite("https_kf", "kf_https_test_collection.json", resource="config_kf.properties"),
    Suite("inference_kfv2", "kfv2_api_test_collection.json", "kfv2_inference_data.json", KSERVE_V2 + METRICS + OPEN),
    Suite("https_kfv2", "kfv2_https_test_collection.json", resource="config_kfv2.properties"),
    Suite("explanation", "explanation_api_test_collection.json", "explanation_data.json", METRICS + OPEN),
    Suite("workflow", "workflow_api_test_collection.json", "workflow_data.json", OPEN[:1]),
    # TorchServe's runner leaves this one out, as flaky.
    Suite("workflow_inference", "workflow_inference_collection.json", "workflow_inference_data.json", OPEN[:1]),
]  # fmt: skip
