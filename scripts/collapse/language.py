"""A small language model that learns from the one before it, ten generations long.

The human text is the reference documentation inside Python itself (`pydoc_data.topics`); each
generation is trained from scratch, for as many epochs, on blocks of one way's data:

- replace: what the last generation wrote (Shumailov et al. 2024, Nature 631).
- human10: the same, with a tenth of it from the human text (ibid.).
- accumulate: the human text and everything that all generations wrote (Gerstgrasser et al. 2024,
  arXiv:2404.01413).
- subsample: as much as the human text, drawn from all that (Kazdan et al. 2024, arXiv:2410.16713).

Samples are drawn at temperature 1 from the whole distribution: what is lost is lost by learning.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

GENERATIONS = 10
WAYS = ("replace", "human10", "subsample", "accumulate")
BLOCK, VOCABULARY = 64, 1024
TRAINING, HELD_OUT = 480, 400
EPOCHS, BATCH, RATE = 6, 16, 4e-3


def tokenizer() -> Tokenizer:
    """A byte-level BPE of the human text; the same for all generations."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made.train_from_iterator([_human_text()], trainer)
    return made


def _human_text() -> str:
    return "\n".join(topics[name] for name in sorted(topics))


def blocks(coder: Tokenizer) -> torch.Tensor:
    """The human text, each block after a start token; shape (blocks, BLOCK)."""
    ids = coder.encode(_human_text()).ids
    starts = range(0, len(ids) - BLOCK, BLOCK - 1)
    return torch.tensor([[0, *ids[i : i + BLOCK - 1]] for i in starts])


def parts(seed: int) -> tuple[Tokenizer, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The tokenizer, and human blocks to train on, to test on, and as many again as to train on."""
    coder = tokenizer()
    everything = blocks(coder)
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed))
    held_out, rest = everything[order[:HELD_OUT]], everything[order[HELD_OUT:]]
    return coder, rest[:TRAINING], held_out, rest[TRAINING : 2 * TRAINING]


def texts(coder: Tokenizer, data: torch.Tensor) -> list[str]:
    """Blocks as text."""
    return [coder.decode(block[1:].tolist()) for block in data]


def train(data: torch.Tensor, seed: int) -> LlamaForCausalLM:
    """A new model after `EPOCHS` passes over `data`."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=BLOCK,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=None,
        )
    )
    steps = EPOCHS * (len(data) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(data))
        for i in range(0, len(data) - BATCH + 1, BATCH):
            batch = data[order[i : i + BATCH]]
            model(input_ids=batch, labels=batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def perplexity(model: LlamaForCausalLM, data: torch.Tensor) -> float:
    """Of the tokens after the first of each block."""
    losses = [float(model(input_ids=part, labels=part).loss) * len(part) for part in data.split(64)]
    return float(torch.tensor(sum(losses) / len(data)).exp())


@torch.no_grad()
def sample(model: LlamaForCausalLM, count: int, seed: int) -> torch.Tensor:
    """Blocks that the model writes."""
    torch.manual_seed(seed)
    start = torch.zeros((count, 1), dtype=torch.long)
    return model.generate(
        start,
        attention_mask=torch.ones_like(start),
        max_new_tokens=BLOCK - 1,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        pad_token_id=0,
    )


def run(seed: int, out: Path, report: Callable[[str], None] = print) -> None:
    """All ways of one seed; a generation that `out` holds already is not made again.

    `out/language-SEED.jsonl` gets a line for each: way, generation, perplexity on held-out human
    text, and a sample of what the model writes, of as many blocks as the human text's.
    """
    coder, human, held_out, _ = parts(seed)
    path = out / f"language-{seed}.jsonl"
    done = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        found = json.loads(line)
        done[found["way"], found["generation"]] = torch.tensor(found["blocks"])

    def generation(way: str, number: int, data: torch.Tensor) -> torch.Tensor:
        if (way, number) in done:
            return done[way, number]
        state = 1000 * seed + 10 * number
        model = train(data, state)
        lost, written = perplexity(model, held_out), sample(model, TRAINING, state + 1)
        row = {
            "way": way,
            "generation": number,
            "perplexity": lost,
            "trained_on": len(data),
            "texts": texts(coder, written),
            "blocks": written.tolist(),
        }
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        report(f"seed {seed}, {way}, generation {number}: perplexity {lost:.1f}")
        return written

    first = generation("human", 0, human)
    for way in WAYS:
        draws = torch.Generator().manual_seed(seed)
        written = [first]
        for number in range(1, GENERATIONS):
            pool = torch.cat([human, *written])
            if way == "replace":
                data = written[-1]
            elif way == "accumulate":
                data = pool
            elif way == "subsample":
                data = pool[torch.randperm(len(pool), generator=draws)[:TRAINING]]
            else:
                kept = human[torch.randperm(TRAINING, generator=draws)[: TRAINING // 10]]
                data = torch.cat([kept, written[-1][: TRAINING - len(kept)]])
            written.append(generation(way, number, data))
