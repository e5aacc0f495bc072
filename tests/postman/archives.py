"""Archives that stand for those that TorchServe's collections register, under their names: the same small model in each, and the
answer that the collection's data expect of that name."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from suites import Suite

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "tests/fixtures/linear.onnx"
HOST = re.compile(r"https://[\w.-]+(?=/(?:mar|war)_files/)")  # of TorchServe's public archives
NAME = re.compile(HOST.pattern + r"/mar_files/([\w.-]+\.mar)")
NOTHING_EXPECTED = {}  # the answer where the data only expect the status


@dataclass(frozen=True)
class Packer:
    """What is the same in all archives."""

    lantern: Path
    handler: Path

    def pack(self, name: str, answer: object, folder: Path) -> None:
        """`folder/name`, whose model answers with a text as text and with anything else as JSON."""
        work = folder / f"{name}.files"
        work.mkdir()
        is_text = isinstance(answer, str)
        extra = work / "answer"
        extra.write_text(answer if is_text else json.dumps(answer))
        config = work / "model-config.yaml"
        config.write_text(f"handler: {{answer: answer, media_type: {'text/plain' if is_text else 'application/json'}}}\n")
        command = [self.lantern, "archive", "--model-name", name.removesuffix(".mar"), "--version", "1.0", "--serialized-file", MODEL,
                   "--handler", self.handler, "--config-file", config, "--extra-files", extra, "--export-path", folder]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def local_names(environment: Path) -> dict[str, str]:
    """The collections' variables for archives, such as `mar_path_mnist`, and the names in the model store that they hold."""
    values = json.loads(environment.read_text())["values"]
    return {entry["key"]: entry["value"] for entry in values if entry["value"].endswith(".mar")}


def answers(suite: Suite, checkout: Path, local: dict[str, str]) -> dict[str, object]:
    """Each archive that exists, and what its model answers. Only a row that is to fail may name one that does not exist."""
    found: dict[str, object] = dict.fromkeys(local.values(), NOTHING_EXPECTED)
    for row in suite.rows(checkout):
        if row.get("status_code", 200) != 200:
            continue
        text = filled(json.dumps(row), local)
        found |= {name: found.get(name, NOTHING_EXPECTED) for name in NAME.findall(text)}
        if "url" in row and "expected" in row:
            found[filled(row["url"], local).rpartition("/")[2]] = unwrapped(row["expected"])
    return found


def filled(text: str, local: dict[str, str]) -> str:
    """The text with the variables for archives filled in."""
    return re.sub(r"\{\{(\w[\w-]*)\}\}", lambda match: local.get(match[1], match[0]), text)


def unwrapped(expected: object) -> object:
    """What the handler answers so that the server's envelope makes the expected answer of it."""
    if isinstance(expected, dict) and "predictions" in expected:
        return expected["predictions"][0]
    if isinstance(expected, dict) and "outputs" in expected:
        return expected["outputs"][0]["data"][0]
    return expected
