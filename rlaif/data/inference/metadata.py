"""Which columns are about the row, and no part of what is asked, answered or said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlaif.data.inference.names import CONTEXT_NAMES, HISTORY_NAMES, TALK_NAMES, TOOL_NAMES

if TYPE_CHECKING:
    from rlaif.data.columns import Column

REMARKS = {
    "author",
    "category",
    "criteria",
    "critique",
    "dataset",
    "date",
    "distilabel",
    "elaboration",
    "explanation",
    "feedback",
    "feedbacks",
    "gold",
    "ground",
    "hash",
    "id",
    "ids",
    "judge",
    "labelling",
    "license",
    "link",
    "rank",
    "rationale",
    "rationales",
    "reason",
    "reasoning",
    "reasons",
    "rubric",
    "solution",
    "statement",
    "suggestion",
    "time",
    "timestamp",
    "truth",
    "url",
}
"""Words of columns whose texts are about the row, however long they are."""
_ASKED_WORDS = {
    "context",
    "profile",
    "prompt",
    "description",
    "document",
    "passage",
    "instructions",
}
"""Words that make a text one that may be part of the question, whatever else its name says."""
_REFERENCES = {
    "reference",
    "reference_answer",
    "reference_response",
    "references",
    "reference_score",
}
"""Names of answers to compare with."""
_METADATA_NAMES = {
    "source": "metadata",
    "language": "metadata",
    "lang": "metadata",
    "split": "metadata",
    "license": "metadata",
    "url": "metadata",
    "metadata": "metadata",
    "meta": "metadata",
}
_METADATA_WORDS = {
    "event",
    "events",
    "store",
    "attachments",
    "retries",
    "started",
    "completed",
    "id",
    "ids",
    "uuid",
    "hash",
    "sha256",
    "md5",
    "index",
    "idx",
    "timestamp",
    "tstamp",
    "date",
    "created",
    "updated",
    "time",
    "spent",
    "category",
    "subcategory",
    "categories",
    "source",
    "dataset",
    "datasplit",
    "origin",
    "subset",
    "split",
    "domain",
    "topic",
    "task",
    "type",
    "kind",
    "language",
    "lang",
    "license",
    "url",
    "link",
    "author",
    "user",
    "users",
    "worker",
    "evaluator",
    "annotator",
    "annotation",
    "annotations",
    "server",
    "status",
    "state",
    "version",
    "metadata",
    "meta",
    "model",
    "models",
    "policy",
    "policies",
    "generator",
    "temperature",
    "tokens",
    "token",
    "length",
    "len",
    "lead",
    "rationale",
    "rationales",
    "reason",
    "reasons",
    "reasoning",
    "explanation",
    "feedback",
    "feedbacks",
    "critique",
    "criteria",
    "rubric",
    "statement",
    "elaboration",
    "confidence",
    "suggestion",
    "suggestions",
    "reference",
    "references",
    "ground",
    "truth",
    "solution",
    "target",
    "gold",
    "distilabel",
    "labelling",
    "raw",
    "original",
    "new",
    "moderation",
    "toxic",
    "toxicity",
    "detoxify",
    "redacted",
    "country",
    "header",
    "ip",
    "hashed",
    "anony",
    "judge",
    "results",
    "scores",
    "stats",
    "eval",
    "plan",
    "reductions",
    "vectors",
    "severity",
    "harm",
    "safe",
    "safer",
    "similar",
    "unprocessed",
    "quotes",
    "stop",
    "finish",
    "usage",
    "error",
    "body",
    "code",
    "batch",
    "note",
    "notes",
    "seed",
    "format",
    "audience",
    "ability",
    "info",
    "extra",
    "emojis",
    "labels",
    "rank",
    "str",
    "complete",
    "is",
    "quality",
    "difficulty",
    "degree",
    "subject",
    "flag",
    "text_length",
    "path",
    "evaluation",
    "full",
    "literal",
    "global",
    "train",
    "prefix",
    "product",
    "order",
    "name",
    "title",
    "level",
    "turn",
    "epoch",
    "method",
    "parallel",
    "custom",
    "generation",
    "candidate",
    "used",
    "subreddit",
    "site",
    "tag",
    "tags",
    "num",
    "count",
    "avg",
    "mean",
    "std",
    "perplexity",
    "logprob",
    "llm",
    "correctness",
    "verify",
    "system",
    "group",
    "intention",
    "intent",
    "embedding",
}


def _calls_tools(words: set[str]) -> bool:
    return bool({"tool", "function", "api"} & words) and bool({"call", "calls"} & words)


def known_metadata(column: Column) -> str:
    """The role "metadata" for a column whose name says that it is about the row; else "".

    A name alone does not make a picture, a conversation or a definition of tools metadata; nor
    does a common word make metadata of a column with a text of its own in each row.
    """
    words = set(column.tokens)
    if column.shape in ("media", "chat", "chats") or column.name in TOOL_NAMES:
        return (
            "metadata" if words & {"labelling", "full", "event", "events", "trace", "raw"} else ""
        )
    if column.name in HISTORY_NAMES | TALK_NAMES or (
        _calls_tools(words) and column.shape not in ("flag", "number")
    ):
        return ""
    if words & CONTEXT_NAMES and column.shape != "text" and not words & REMARKS:
        return ""
    if reads_as_prose(column):
        told = column.name in _REFERENCES or (words & REMARKS and not words & _ASKED_WORDS)
        return "metadata" if told else ""
    if column.name in _METADATA_NAMES:
        return _METADATA_NAMES[column.name]
    return "metadata" if _METADATA_WORDS & words else ""


def reads_as_prose(column: Column) -> bool:
    """Whether most cells of a column hold a text of several words that is theirs alone, or one
    of a sentence that all share, as instructions are.
    """
    texts = [v for v in column.cells if isinstance(v, str)]
    if column.shape in ("texts", "entries"):
        texts = [t for v in column.values if isinstance(v, list) for t in _texts_of(v)]
    elif column.shape != "text":
        return False
    if not texts:
        return False
    words = sum(len(t.split()) for t in texts) / len(texts)
    return words >= 3 and (len(set(texts)) / len(texts) > 0.5 or words >= 6)


def _texts_of(value: list[object]) -> list[str]:
    """The texts of a list, and those in its entries."""
    found: list[str] = []
    for item in value:
        held = list(item.values()) if isinstance(item, Mapping) else [item]
        found += [text for text in held if isinstance(text, str)]
    return found
