"""A server in SGLang's form around a small model of the `transformers` library.

Written from the source of SGLang 0.5 (`tokenizer_manager_score_mixin.py`, `io_struct.py`): what it
takes, what it gives, and what it refuses.  With a delimiter it scores items as that server does:
one sequence `query D item D item D`, where an item sees the query and itself alone, its positions
go on from the query's, and its score is read at its last token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rlaif.util.resources import demo_model
from tests.http_server import LocalServer, QuietHandler

DELIMITER = 3
LONGEST = 1024


class StandIn:
    """The server, its model, and what it was asked.

    Attributes:
        asked: (path, body) of every request.
        multi_item: whether it was started with a delimiter.
        spoil: changes an answer before it is sent.
    """

    def __init__(self) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            demo_model("judge"), dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.multi_item = False
        self.spoil: Callable[[Any], Any] = lambda answer: answer
        outer = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                card = {"id": "judge", "object": "model", "max_model_len": LONGEST}
                self._send(200, {"object": "list", "data": [card]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append((self.path, body))
                try:
                    self._send(200, outer.spoil(outer.answer(self.path, body)))
                except ValueError as error:
                    self._send(400, {"object": "error", "message": str(error)})

            def _send(self, status: int, content: Any) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = LocalServer(Handler)

    def start(self) -> str:
        """Its address."""
        self._server.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.stop()

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/score":
            return self._score(body)
        if path != "/generate":
            raise ValueError(f"no such path {path}")
        rows = body["input_ids"]
        if rows and isinstance(rows[0], list):
            return [self._generate(row, body) for row in rows]
        return self._generate(rows, body)

    @torch.inference_mode()
    def _generate(self, ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
        if len(ids) >= LONGEST:
            raise ValueError(f"The input ({len(ids)} tokens) is longer than the model's context")
        sampling = body["sampling_params"]
        written: list[int] = []
        first: torch.Tensor | None = None
        for _ in range(sampling["max_new_tokens"]):
            logs = self.model(torch.tensor([ids + written])).logits[0, -1].log_softmax(-1)
            first = logs if first is None else first
            written.append(int(logs.argmax()))
            if written[-1] == self.model.config.eos_token_id:
                break
        ended = written[-1] == self.model.config.eos_token_id
        meta: dict[str, Any] = {
            "id": "r",
            "prompt_tokens": len(ids),
            "cached_tokens": len(ids) // 2,
            "finish_reason": {"type": "stop" if ended else "length"},
        }
        if body.get("return_logprob"):
            assert first is not None
            wanted = body["token_ids_logprob"]
            meta["output_token_ids_logprobs"] = [[[float(first[i]), i, None] for i in wanted]]
        return {"text": "", "output_ids": written, "meta_info": meta}

    @torch.inference_mode()
    def _score(self, body: dict[str, Any]) -> dict[str, Any]:
        query, items, labels = body["query"], body["items"], body["label_token_ids"]
        if any(i >= self.model.config.vocab_size for i in labels):
            raise ValueError("Token ID is out of vocabulary")
        logs = self._together(query, items) if self.multi_item else self._apart(query, items)
        scores = [[math.exp(float(row[i])) for i in labels] for row in logs]
        tokens = len(query) + sum(map(len, items))
        return {"scores": scores, "usage": {"prompt_tokens": tokens}, "model": body["model"]}

    def _apart(self, query: list[int], items: list[list[int]]) -> list[torch.Tensor]:
        rows = [torch.tensor([query + item]) for item in items]
        return [self.model(row).logits[0, -1].log_softmax(-1) for row in rows]

    def _together(self, query: list[int], items: list[list[int]]) -> list[torch.Tensor]:
        ids, owner, positions, ends = list(query), [0] * len(query), list(range(len(query))), []
        for n, item in enumerate(items, 1):
            ids += [DELIMITER, *item]
            owner += [-1, *([n] * len(item))]
            positions += [0, *range(len(query), len(query) + len(item))]
            ends.append(len(ids) - 1)
        ids.append(DELIMITER)
        owner.append(-1)
        positions.append(0)
        who, index = torch.tensor(owner), torch.arange(len(ids))
        same = (who[None] == who[:, None]) | (who[None] == 0)
        sees = same & (index[None] <= index[:, None]) & (who[None] >= 0) | torch.eye(
            len(ids), dtype=torch.bool
        )
        mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
        out = self.model(
            input_ids=torch.tensor([ids]),
            attention_mask=mask[None, None],
            position_ids=torch.tensor([positions]),
        ).logits[0]
        return [out[end].log_softmax(-1) for end in ends]
