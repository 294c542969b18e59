"""Models that an audit looks through: perplexity under a language model, embeddings of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from rlaif.engines.hub import resolve_model
from rlaif.errors import RlaifError

BATCH, MOST_TOKENS = 16, 512


class ScoringModel:
    """A model with its tokenizer.

    Args:
        kind: a class of `transformers` that loads it.

    Raises:
        RlaifError: it can't be loaded.
    """

    def __init__(self, name: str, kind: Any) -> None:
        files = resolve_model(name, embedded="policy")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(files.path, trust_remote_code=False)
            self.model = kind.from_pretrained(files.path, trust_remote_code=False).eval()
        except Exception as error:  # loaders raise many unrelated types
            raise RlaifError(
                f"model {name!r} could not be loaded ({' '.join(str(error).split())[:200]})",
                hint="Check the folder or Hub ID.",
            ) from None
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(self.device)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        config = self.model.config
        self.longest = min(MOST_TOKENS, getattr(config, "max_position_embeddings", MOST_TOKENS))

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Any]]:
        """Texts of about equal length together: their places, and the model's input."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            said = [texts[i] or " " for i in places]
            encoded = self.tokenizer(
                said,
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=self.longest,
                return_token_type_ids=False,
                padding_side="right",
            )
            yield places, encoded.to(self.device)


class Perplexity(ScoringModel):
    """Mean negative log-likelihood of texts under a language model, in nats a token.

    The first token is only read; a text of one token has NaN.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, AutoModelForCausalLM)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> list[float]:
        """One number a text."""
        found = [float("nan")] * len(texts)
        for places, encoded in self.batches(texts):
            ids, mask = encoded["input_ids"], encoded["attention_mask"]
            scores = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
            own = torch.log_softmax(scores, -1).gather(-1, ids[:, 1:, None])[..., 0]
            counted = mask[:, 1:].to(own.dtype)
            sums, counts = (own * counted).sum(1), counted.sum(1)
            for place, total, count in zip(places, sums.tolist(), counts.tolist(), strict=True):
                if count:
                    found[place] = -total / count
        return found


class Embeddings(ScoringModel):
    """Unit vectors of texts: the mean of a model's last hidden states."""

    def __init__(self, name: str) -> None:
        super().__init__(name, AutoModel)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Shape (texts, dimensions)."""
        found: dict[int, NDArray[np.float64]] = {}
        for places, encoded in self.batches(texts):
            hidden = self.model(**encoded).last_hidden_state.double()
            mask = encoded["attention_mask"][..., None].to(hidden.dtype)
            means = (hidden * mask).sum(1) / mask.sum(1)
            units = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
            found.update(zip(places, units, strict=True))
        return np.stack([found[i] for i in range(len(texts))])
