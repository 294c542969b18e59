"""Files that let a harness ask `rlaif serve`, and the commands to run: configuration, not code."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlaif.constitution.load import load_constitution
from rlaif.serve.dialects.alpaca_eval import own_marks
from rlaif.util.output import explain_failure

REWARDBENCH_NAME = "gpt-4o-2024-08-06"
"""A model name that RewardBench knows; the server answers to it by an alias."""


@dataclass(frozen=True)
class HarnessTarget:
    """What is to be judged by, and where.

    Attributes:
        constitution: as the user names it.
        name, hash: the constitution's own.
        url: of the server.
        token_variable: environment variable that holds the server's token.
    """

    constitution: str
    name: str
    hash: str
    url: str
    token_variable: str = "RLAIF_TOKEN"

    @property
    def base(self) -> str:
        """Where OpenAI clients begin."""
        return f"{self.url.rstrip('/')}/v1"

    def model(self, dialect: str) -> str:
        """A model name of the server."""
        return f"rlaif/{self.name}:{dialect}"

    def serve(self, *flags: str) -> str:
        """The command that starts the server."""
        return shlex.join(["rlaif", "serve", "-c", self.constitution, *flags]) + " --judge MODEL"


@dataclass(frozen=True)
class WrittenConfig:
    """What a generator wrote, and the commands to run, in order."""

    files: list[Path]
    commands: list[str]


def target(constitution: str, url: str) -> HarnessTarget:
    """Read the constitution.

    Raises:
        RlaifError: it can't be used.
    """
    loaded = load_constitution(constitution).constitution
    return HarnessTarget(constitution, loaded.name, loaded.hash, url)


def alpaca_eval(to: HarnessTarget, folder: Path) -> WrittenConfig:
    """An annotator whose folder, and with it AlpacaEval's cache, is named by the constitution.

    AlpacaEval keeps annotations beside `configs.yaml` by instruction and outputs alone: in a folder
    of its own, a changed constitution does not find the verdicts of the old one.
    """
    name = f"rlaif-{to.name}-{to.hash[:8]}"
    start, first, second, end = own_marks(secrets.token_hex(8))
    prompt = (
        f"<|im_start|>user\n{start}{{instruction}}{first}{{output_1}}{second}{{output_2}}{end}\n"
        "<|im_end|>\n"
    )
    annotator = {
        name: {
            "prompt_template": f"{name}/prompt.txt",
            "fn_completions": "openai_completions",
            "completions_kwargs": {
                "model_name": to.model("alpaca-eval"),
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": 5,
                "requires_chatml": True,
                "num_procs": 16,
                "price_per_token": 0,
            },
            "fn_completion_parser": "logprob_parser",
            "completion_parser_kwargs": {
                "numerator_token": "m",
                "denominator_tokens": ["m", "M"],
                "is_binarize": False,
            },
            "completion_key": "completions_all",
            "batch_size": 1,
        }
    }
    clients = {"default": [{"base_url": to.base}]}
    files = [
        _write(folder / name / "configs.yaml", _yaml(annotator)),
        _write(folder / name / "prompt.txt", prompt),
        _write(folder / "clients.yaml", _yaml(clients)),
    ]
    config = files[0].resolve()
    run = (
        f'OPENAI_API_KEY="${{{to.token_variable}:-none}}" '
        f"OPENAI_CLIENT_CONFIG_PATH={shlex.quote(str(files[2].resolve()))} alpaca_eval "
        f"--model_outputs OUTPUTS.json --reference_outputs REFERENCE.json "
        f"--annotators_config {shlex.quote(str(config))} --fn_metric get_winrate "
        "--sort_by win_rate --precomputed_leaderboard None --is_cache_leaderboard False "
        f"--output_path {shlex.quote(str(folder / 'results'))}"
    )
    return WrittenConfig(files, [to.serve(), run])


def arena_hard(to: HarnessTarget, folder: Path) -> WrittenConfig:
    """An endpoint and a judge setting for Arena-Hard-Auto's `gen_judgment.py`."""
    name = f"rlaif-{to.name}-{to.hash[:8]}"
    endpoint = {
        name: {
            "model": to.model("arena-hard"),
            "model_name": to.model("arena-hard"),
            "endpoints": [{"api_base": to.base, "api_key": "none"}],
            "api_type": "openai",
            "parallel": 64,
            "max_tokens": 16,
            "temperature": 0.0,
        }
    }
    setting = {
        "judge_model": name,
        "temperature": 0.0,
        "max_tokens": 16,
        "bench_name": "arena-hard-v2.0",
        "reference": None,
        "regex_pattern": r"\[\[([AB<>=]+)\]\]",
        "prompt_template": "<|User Prompt|>\n{QUESTION}\n\n<|The Start of Assistant A's Answer|>\n"
        "{ANSWER_A}\n<|The End of Assistant A's Answer|>\n\n<|The Start of Assistant B's Answer|>\n"
        "{ANSWER_B}\n<|The End of Assistant B's Answer|>",
        "model_list": ["MODEL-TO-JUDGE"],
    }
    note = "# api_key: the server's token, if one is set.\n"
    files = [
        _write(folder / "endpoints.yaml", note + _yaml(endpoint)),
        _write(folder / "setting.yaml", _yaml(setting)),
    ]
    run = shlex.join(
        [
            "python",
            "gen_judgment.py",
            "--setting-file",
            str(files[1].resolve()),
            "--endpoint-file",
            str(files[0].resolve()),
        ]
    )
    return WrittenConfig(
        files,
        [to.serve(), f"(in a checkout of arena-hard-auto, after filling in model_list) {run}"],
    )


def rewardbench(to: HarnessTarget, folder: Path) -> WrittenConfig:
    """RewardBench knows OpenAI's model names only: an alias, and the environment of its command."""
    serve = to.serve("--alias", f"{REWARDBENCH_NAME}={to.name}:rewardbench")
    script = f"""#!/usr/bin/env bash
# Runs RewardBench's generative judge (version 1 or, with rewardbench-gen-v2, 2) against
# the server started with: {serve}
set -euo pipefail
export OPENAI_BASE_URL={shlex.quote(to.base)}
export OPENAI_API_KEY="${{{to.token_variable}:-none}}"
exec ${{REWARDBENCH:-rewardbench-gen}} --model {REWARDBENCH_NAME} --do_not_save \\
    --disable_beaker_save "$@"
"""
    path = _write(folder / "rewardbench.sh", script)
    path.chmod(0o755)
    return WrittenConfig([path], [serve, str(path)])


def promptfoo(to: HarnessTarget, folder: Path) -> WrittenConfig:
    """A configuration whose graders are the judge; the prompt's variable is `question`."""

    def grader(dialect: str) -> dict[str, Any]:
        return {
            "id": f"openai:chat:{to.model(dialect)}",
            "config": {"apiBaseUrl": to.base, "apiKey": f"{{{{env.{to.token_variable}}}}}"},
        }

    rubric = (
        "<Prompt>\n{{ question }}\n</Prompt>\n<Output>\n{{ output }}\n</Output>\n"
        "<Rubric>\n{{ rubric }}\n</Rubric>"
    )
    config = {
        "prompts": ["{{question}}"],
        "providers": ["PROVIDER-ONE", "PROVIDER-TWO"],
        "defaultTest": {
            "options": {"provider": grader("llm-rubric"), "rubricPrompt": rubric},
            "assert": [
                {"type": "llm-rubric", "value": "constitution"},
                {
                    "type": "select-best",
                    "value": "prompt: {{question}}",
                    "provider": grader("select-best"),
                    "rubricPrompt": _SELECT_BEST,
                },
            ],
        },
        "tests": [{"vars": {"question": "Your question"}}],
    }
    path = _write(folder / "promptfooconfig.yaml", _yaml(config))
    variable = to.token_variable
    run = (
        f'{variable}="${{{variable}:-none}}" promptfoo eval -c {shlex.quote(str(path))} --no-cache'
    )
    return WrittenConfig([path], [to.serve(), run])


_SELECT_BEST = (
    "You are comparing multiple pieces of text to see which best fits the following criteria: "
    "{{ criteria }}\n\nHere are the {{ outputs | length }} pieces of text:\n\n"
    "{% for output in outputs %}\n"
    '<Text index="{{ loop.index0 }}">\n{{ output }}\n</Text>\n{% endfor %}\n\n'
    "Output the index of the text that best fits the criteria."
)
GENERATORS: dict[str, Callable[[HarnessTarget, Path], WrittenConfig]] = {
    "alpaca-eval": alpaca_eval,
    "arena-hard": arena_hard,
    "rewardbench": rewardbench,
    "promptfoo": promptfoo,
}


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)


def _write(path: Path, text: str) -> Path:
    with explain_failure(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path
