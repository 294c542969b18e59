"""The dialects that a model alias `rlaif/<constitution>:<dialect>` may name."""

from __future__ import annotations

from rlaif.serve.dialects.alpaca_eval import AlpacaEval
from rlaif.serve.dialects.arena_hard import ArenaHard
from rlaif.serve.dialects.base import Dialect
from rlaif.serve.dialects.deepeval import GEval
from rlaif.serve.dialects.inspect_graders import InspectGraders
from rlaif.serve.dialects.marked import MTBench, RewardBench
from rlaif.serve.dialects.native import NativeJson
from rlaif.serve.dialects.promptfoo import LlmRubric, SelectBest

_ALL: tuple[Dialect, ...] = (
    NativeJson(),
    AlpacaEval(),
    ArenaHard(),
    MTBench(),
    RewardBench(),
    LlmRubric(),
    SelectBest(),
    GEval(),
    InspectGraders(),
)
DIALECTS = {dialect.name: dialect for dialect in _ALL}
