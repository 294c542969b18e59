"""Trains the embedded models: `python scripts/train_demo_models.py judge|policy|writer`.

The demo judge learns the verdicts of the demo world's oracle on its training split.  One
sequence holds a pair's context once and a branch for every principle; a tree mask lets each
branch see the context and itself only, so a branch is exactly the prompt that the judge is
asked later.  The demo policy learns the world's responses as they come, good manners and bad.
The demo writer learns to quote what is wrong with a response, and to write it without that.

Weights depend on the seed, the library versions and the number of threads (the order of
floating-point sums); the recipe does not.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif.constitution.load import load_constitution
from rlaif.demo.fixing import critique, flaws, revision
from rlaif.demo.oracle import TIERS, compare_by_principle
from rlaif.demo.world import World
from rlaif.templates.judge import load_judge_template
from rlaif.templates.writer import load_synth_template, load_writer_templates
from rlaif.util.resources import demo_model

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
VOCABULARY = 1536
TIE_WEIGHT = 0.3
LM_WEIGHT = 0.1
JUDGE_MIX = {"howto": 2, "danger": 4, "unknown": 4, "private": 2}
"""The judge sees more of the questions whose principles rarely decide a pair: it learns the
principles one after the other, and those came last."""


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose merges are the words of the training split: any text has ids."""
    world = World(seed, "train")
    corpus = []
    for pair in world.pairs(6000):
        corpus += [pair.prompt, pair.response_a, f" {pair.response_b}"]
    corpus += [world.wording(name) for name in TIERS for _ in range(300)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL[2:],
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int) -> LlamaForCausalLM:
    """A small Llama with heads of 32 (the CPU attention kernels take no smaller ones)."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


class JudgeBatches:
    """Draws batches of pairs with one branch per principle.

    Each batch has `input_ids` and `positions` (B, T), `mask` (B, 1, T, T) additive,
    `answers` (B, K) positions of the branches' last tokens, and `targets` (B, K), the
    probability that the first response is better.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, size: int) -> None:
        self.tokenizer = tokenizer
        self.world = World(seed, "train", JUDGE_MIX)
        self.template = load_judge_template("demo")
        self.size = size
        self.rng = random.Random(seed)

    def _ids(self, prompt: str, first: str, second: str, principle: str) -> list[int]:
        text = self.template.render(
            conversation=f"User: {prompt}", first=first, second=second, principle=principle
        )
        chat = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        return list(self.tokenizer(chat, add_special_tokens=False)["input_ids"])

    def _tree(self) -> tuple[list[int], list[list[int]], list[float]]:
        pair = self.world.pair()
        whole = [
            self._ids(pair.prompt, pair.response_a, pair.response_b, self.world.wording(name))
            for name in TIERS
        ]
        shared = min(map(len, whole))
        while any(ids[:shared] != whole[0][:shared] for ids in whole):
            shared -= 1
        verdicts = [
            compare_by_principle(n, pair.prompt, pair.response_a, pair.response_b) for n in TIERS
        ]
        targets = [0.5 + verdict / 2 for verdict in verdicts]
        return whole[0][:shared], [ids[shared:] for ids in whole], targets

    def draw(self) -> dict[str, torch.Tensor]:
        """The next batch."""
        trees = [self._tree() for _ in range(self.size)]
        width = max(len(c) + sum(map(len, branches)) for c, branches, _ in trees)
        ids = torch.full((self.size, width), self.tokenizer.pad_token_id)
        positions = torch.zeros((self.size, width), dtype=torch.long)
        allowed = torch.eye(width, dtype=torch.bool).repeat(self.size, 1, 1)
        answers, context = [], []
        for row, (shared, branches, _) in enumerate(trees):
            n = len(shared)
            ids[row, :n], positions[row, :n] = torch.tensor(shared), torch.arange(n)
            allowed[row, :n, :n] = torch.ones(n, n, dtype=torch.bool).tril()
            at, ends = n, []
            for branch in branches:
                m = len(branch)
                ids[row, at : at + m] = torch.tensor(branch)
                positions[row, at : at + m] = torch.arange(n, n + m)
                allowed[row, at : at + m, :n] = True
                allowed[row, at : at + m, at : at + m] = torch.ones(m, m, dtype=torch.bool).tril()
                at += m
                ends.append(at - 1)
            answers.append(ends)
            context.append(n)
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        return {
            "input_ids": ids,
            "positions": positions,
            "mask": mask.unsqueeze(1),
            "answers": torch.tensor(answers),
            "context": torch.tensor(context),
            "targets": torch.tensor([t for _, _, t in trees]),
        }


def judge_loss(
    model: LlamaForCausalLM, batch: dict[str, torch.Tensor], labels: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the verdicts (soft at ties) plus a little language modeling."""
    hidden = model.model(
        input_ids=batch["input_ids"],
        position_ids=batch["positions"],
        attention_mask=batch["mask"],
        use_cache=False,
    ).last_hidden_state
    rows = torch.arange(len(hidden)).unsqueeze(1)
    logprobs = model.lm_head(hidden[rows, batch["answers"]]).log_softmax(-1)
    p = batch["targets"]
    cross = -(p * logprobs[..., labels[0]] + (1 - p) * logprobs[..., labels[1]])
    weight = torch.where(p == 0.5, TIE_WEIGHT, 1.0)
    verdict = (cross * weight).sum() / weight.sum()
    decided = p != 0.5
    right = (logprobs[..., labels[0]] > logprobs[..., labels[1]]) == (p > 0.5)
    # Language modeling on a fifth of the context: enough to learn the words, cheap.
    steps = torch.arange(hidden.shape[1] - 1)
    inside = (steps + 1 < batch["context"].unsqueeze(1)) & (torch.rand(len(hidden), 1) < 0.2)
    logits = model.lm_head(hidden[:, :-1][inside])
    lm = torch.nn.functional.cross_entropy(logits, batch["input_ids"][:, 1:][inside])
    lm = torch.where(inside.any(), lm, torch.zeros(()))
    accuracy = torch.where(decided, right, torch.nan).nanmean(0)
    return verdict + LM_WEIGHT * lm.nan_to_num(), accuracy


def schedule(step: int, steps: int) -> float:
    """Linear warm-up over 3%, then a cosine down to 2%."""
    warm = max(1, int(steps * 0.03))
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def optimizer_for(model: LlamaForCausalLM, rate: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def train_judge(args: argparse.Namespace) -> None:
    """Train and save the demo judge."""
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer(args.seed)
    model = build_model(tokenizer, args.hidden, args.layers)
    labels = tuple(tokenizer.convert_tokens_to_ids(t) for t in ("A", "B"))
    batches = JudgeBatches(tokenizer, args.seed, args.batch)
    optimizer = optimizer_for(model, args.rate)
    count = sum(p.numel() for p in model.parameters())
    print(f"judge: {count / 1e6:.2f}M parameters, vocabulary {len(tokenizer)}", flush=True)
    began, losses, accuracies = time.time(), [], []
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = args.rate * schedule(step, args.steps)
        loss, accuracy = judge_loss(model, batches.draw(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        accuracies.append(accuracy)
        if (step + 1) % args.log_every == 0:
            recent = torch.stack(accuracies).nanmean(0).tolist()
            scores = " ".join(f"{n}={a:.2f}" for n, a in zip(TIERS, recent, strict=True))
            mean = sum(losses) / len(losses)
            print(f"{step + 1} {time.time() - began:.0f}s loss={mean:.3f} {scores}", flush=True)
            losses, accuracies = [], []
            if (step + 1) % (args.log_every * 10) == 0:
                save(model, tokenizer, Path(args.out))
    save(model, tokenizer, Path(args.out))


def chat_batch(
    tokenizer: PreTrainedTokenizerFast, chats: list[tuple[str, str]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chats as (ids, labels), both (B, T); the loss is on the completion and its end mark."""
    rows = []
    for prompt, completion in chats:
        head = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        body = f"{completion}<|end|>"
        head_ids = tokenizer(head, add_special_tokens=False)["input_ids"]
        body_ids = tokenizer(body, add_special_tokens=False)["input_ids"]
        rows.append((head_ids + body_ids, [-100] * len(head_ids) + body_ids))
    width = max(len(ids) for ids, _ in rows)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([r + [pad] * (width - len(r)) for r, _ in rows])
    labels = torch.tensor([r + [-100] * (width - len(r)) for _, r in rows])
    return ids, labels


def train_policy(args: argparse.Namespace) -> None:
    """Train and save the demo policy."""
    torch.manual_seed(args.seed + 1)
    tokenizer = build_tokenizer(args.seed)
    model = build_model(tokenizer, args.hidden, args.layers)
    world = World(args.seed + 1, "train")

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        prompts = [world.prompt() for _ in range(args.batch)]
        return chat_batch(tokenizer, [(prompt, world.response(prompt)) for prompt in prompts])

    train_on_chats(model, tokenizer, draw, args)


def train_on_chats(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    draw: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    args: argparse.Namespace,
) -> None:
    """Supervised training on batches of chats, then save."""
    optimizer = optimizer_for(model, args.rate)
    began, losses = time.time(), []
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = args.rate * schedule(step, args.steps)
        ids, labels = draw()
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % args.log_every == 0:
            print(
                f"{step + 1} {time.time() - began:.0f}s loss={sum(losses) / len(losses):.3f}",
                flush=True,
            )
            losses = []
            if (step + 1) % (args.log_every * 10) == 0:
                save(model, tokenizer, Path(args.out))
    save(model, tokenizer, Path(args.out))


class WriterBatches:
    """Draws critiques, revisions and lists of prompts as chats: (ids, labels), both (B, T)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, size: int) -> None:
        self.tokenizer = tokenizer
        self.world = World(seed, "train")
        self.size = size
        self.rng = random.Random(seed)
        self.principles = load_constitution("demo").constitution.principles
        self.templates = load_writer_templates("demo")
        self.synth = load_synth_template("demo")

    def _prompts(self) -> tuple[str, str]:
        shown, made = (
            "\n".join(f"{i + 1}. {self.world.prompt()}" for i in range(self.rng.randint(2, 4)))
            for _ in range(2)
        )
        return self.synth.render(examples=shown), made

    def _example(self) -> tuple[str, str]:
        if self.rng.random() < 0.15:
            return self._prompts()
        prompt = self.world.prompt()
        response = self.world.response(prompt)
        # Later rounds of a conversation see responses that were revised before.
        for principle in self.rng.sample(list(TIERS), self.rng.choice([0, 0, 1, 2, 3])):
            response = revision(principle, prompt, response, self.world)
        wrong = [p for p in self.principles if flaws(p.id, prompt, response)]
        anyone = not wrong or self.rng.random() < 0.3
        chosen = self.rng.choice(self.principles if anyone else wrong)
        found = critique(chosen.id, prompt, response)
        values = {"conversation": f"User: {prompt}", "response": response}
        if self.rng.random() < 0.4:
            assert chosen.critique
            return self.templates.critique.render(**values, request=chosen.critique), found
        assert chosen.revision
        asked = self.templates.revision.render(**values, critique=found, request=chosen.revision)
        return asked, revision(chosen.id, prompt, response, self.world)

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next batch."""
        return chat_batch(self.tokenizer, [self._example() for _ in range(self.size)])


def train_writer(args: argparse.Namespace) -> None:
    """Train and save the demo writer."""
    torch.manual_seed(args.seed + 2)
    tokenizer = build_tokenizer(args.seed)
    model = build_model(tokenizer, args.hidden, args.layers)
    batches = WriterBatches(tokenizer, args.seed + 2, args.batch)
    train_on_chats(model, tokenizer, batches.draw, args)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write float32 weights, config and tokenizer; a model card already there stays."""
    card = folder / "README.md"
    kept = card.read_text() if card.exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if kept is not None:
        card.write_text(kept)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=["judge", "policy", "writer"])
    parser.add_argument("--out", help="default: the folder that ships in the package")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=25)
    args = parser.parse_args()
    args.out = args.out or str(demo_model(args.which))
    args.steps = args.steps or {"judge": 3000, "policy": 1200, "writer": 3000}[args.which]
    torch.set_num_threads(args.threads)
    {"judge": train_judge, "policy": train_policy, "writer": train_writer}[args.which](args)


if __name__ == "__main__":
    main()
