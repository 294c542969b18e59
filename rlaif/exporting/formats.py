"""Preference pairs as other trainers take them: one function for each format.

Each follows what the trainer's documentation or loader asks for: TRL's dataset formats, OpenAI's
guide to preference fine-tuning, LLaMA-Factory's `data/README.md`, Axolotl's RLHF page, OpenRLHF's
`RewardDataset`, NeMo RL's `PreferenceDataset`, and verl's data preparation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.records import Message

CLOSEST = 1e-5
"""Probabilities are kept so far from 0 and 1, as rows are rounded to five decimals."""


class Misfit(Exception):
    """A pair that a format can't hold; the message says why."""


@dataclass(frozen=True)
class ExportPair:
    """A decided pair.

    Attributes:
        p_chosen: probability that `chosen` is better, at least 0.5.
    """

    id: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    p_chosen: float
    tools: Sequence[Any] = ()

    @property
    def margin(self) -> float:
        """The log-odds of the label in nats: how far apart two rewards would be."""
        p = min(self.p_chosen, 1.0 - CLOSEST)
        return round(math.log(p) - math.log1p(-p), 5)


Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class ExportFormat:
    """A trainer's format.

    Attributes:
        ending: of the file, such as "jsonl".
        rows: the rows of one pair.
        extra: other files that the trainer needs, by name, made of the data file's name.
    """

    name: str
    summary: str
    ending: str
    rows: Callable[[ExportPair], Rows]
    extra: Callable[[str], Mapping[str, str]] = lambda _: {}


def _trl(pair: ExportPair) -> Rows:
    tools = {"tools": list(pair.tools)} if pair.tools else {}
    yield {
        "chosen": [*pair.prompt, *pair.chosen],
        "rejected": [*pair.prompt, *pair.rejected],
        **tools,
        "p_chosen": pair.p_chosen,
    }


def _parquet(pair: ExportPair) -> Rows:
    _refuse_calls(pair)
    yield {
        "id": pair.id,
        "prompt": pair.prompt,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "p_chosen": pair.p_chosen,
    }


def _reward(pair: ExportPair) -> Rows:
    tools = {"tools": list(pair.tools)} if pair.tools else {}
    yield {
        "chosen": [*pair.prompt, *pair.chosen],
        "rejected": [*pair.prompt, *pair.rejected],
        **tools,
        "margin": pair.margin,
    }


def _kto(pair: ExportPair) -> Rows:
    tools = {"tools": list(pair.tools)} if pair.tools else {}
    for completion, label in ((pair.chosen, True), (pair.rejected, False)):
        yield {"prompt": pair.prompt, "completion": completion, "label": label, **tools}


def _openai(pair: ExportPair) -> Rows:
    _refuse_thoughts(pair)
    messages, named, made = _openai_messages(pair.prompt, (), 0)
    yield {
        "input": {
            "messages": messages,
            "tools": list(pair.tools),
            "parallel_tool_calls": True,
        },
        "preferred_output": _openai_messages(pair.chosen, named, made)[0],
        "non_preferred_output": _openai_messages(pair.rejected, named, made)[0],
    }


def _openai_messages(
    messages: Sequence[Message], named: Sequence[str], made: int
) -> tuple[list[dict[str, Any]], list[str], int]:
    """Messages as OpenAI's API has them, with an id for each call and in each result.

    Args:
        named: ids of earlier calls that have no result yet, in order.
        made: how many calls were made before.

    Returns:
        The messages, the ids that are still open, and how many calls were made.
    """
    waiting, found = list(named), []
    for message in messages:
        if message["role"] == "function":
            raise Misfit("it has messages of the role `function`, which this format does not hold")
        if message["role"] == "tool" and "tool_call_id" not in message:
            if not waiting:
                raise Misfit("it has a tool's result that answers no call")
            message = {**message, "tool_call_id": waiting[0]}
        row = _openai_message(message, made)
        made += len(row.get("tool_calls", ()))
        waiting += [call["id"] for call in row.get("tool_calls", ())]
        if row.get("tool_call_id") in waiting:
            waiting.remove(row["tool_call_id"])
        found.append(row)
    return found, waiting, made


def _openai_message(message: Message, before: int) -> dict[str, Any]:
    """A message as OpenAI's API has it: arguments as JSON text, no content beside bare calls.

    Args:
        before: how many calls were made before it.
    """
    found: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    if "tool_calls" in message:
        found["content"] = message["content"] or None
        found["tool_calls"] = [
            {
                "id": call.get("id", f"call_{number}"),
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                },
            }
            for number, call in enumerate(message["tool_calls"], before + 1)
        ]
    if "tool_call_id" in message:
        found["tool_call_id"] = message["tool_call_id"]
    return found


def _axolotl(pair: ExportPair) -> Rows:
    _refuse_calls(pair)
    yield {
        "messages": pair.prompt,
        "chosen": _single(pair.chosen),
        "rejected": _single(pair.rejected),
    }


def _axolotl_files(data: str) -> Mapping[str, str]:
    return {
        "axolotl.yaml": (
            "# Put this into your Axolotl configuration.\n"
            "rl: dpo\n"
            "datasets:\n"
            f"  - path: {data}\n"
            "    ds_type: json\n"
            "    split: train\n"
            "    type: chat_template.default\n"
            "    field_messages: messages\n"
            "    field_chosen: chosen\n"
            "    field_rejected: rejected\n"
        )
    }


_LLAMA_FACTORY_ROLES = {"user": "human", "assistant": "gpt"}


def _llama_factory(pair: ExportPair) -> Rows:
    _refuse_calls(pair)
    turns = list(pair.prompt)
    system = ""
    if turns and turns[0]["role"] in ("system", "developer"):
        system = turns.pop(0)["content"]
    roles = [turn["role"] for turn in turns]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise Misfit("its turns do not alternate between user and assistant")
    row: dict[str, Any] = {
        "conversations": [
            {"from": _LLAMA_FACTORY_ROLES[turn["role"]], "value": turn["content"]} for turn in turns
        ],
        "system": system,
    }
    for side, messages in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        row[side] = {"from": "gpt", "value": _single(messages)["content"]}
    yield row


def _llama_factory_files(data: str) -> Mapping[str, str]:
    columns = {
        "messages": "conversations",
        "system": "system",
        "chosen": "chosen",
        "rejected": "rejected",
    }
    entry = {"file_name": data, "formatting": "sharegpt", "ranking": True, "columns": columns}
    return {"dataset_info.json": json.dumps({"preferences": entry}, indent=2) + "\n"}


def _openrlhf(pair: ExportPair) -> Rows:
    _refuse_tools(pair)
    yield {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}


def _nemo_rl(pair: ExportPair) -> Rows:
    _refuse_tools(pair)
    yield {
        "context": pair.prompt,
        "completions": [
            {"rank": 0, "completion": pair.chosen},
            {"rank": 1, "completion": pair.rejected},
        ],
    }


def _verl(pair: ExportPair) -> Rows:
    _refuse_calls(pair)
    yield {
        "data_source": "rlaif",
        "prompt": pair.prompt,
        "ability": "chat",
        "reward_model": {"style": "model", "ground_truth": _single(pair.chosen)["content"]},
        "extra_info": {
            "index": pair.id,
            "rejected": _single(pair.rejected)["content"],
            "p_chosen": pair.p_chosen,
        },
    }


def _single(messages: Sequence[Message]) -> dict[str, Any]:
    """A completion of one assistant message.

    Raises:
        Misfit: it is something else.
    """
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise Misfit("a completion is more than one message")
    return {"role": "assistant", "content": messages[0]["content"]}


def _refuse_calls(pair: ExportPair) -> None:
    messages = [*pair.prompt, *pair.chosen, *pair.rejected]
    if pair.tools or any("tool_calls" in m or m["role"] in ("tool", "function") for m in messages):
        raise Misfit("it has tools or tool calls, which this format does not hold")
    _refuse_thoughts(pair)


def _refuse_tools(pair: ExportPair) -> None:
    if pair.tools:
        raise Misfit("it has definitions of tools, which this format does not hold")


def _refuse_thoughts(pair: ExportPair) -> None:
    messages = [*pair.prompt, *pair.chosen, *pair.rejected]
    if any(message.get("reasoning_content") for message in messages):
        raise Misfit("it has what a model thought, which this format does not hold")


FORMATS = {
    found.name: found
    for found in (
        ExportFormat("trl", "TRL's DPO: conversational, implicit prompt", "jsonl", _trl),
        ExportFormat("reward", "TRL's RewardTrainer: pairs with a margin", "jsonl", _reward),
        ExportFormat("kto", "TRL's KTO: each completion with a label", "jsonl", _kto),
        ExportFormat("openai", "OpenAI's preference fine-tuning", "jsonl", _openai),
        ExportFormat(
            "llama-factory",
            "LLaMA-Factory's ranking data, with dataset_info.json",
            "json",
            _llama_factory,
            extra=_llama_factory_files,
        ),
        ExportFormat(
            "axolotl", "Axolotl's chat_template.default", "jsonl", _axolotl, extra=_axolotl_files
        ),
        ExportFormat(
            "openrlhf", "OpenRLHF's RewardDataset, with a chat template", "jsonl", _openrlhf
        ),
        ExportFormat("nemo-rl", "NeMo RL's PreferenceDataset", "jsonl", _nemo_rl),
        ExportFormat("verl", "verl's RL data: prompts, chosen as reference", "parquet", _verl),
        ExportFormat("parquet", "prompt, chosen, rejected and p_chosen", "parquet", _parquet),
    )
}
