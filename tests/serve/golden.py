"""Requests in the shapes that harnesses send, written anew: the parts that parsing needs, and other
words around them.  `scripts/check_dialects.py` holds each against the real harness.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Golden:
    """A harness's question about `prompt`: how it is sent, by the responses that it shows."""

    name: str
    dialect: str
    template: str
    responses: int
    system: str = ""

    def render(self, prompt: str, *responses: str) -> list[dict[str, str]]:
        """The messages; `<<PROMPT>>` and `<<0>>`, `<<1>>`... are put in."""
        text = self.template.replace("<<PROMPT>>", prompt)
        for i, response in enumerate(responses):
            text = text.replace(f"<<{i}>>", response)
        start = [{"role": "system", "content": self.system}] if self.system else []
        return [*start, {"role": "user", "content": text}]


def _assistants(letters: str) -> str:
    return "\n\n".join(
        f"[The Start of Assistant {x}'s Answer]\n<<{i}>>\n[The End of Assistant {x}'s Answer]"
        for i, x in enumerate(letters)
    )


PAIRWISE = Golden(
    name="rewardbench v1 and MT-bench pair-v2",
    dialect="rewardbench",
    template=f"[User Question]\n<<PROMPT>>\n\n{_assistants('AB')}",
    responses=2,
    system="Judge fairly and end with [[A]] or [[B]].",
)
FOUR = Golden(
    name="rewardbench v2",
    dialect="rewardbench",
    template=f"[User Question]\n<<PROMPT>>\n\n{_assistants('ABCD')}",
    responses=4,
    system="End with a letter.",
)
RATING = Golden(
    "rewardbench v2 ratings",
    "rewardbench",
    "### Task Description\nRate from 1 to 10.\n\n[Query]\n<<PROMPT>>\n\n[Response]\n<<0>>\n\n"
    "[Your judgement]",
    1,
)
MT_SINGLE = Golden(
    "MT-bench single-v1",
    "mt-bench",
    '[Instruction]\nRate it as "[[rating]]", such as "Rating: [[5]]".\n\n[Question]\n<<PROMPT>>\n\n'
    "[The Start of Assistant's Answer]\n<<0>>\n[The End of Assistant's Answer]",
    1,
)
MT_SINGLE_REFERENCE = Golden(
    "MT-bench single-math-v1",
    "mt-bench",
    "[Instruction]\nRate it.\n\n[Question]\n<<PROMPT>>\n\n[The Start of Reference Answer]\nForty.\n"
    "[The End of Reference Answer]\n\n[The Start of Assistant's Answer]\n<<0>>\n"
    "[The End of Assistant's Answer]",
    1,
)
MT_REFERENCE = Golden(
    "MT-bench pair-math-v1",
    "mt-bench",
    "[User Question]\n<<PROMPT>>\n\n[The Start of Reference Answer]\nForty.\n"
    f"[The End of Reference Answer]\n\n{_assistants('AB')}",
    2,
)


def _talk(letter: str, last: str) -> str:
    return (
        f"<|The Start of Assistant {letter}'s Conversation with User|>\n\n### User:\nHello there.\n\n"
        f"### Assistant {letter}:\nHello.\n\n### User:\n<<PROMPT>>\n\n### Assistant {letter}:\n{last}"
        f"\n\n<|The End of Assistant {letter}'s Conversation with User|>"
    )


MULTI_TURN = Golden(
    "MT-bench pair-v2-multi-turn",
    "mt-bench",
    f"{_talk('A', '<<0>>')}\n\n\n{_talk('B', '<<1>>')}",
    2,
)
REFERENCE_TALK = (
    "<|The Start of Reference Answer|>\n\n### User:\nHello there.\n\n### Reference answer:\nHi."
    "\n\n### User:\n<<PROMPT>>\n\n### Reference answer:\nForty.\n\n"
    "<|The End of Reference Answer|>\n\n\n"
)
MULTI_TURN_REFERENCE = Golden(
    "MT-bench pair-math-v1-multi-turn", "mt-bench", REFERENCE_TALK + MULTI_TURN.template, 2
)
MT_SINGLE_TALK = Golden("MT-bench single-v1-multi-turn", "mt-bench", _talk("A", "<<0>>"), 1)
MT_SINGLE_TALK_REFERENCE = Golden(
    "MT-bench single-math-v1-multi-turn", "mt-bench", REFERENCE_TALK + _talk("A", "<<0>>"), 1
)
ARENA = Golden(
    name="Arena-Hard",
    dialect="arena-hard",
    template="<|User Prompt|>\n<<PROMPT>>\n\n<|The Start of Assistant A's Answer|>\n<<0>>\n"
    "<|The End of Assistant A's Answer|>\n\n<|The Start of Assistant B's Answer|>\n<<1>>\n"
    "<|The End of Assistant B's Answer|>",
    responses=2,
    system="End with one of five labels.",
)
ALPACA_CLASSIFIER = Golden(
    "AlpacaEval weighted",
    "alpaca-eval",
    '## Instruction\n\n{\n    "instruction": """<<PROMPT>>""",\n}\n\n## Model Outputs\n\nHere:\n\n'
    '{\n    {\n        "model_identifier": "m",\n        "output": """<<0>>"""\n    },\n    {\n'
    '        "model_identifier": "M",\n        "output": """<<1>>"""\n    }\n}\n\n## Task\n\nChoose.',
    2,
)
ALPACA_RANKING = Golden(
    "AlpacaEval ranking",
    "alpaca-eval",
    'The prompt:\n{\n    "instruction": """<<PROMPT>>""",\n}\n\nHere are the outputs of the models:'
    '\n[\n    {\n        "model": "model_1",\n        "answer": """<<0>>"""\n    },\n    {\n'
    '        "model": "model_2",\n        "answer": """<<1>>"""\n    }\n]\n\nNow please rank them.',
    2,
)
RUBRIC = Golden(
    "promptfoo llm-rubric, as our configuration asks",
    "llm-rubric",
    "<Prompt>\n<<PROMPT>>\n</Prompt>\n<Output>\n<<0>>\n</Output>\n<Rubric>\nconstitution\n</Rubric>",
    1,
)
SELECT_BEST = Golden(
    "promptfoo select-best",
    "select-best",
    "Compare the texts to see which best fits the following criteria: prompt: <<PROMPT>>\n\n"
    'Here are the 3 pieces of text:\n\n\n<Text index="0">\n<<0>>\n</Text>\n\n<Text index="1">\n<<1>>\n'
    '</Text>\n\n<Text index="2">\n<<2>>\n</Text>\n\n\n'
    "Output the index of the text that best fits the criteria. One integer.",
    3,
)
G_EVAL_STEPS = Golden(
    "deepeval G-Eval, steps",
    "deepeval",
    "Make evaluation steps.\n\n\n\nEvaluation Criteria:\nconstitution\n\n**\nIMPORTANT: JSON.\n**",
    0,
)
G_EVAL = Golden(
    "deepeval G-Eval, score",
    "deepeval",
    'Give `"score"`: an integer between 0 and 10, 10 being best.\n\n---\n\nEvaluation Steps:\n'
    "1. constitution\n\nTest Case:\nInput:\n<<PROMPT>> \n\nActual Output:\n<<0>> \n\n\n\nParameters:"
    "\nInput and Actual Output\n\n---\nJSON:",
    1,
)
INSPECT_QA = Golden(
    "inspect model_graded_qa",
    "inspect",
    "Assess it.\n\n[BEGIN DATA]\n***\n[Task]: <<PROMPT>>\n***\n[Submission]: <<0>>\n***\n"
    "[Criterion]: constitution\n***\n[END DATA]\n\nEnd with GRADE.",
    1,
)
INSPECT_FACT = Golden(
    "inspect model_graded_fact",
    "inspect",
    "Compare.\n\n[BEGIN DATA]\n************\n[Question]: <<PROMPT>>\n************\n[Expert]: <<1>>\n"
    "************\n[Submission]: <<0>>\n************\n[END DATA]\n\nEnd with GRADE.",
    2,
)
ALL = [value for value in list(globals().values()) if isinstance(value, Golden)]
