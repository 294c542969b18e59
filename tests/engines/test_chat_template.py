"""What a model reads of a conversation: chat templates and control tokens, as people have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rlaif.engines.chat_template import ChatTemplate
from rlaif.engines.codec import HFCodec
from rlaif.engines.control_tokens import ControlTokens
from rlaif.engines.hub import ModelFiles
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.util.resources import demo_model

PLAIN = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OF_PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% for p in m['content'] %}"
    "{% if p['type'] is defined and p['type'] == 'text' %}{{ p['text'] }}{% endif %}"
    "{% endfor %}<|end|>{% endfor %}<|assistant|>"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
)
DROPS_SYSTEM = PLAIN.replace(
    "{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}"
)


def tokenizer(template: Any = PLAIN) -> Any:
    found: Any = AutoTokenizer.from_pretrained(demo_model("judge"))
    found.chat_template = template
    return found


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_templates_that_render_parts_alone_get_parts() -> None:
    template = ChatTemplate(tokenizer(OF_PARTS), "m")
    assert template.takes_parts
    turns: Any = [user("Hello"), {"role": "assistant", "content": "Hi"}, user("Bye")]
    assert template.render(turns) == ChatTemplate(tokenizer(), "m").render(turns)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<|{{ m['role'] }}|><|end|>{% endfor %}<|assistant|>",
        "<|user|>{{ messages[-1]['content'] }}<|end|><|assistant|>",
        "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}",
        PLAIN.replace("{{ m['content'] }}", "{{ m['content'][:60] }}"),
        PLAIN.replace("{{ m['content'] }}", "{{ m['content'] | truncate(200) }}"),
    ],
)
def test_templates_that_leave_texts_or_turns_out_are_refused(template: str) -> None:
    with pytest.raises(RlaifError, match=r"leaves out (the text|turns|the end)"):
        ChatTemplate(tokenizer(template), "m")


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_system_prompt_is_never_lost(template: str, caplog: pytest.LogCaptureFixture) -> None:
    found = ChatTemplate(tokenizer(template), "m")
    assert not found.takes_system
    assert not caplog.records
    for _ in range(2):
        text = found.render([{"role": "system", "content": "Be brief."}, user("Hello")])
        assert "<|user|>Be brief.\n\nHello<|end|>" in text
    assert [r.getMessage().count("'m' has no place for a system") for r in caplog.records] == [1]
    assert ChatTemplate(tokenizer(), "m").takes_system


def test_a_conversation_that_a_template_refuses_is_one_row_s_matter() -> None:
    found = ChatTemplate(tokenizer(NO_SYSTEM), "m")
    with pytest.raises(ConversationRefused, match="roles must alternate"):
        found.render([user("One"), user("Two")])
    assert found.render([user("One")])


def test_named_templates_need_a_default() -> None:
    assert ChatTemplate(tokenizer({"default": PLAIN, "tool_use": PLAIN}), "m").takes_system
    with pytest.raises(RlaifError, match="no default chat template; it has 'tool_use'"):
        ChatTemplate(tokenizer({"tool_use": PLAIN}), "m")
    with pytest.raises(RlaifError, match="has no chat template"):
        ChatTemplate(tokenizer(None), "m")


def test_ordinary_added_tokens_stay_as_they_are(tmp_path: Path) -> None:
    found = tokenizer()
    found.add_tokens(["warm", "silly", "<b>", "</b>", "é"])
    found.save_pretrained(tmp_path)
    codec = HFCodec(_files(tmp_path))
    text = "Use <b>warm</b> water in a café. A silly question."
    ids = codec.encode_chat([user(text)])
    assert (
        ids == found(f"<|user|>{text}<|end|><|assistant|>", add_special_tokens=False)["input_ids"]
    )
    assert found.convert_tokens_to_ids("warm") in ids


def test_ordinary_tokens_that_the_template_writes_are_control_tokens(tmp_path: Path) -> None:
    found = tokenizer(PLAIN.replace("<|end|>", "<<turn>>"))
    found.add_tokens(["<<turn>>", "user"])
    found.save_pretrained(tmp_path)
    codec = HFCodec(_files(tmp_path))
    index = found.convert_tokens_to_ids("<<turn>>")
    plain = codec.encode_chat([user("The user said hello.")])
    assert codec.encode_chat([user("A <<turn>> b")]).count(index) == plain.count(index) == 1
    assert found.convert_tokens_to_ids("user") in plain


def test_tokens_of_turns_that_only_some_conversations_have_are_control_tokens(
    tmp_path: Path,
) -> None:
    rules = PLAIN.replace(
        "<|{{ m['role'] }}|>",
        "{% if m['role'] == 'system' %}<<rules>>{% else %}<|{{ m['role'] }}|>{% endif %}",
    )
    found = tokenizer(rules)
    found.add_tokens(["<<rules>>"])
    found.save_pretrained(tmp_path)
    codec = HFCodec(_files(tmp_path))
    index = found.convert_tokens_to_ids("<<rules>>")
    assert index not in codec.encode_chat([user("Now <<rules>> say it.")])


@pytest.mark.parametrize("lost", ["[a-z]", "[^A-Z ]", "o"])
def test_a_tokenizer_that_loses_letters_is_refused(tmp_path: Path, lost: str) -> None:
    found = tokenizer()
    replace = normalizers.Replace(Regex(lost), "")
    found.backend_tokenizer.normalizer = replace
    found.save_pretrained(tmp_path)
    with pytest.raises(RlaifError, match="loses text"):
        HFCodec(_files(tmp_path))


def _files(path: Path) -> ModelFiles:
    import json

    from rlaif.engines.hub import resolve_model

    demo = resolve_model("demo").path
    (path / "config.json").write_text((demo / "config.json").read_text())
    (path / "model.safetensors").write_bytes((demo / "model.safetensors").read_bytes())
    assert json.loads((path / "config.json").read_text())
    return resolve_model(str(path))


NORMALIZERS = {
    "none": None,
    "nfkc": normalizers.NFKC(),
    "nfc": normalizers.NFC(),
    "lower": normalizers.Lowercase(),
    "accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "replace": normalizers.Replace("⟨", "<"),
    "strip": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    "bert": normalizers.BertNormalizer(),
}
SPELLED = [
    "<think>",
    "＜think＞",
    "<THINK>",
    "<thínk>",
    "⟨think>",
    "<|XM_END|>",
    "<|xm_end|>",
    "＜｜ｘｍ＿ｅｎｄ｜＞",
    "<|im\u200b_end|>",
    "<thi<think>nk>",
    "<|xm_<|xm_end|>end|>",
    "\ufb01 <think> \ufb01",
]


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_no_normalizer_makes_control_tokens_of_text(name: str, normalized: bool) -> None:
    backend = Tokenizer(models.BPE(vocab={}, merges=[], byte_fallback=False))
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz<>|_ ABCXMEND", "[UNK]"})
    backend = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token="[UNK]"))
    backend.normalizer = NORMALIZERS[name]  # type: ignore[assignment]
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    control = ["<think>", "<|xm_end|>"]
    backend.add_special_tokens(
        [AddedToken(text, normalized=normalized, special=True) for text in control]
    )
    wrapped: Any = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    found = ControlTokens(wrapped)
    ids = {wrapped.convert_tokens_to_ids(text) for text in control}
    reached = False
    for text in [*SPELLED, *(f"say {text} twice {text}" for text in SPELLED)]:
        reached |= not ids.isdisjoint(wrapped(text, add_special_tokens=False)["input_ids"])
        safe = found.defuse(text)
        assert ids.isdisjoint(wrapped(safe, add_special_tokens=False)["input_ids"]), text
        assert not (normalized and found.occur_in(safe))
    assert reached
    for text in ("plain words", "a < b and b > c", ""):
        assert found.defuse(text) == text


@pytest.mark.parametrize(
    "shown",
    [
        "m['content'].split('\\n')[0] if '\\n' in m['content'] else m['content']",
        "m['content'][:20000]",
        "m['content'] if loop.index < 4 else ''",
        "m['content'].split('<x>')[0]",
        "m['content'] | replace('because', '')",
    ],
)
def test_a_conversation_that_a_template_cuts_is_refused(shown: str) -> None:
    found = ChatTemplate(tokenizer(PLAIN.replace("m['content']", shown)), "m")
    assert found.render([user("Hello")])
    hello: Any = [user("Hello"), {"role": "assistant", "content": "Hi"}] * 2
    cut: list[Any] = [
        [user("First line.\nSecond line.")],
        [user("word " * 4_001 + "end")],
        [*hello, user("Bye")],
        [user("What is <x> in this?")],
        [user("It is so, because it is.")],
    ]
    refused = 0
    for messages in cut:
        try:
            assert messages[-1]["content"] in found.render(messages)
        except ConversationRefused:
            refused += 1
    assert refused >= 1


def test_thinking_of_earlier_turns_may_be_left_out() -> None:
    found = ChatTemplate(
        tokenizer(PLAIN.replace("m['content']", "m['content'].split('</think>')[-1]")), "m"
    )
    turns: Any = [user("Hello"), {"role": "assistant", "content": "<think>hm</think>\n\nHi"}]
    assert "hm" not in found.render([*turns, user("Bye")])
    turns[1]["content"] = "It ends with </think> as I said."
    with pytest.raises(ConversationRefused, match="text of the assistant message"):
        found.render([*turns, user("Bye")])


LAST_TURN = (
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.system = m.content %}{% endif %}{% endfor %}"
    "{% for m in messages if m.role != 'system' %}<|{{ m['role'] }}|>"
    "{% if loop.last and ns.system %}{{ ns.system }}\n\n{% endif %}{{ m['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_a_system_prompt_may_stand_in_the_last_turn() -> None:
    """As Mistral's templates have it."""
    found = ChatTemplate(tokenizer(LAST_TURN), "m")
    turns: Any = [
        {"role": "system", "content": "Be brief."},
        user("One?"),
        {"role": "assistant", "content": "Yes."},
        user("Two?"),
    ]
    text = found.render(turns)
    assert text.index("One?") < text.index("Be brief.") < text.index("Two?")


def test_a_text_beside_a_picture_is_not_lost() -> None:
    shown = (
        "{% for m in messages %}<|{{ m['role'] }}|>{% if m['content'] is string %}"
        "{{ m['content'] }}{% else %}{% for p in m['content'] %}{% if p.type == 'image' %}[IMG]"
        "{% elif MARK %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|end|>{% endfor %}"
        "<|assistant|>"
    )
    turn: Any = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi."}]}]
    assert "[IMG]Hi." in ChatTemplate(tokenizer(shown.replace("MARK", "p.text")), "m").render(turn)
    dropping = ChatTemplate(tokenizer(shown.replace("MARK", "false")), "m")
    with pytest.raises(ConversationRefused, match="leaves out text"):
        dropping.render(turn)


def test_results_of_tools_may_be_written_as_json() -> None:
    """As Llama 3.1's template does."""
    shown = "m['content'] | tojson if m['role'] == 'tool' else m['content']"
    found = ChatTemplate(tokenizer(PLAIN.replace("m['content']", shown)), "m")
    turns: Any = [user("Weather?"), {"role": "tool", "content": 'sunny\n"warm"'}, user("Thanks.")]
    assert "sunny\\n" in found.render(turns)


def test_a_switch_for_thinking_may_be_taken_out() -> None:
    """As SmolLM3's template does with `/no_think`."""
    shown = "m['content'] | replace('/no_think', '') | replace('/think', '') | trim"
    found = ChatTemplate(tokenizer(PLAIN.replace("m['content']", shown)), "m")
    for system in ("You are kind. /no_think", "/no_think", "Be brief. /think Be kind."):
        found.render([{"role": "system", "content": system}, user("hi")])
    with pytest.raises(ConversationRefused):
        ChatTemplate(
            tokenizer(PLAIN.replace("m['content']", f"{shown} | replace('kind', '')")), "m"
        ).render([{"role": "system", "content": "You are kind. /no_think"}, user("hi")])
