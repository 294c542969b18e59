"""Joined token ids are those of the whole prompt: over tokenizers, chat templates and text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rlaif.engines.codec import HFCodec
from rlaif.engines.hub import ModelFiles
from rlaif.engines.segments import SegmentEncoder, never_joined
from rlaif.templates.judge import JudgeTemplate, load_judge_template

CORPUS = [
    "Which response is more polite?\n\n[Principle]\nWhich response stays on topic? 12345 3.14\n",
    "User: How do I clean a kettle?\nA: Use warm water.\nB: That is a silly question!!\n\n\n  ",
    "naïve café 漢字 かな 🙂 عربى हिन्दी e\u0301 it's don't we'll ``` {x} <y> \t tabs\r\n",
] * 3
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATES = {
    "spaced": "<s>{% for m in messages %}{% if m['role'] == 'user' %}"
    "[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}",
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "trimming": "<s>{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}"
    "<|im_end|>{% endfor %}<|im_start|>assistant\n\n",
    "inst": "<s>{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}",
}
SPECIAL = ["<s>", "<|im_start|>", "<|im_end|>", "<unk>"]


def _byte_level(pattern: str | None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if pattern:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(CORPUS * 5, trainer)
    return tokenizer


def _metaspace(model: str) -> Tokenizer:
    """Like SentencePiece: no words, merges run over anything; Gemma's and Llama 2's kind."""
    if model == "bpe":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL)
    else:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>")
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    # Words at training only, as SentencePiece has them: no piece mixes lines and letters.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+|[^\n▁]+|▁[^\n▁]*"), "isolated")
    tokenizer.train_from_iterator(CORPUS * 5, trainer)
    tokenizer.pre_tokenizer = None
    return tokenizer


def _normalizing() -> Tokenizer:
    tokenizer = _byte_level(GPT4)
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


TOKENIZERS = {
    "gpt2": lambda: _byte_level(None),
    "gpt4": lambda: _byte_level(GPT4),
    "nfc": _normalizing,
    "metaspace-bpe": lambda: _metaspace("bpe"),
    "metaspace-unigram": lambda: _metaspace("unigram"),
}


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], HFCodec]:
    made = {}
    for name, build in TOKENIZERS.items():
        for chat, template in TEMPLATES.items():
            folder = tmp_path_factory.mktemp(f"{name}-{chat}")
            fast = PreTrainedTokenizerFast(
                tokenizer_object=build(),
                eos_token="<|im_end|>",
                additional_special_tokens=SPECIAL[:2],
            )
            fast.chat_template = template
            fast.save_pretrained(folder)
            made[name, chat] = HFCodec(ModelFiles(name, Path(folder), "", name))
    return made


PREFILL = "The better response is Response"
LAYOUTS = {
    "pairwise": load_judge_template("pairwise"),
    "demo": load_judge_template("demo"),
    "inline": JudgeTemplate(
        "inline",
        "{{conversation}} A: {{first}} B: {{second}} Asked: {{principle}} Answer:",
        ("A", "B"),
    ),
    "glued": JudgeTemplate(
        "glued", "{{conversation}}|{{first}}|{{second}}{{principle}}", ("A", "B")
    ),
    "principle first": JudgeTemplate(
        "first", "{{principle}}\n{{conversation}}\n{{first}}\n{{second}}", ("A", "B")
    ),
}
TEXT = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", " ", "ends with space ", "x\n\n", "\r\n", "12", "it's", "e\u0301", "🙂"]),
    st.text(alphabet=" \n\t\ra1.'é漢\u0301▁Ġ<|[]", max_size=20),
)
QUESTIONS = [
    ["Which response is more polite?", "Which response stays on topic?", "3 things?"],
    ["Which?", "¿Cuál es mejor?", "哪个更好?"],
    ["  leading space", "Which?", "\nnewline first"],
    ["'s it?", "\u0301combining", "<|im_start|>user", "same", "same"],
]


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(texts=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=3))
def test_joined_ids_equal_those_of_the_whole(codecs, texts) -> None:
    for codec in codecs.values():
        for layout in LAYOUTS.values():
            for principles in QUESTIONS:
                for conversation, first, second in texts:
                    shared, ends = layout.branches(
                        conversation=conversation,
                        first=first,
                        second=second,
                        principles=principles,
                    )
                    context, tails = codec.encode_branches(
                        shared, ends, layout.fixed_before_principle
                    )
                    opened, ends_opened = codec.encode_branches(
                        shared, ends, layout.fixed_before_principle, PREFILL
                    )
                    whole_opened = codec.encode_branches(shared, ends, 0, PREFILL)
                    for n in range(len(ends)):
                        joined = opened + ends_opened[n]
                        assert joined == whole_opened[0] + whole_opened[1][n]
                    for principle, tail in zip(principles, tails, strict=True):
                        whole = layout.render(
                            conversation=conversation,
                            first=first,
                            second=second,
                            principle=principle,
                        )
                        expected = codec.encode_chat([{"role": "user", "content": whole}])
                        assert context + tail == expected
                        assert tail


def test_a_prefill_is_what_the_library_continues(codecs) -> None:
    """Against transformers' own rendering of a last message that goes on."""
    for (name, chat), codec in codecs.items():
        if chat == "inst":  # has no answers
            continue
        for content in ("Which is better?", "x", "漢字 🙂"):
            turns = [
                {"role": "user", "content": content},
                {"role": "assistant", "content": PREFILL},
            ]
            expected = codec._tokenizer.apply_chat_template(
                turns, tokenize=False, continue_final_message=True
            )
            context, (tail,) = codec.encode_branches("", [content], 0, PREFILL)
            assert codec.encode_text(expected) == context + tail, (name, chat)


def test_usual_layouts_are_joined_and_not_tokenized_whole(codecs) -> None:
    for (name, chat), codec in codecs.items():
        layout = LAYOUTS["pairwise"]
        before = codec.segments.joined
        for i in range(5):
            shared, ends = layout.branches(
                conversation=f"question {i}", first="one.", second="two ", principles=QUESTIONS[0]
            )
            codec.encode_branches(shared, ends, layout.fixed_before_principle)
        assert codec.segments.joined == before + 15, (name, chat)


def test_seam_that_a_token_spans_is_seen() -> None:
    assert not never_joined("\n", "[", ["a", "Ċ["])
    assert not never_joined(" ", "a", ["▁a"])
    assert never_joined("\n", "[", ["[", "\n", "[\n", "Ċ"])


def test_tokenizer_that_looks_back_falls_back_to_whole_prompts() -> None:
    """A made-up one whose ids depend on the text before: no seam is safe."""

    def encode(text: str) -> list[int]:
        return [ord(c) + 1000 * (text[:i].count("x") % 2) for i, c in enumerate(text)]

    encoder = SegmentEncoder(encode, lambda content, prefill: content, ["a"])
    for shared in ("xq\n", "q\n", "xxq\n"):
        context, tails = encoder.encode(shared, ["one", "two"], 1)
        joined = [context + tail for tail in tails]
        assert joined == [encode(shared + "one"), encode(shared + "two")]
    assert encoder.joined == 0
    assert encoder.whole == 6
