"""What goes on the Hub, told by a stand-in of its HTTP API."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import DatasetCard

from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from tests.http_server import LocalServer, QuietHandler
from tests.labeling.helpers import label, write_inputs


class Hub(LocalServer):
    """Takes what the client sends: repositories, cards and commits."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.created: list[dict[str, Any]] = []
        self.cards: list[str] = []
        self.files: dict[str, bytes] = {}
        self.refuses = False


class Handler(QuietHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub, path = self.server, self.path.split("?")[0]
        here = f"http://127.0.0.1:{hub.server_port}/datasets/me/set"
        if hub.refuses:
            self._answer({"error": "no such right"}, 403)
        elif path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self._answer({"url": here, "name": "me/set"})
        elif path == "/api/validate-yaml":
            card = json.loads(body)["content"]
            hub.cards.append(card)
            front = yaml.safe_load(card.split("---")[1])
            fine = isinstance(front["tags"], list) and isinstance(front["configs"], list)
            self._answer({"errors": [], "warnings": []}, 200 if fine else 400)
        elif path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
            ]
            self._answer({"files": modes})
        elif path.endswith("/commit/main"):
            for line in body.decode().splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    hub.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            url = f"{here}/commit/abc"
            self._answer({"success": True, "commitOid": "abc", "commitUrl": url, "hookOutput": ""})
        else:
            self._answer({"error": path}, 404)

    def do_GET(self) -> None:
        self._answer({"id": "me/set", "sha": "abc", "siblings": [], "private": False, "tags": []})

    def _answer(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub.constants as constants
    from huggingface_hub import hf_api

    server = Hub()
    server.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(hf_api.constants, "ENDPOINT", url)
    monkeypatch.setattr(hf_api.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data, constitution = write_inputs(folder, 30)
    label(data, constitution, folder / "out")
    return folder / "out"


def push(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["push", *arguments], catch_exceptions=False)


def test_a_run_goes_up_with_its_card_and_constitution(hub: Hub, run: Path) -> None:
    done = push(str(run), "me/set", "--private")
    assert "uploaded to" in done.stdout
    assert hub.created[0]["visibility"] == "private"
    assert set(hub.files) == {"README.md", "constitution.yaml", "data/train.parquet"}
    table = pq.read_table(io.BytesIO(hub.files["data/train.parquet"]))
    decided = sum(1 for _ in (run / "preferences.jsonl").open())
    assert table.num_rows == decided
    card = hub.files["README.md"].decode()
    assert hub.cards == [card]
    assert f"| pairs | {decided} |" in card
    assert DatasetCard(card).data.tags == ["rlaif", "preference", "dpo"]


def test_the_snippet_of_the_card_runs_as_written(
    hub: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that holds what was uploaded, the repository's name is a path."""
    push(str(run), "me/set")
    for name, content in hub.files.items():
        path = tmp_path / "me" / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    snippet = hub.files["README.md"].decode().split("```python\n")[1].split("```")[0]
    held: dict[str, Any] = {}
    exec(snippet, held)
    assert held["data"].column_names == ["id", "prompt", "chosen", "rejected", "p_chosen"]


def test_a_dry_run_uploads_nothing(hub: Hub, run: Path) -> None:
    done = push(str(run), "me/set", "--dry-run", "--json")
    found = json.loads(done.stdout)
    assert set(found["files"]) == {"README.md", "constitution.yaml", "data/train.parquet"}
    assert 'load_dataset("me/set"' in found["card"]
    assert not hub.created
    assert not hub.files


def test_what_the_hub_refuses_is_one_line(hub: Hub, run: Path, tmp_path: Path) -> None:
    hub.refuses = True
    with pytest.raises(RlaifError, match=r"could not push to 'me/set'.*HF_TOKEN"):
        push(str(run), "me/set")
    with pytest.raises(RlaifError, match="owner/name"):
        push(str(run), "my set")
    with pytest.raises(RlaifError):
        push(str(tmp_path), "me/set")
