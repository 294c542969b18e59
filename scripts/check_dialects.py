"""Holds the server's dialects against the harnesses themselves, each in an environment of its own.

    python scripts/check_dialects.py --work /tmp/dialects
    python scripts/check_dialects.py --work /tmp/dialects --only rewardbench deepeval
    python scripts/check_dialects.py --work W --arena-hard CHECKOUT --fastchat CHECKOUT

Starts `rlaif serve` with the demo judge; then each harness's own code writes the question, the
server answers it, and the harness's own code reads the answer.  What it reads must be what the
judge says of the same pair over the native endpoint.  Needs a package index (and npm for
promptfoo).  Arena-Hard-Auto and FastChat's prompts are not on one: name checkouts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from rlaif.demo.world import World

PORT = 8378
URL = f"http://127.0.0.1:{PORT}"
ALIAS = "gpt-4o-2024-08-06"

REWARDBENCH = """
import importlib.util, json, re, sys, types
from unittest.mock import MagicMock
# Clients of services and chat templates that only its command needs.
for name in ("anthropic", "google", "google.generativeai", "google.generativeai.types", "together",
             "openai", "fastchat", "fastchat.conversation"):
    sys.modules[name] = MagicMock()
def load(name):
    spec = importlib.util.find_spec("rewardbench")
    path = spec.submodule_search_locations[0] + f"/{name}.py"
    module = types.ModuleType(name)
    exec(compile(open(path).read(), path, "exec"), module.__dict__)
    return module
v1, v2 = load("generative"), load("generative_v2")
out = []
for case in json.load(open(sys.argv[1])):
    def talk(text):
        return [{"role": "user", "content": case["prompt"]}, {"role": "assistant", "content": text}]
    a, b = talk(case["a"]), talk(case["b"])
    system, user = v1.format_judge_answers(case["prompt"], a, b)
    out.append({"kind": "pair", "case": case["id"], "system": system, "user": user})
    first = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    system, user = v1.format_judge_answers("Hi.", first + a, first + b, multi_turn=True)
    out.append({"kind": "turns", "case": case["id"], "system": system, "user": user})
    system, user = v2.format_judge_answers(case["prompt"], a, b, talk(case["b"] + " Indeed."), b)
    out.append({"kind": "four", "case": case["id"], "system": system, "user": user})
    user = v2.ratings_prompt_ties.format(prompt=case["prompt"], completion=case["a"])
    out.append({"kind": "rating", "case": case["id"], "system": "", "user": user})
if len(sys.argv) > 2:
    for item, said in zip(out, json.load(open(sys.argv[2]))):
        if item["kind"] == "rating":
            match = re.search(r"\\b([1-9]|10)\\b\\s*$", said.strip())
            item["read"] = int(match.group(1)) if match else -1
        else:
            module = v2 if item["kind"] == "four" else v1
            item["read"] = module.process_judgement(said, None)
print(json.dumps(out))
"""

DEEPEVAL = """
import json, sys
from deepeval.metrics import GEval
from deepeval.models import LocalModel
from deepeval.test_case import LLMTestCase, SingleTurnParams as P
out = []
for case in json.load(open(sys.argv[1])):
    model = LocalModel(model="rlaif/demo:deepeval", base_url=sys.argv[2] + "/v1", api_key="none")
    metric = GEval(name="constitution", criteria="constitution", model=model, async_mode=False,
                   evaluation_params=[P.INPUT, P.ACTUAL_OUTPUT])
    test_case = LLMTestCase(input=case["prompt"], actual_output=case["a"])
    metric.measure(test_case, _show_indicator=False)
    out.append({"case": case["id"], "score": metric.score, "reason": metric.reason})
print("\\n" + json.dumps(out))
"""

ARENA = """
import json, re, sys
import yaml
setting = yaml.safe_load(open(sys.argv[1] + "/config/arena-hard-v2.0.yaml"))
out = []
for case in json.load(open(sys.argv[2])):
    user = setting["prompt_template"].format(QUESTION=case["prompt"], ANSWER_A=case["a"],
                                             ANSWER_B=case["b"])
    out.append({"case": case["id"], "user": user, "pattern": setting["regex_pattern"]})
print(json.dumps(out))
"""


def ask(model: str, system: str, user: str) -> str:
    """What the server says to a chat."""
    messages = [{"role": "system", "content": system}] if system else []
    body = {"model": model, "messages": [*messages, {"role": "user", "content": user}],
            "temperature": 0, "max_tokens": 2048, "n": 1}  # fmt: skip
    answer = httpx.post(f"{URL}/v1/chat/completions", json=body, timeout=120)
    if answer.status_code != 200:
        raise SystemExit(f"refused: {answer.text}")
    return str(answer.json()["choices"][0]["message"]["content"])


def native(case: dict[str, str]) -> tuple[dict[str, Any], float]:
    """The judge's own words: the comparison of a and b, and the score of a."""
    pair = {"prompt": case["prompt"], "response_a": case["a"], "response_b": case["b"]}
    single = {"prompt": case["prompt"], "response": case["a"]}
    compared = httpx.post(f"{URL}/v1/judge/pairwise", json=pair, timeout=120).json()
    score = httpx.post(f"{URL}/v1/judge/pointwise", json=single, timeout=120).json()["score"]
    return compared, float(score)


def environment(work: Path, name: str, *packages: str) -> Path:
    """A Python with packages, kept between runs of this script."""
    python = work / name / "bin" / "python"
    if not python.exists():
        venv.create(work / name, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    return python


def run(python: Path, code: str, *arguments: str) -> Any:
    """The JSON on the last line that a driver prints."""
    done = subprocess.run(
        [str(python), "-c", code, *arguments], capture_output=True, text=True,
        env={**os.environ, "DEEPEVAL_TELEMETRY_OPT_OUT": "YES"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def check(name: str, what: str, got: object, expected: object) -> None:
    """Stop at the first answer that a harness reads otherwise."""
    if got != expected:
        raise SystemExit(f"{name}: {what}: the harness read {got!r}, the judge says {expected!r}")


def letter(compared: dict[str, Any]) -> str:
    """The winner where there is no tie."""
    return "A" if compared["p_a"] > 0.5 else "B"


def rewardbench(work: Path, cases: list[dict[str, str]], args: argparse.Namespace) -> int:
    """RewardBench 0.1.4: its own prompts and its own reading, versions 1 and 2."""
    python = environment(work, "rewardbench", "--no-deps", "rewardbench==0.1.4")
    given, answers = work / "cases.json", work / "answers.json"
    asked = run(python, REWARDBENCH, str(given))
    said = [ask(ALIAS, item["system"], item["user"]) for item in asked]
    answers.write_text(json.dumps(said))
    by_id = {case["id"]: case for case in cases}
    for item in run(python, REWARDBENCH, str(given), str(answers)):
        case = by_id[item["case"]]
        compared, score = native(case)
        if item["kind"] == "pair":
            check("rewardbench", case["id"], item["read"], letter(compared))
        elif item["kind"] == "rating":
            check("rewardbench", case["id"], item["read"], 1 + round(9 * score))
        elif item["kind"] == "four" and compared["margin"] > 0.5:
            check("rewardbench", case["id"], item["read"] == "A", compared["winner"] == "a")
        elif item["read"] not in ("A", "B", "C", "D"):
            check("rewardbench", case["id"], item["read"], "a letter")
    return len(asked)


def deepeval(work: Path, cases: list[dict[str, str]], args: argparse.Namespace) -> int:
    """G-Eval of deepeval 4.3.1, with its local model."""
    python = environment(work, "deepeval", "deepeval==4.3.1")
    for item in run(python, DEEPEVAL, str(work / "cases.json"), URL):
        case = next(c for c in cases if c["id"] == item["case"])
        check("deepeval", case["id"], round(10 * item["score"]), round(10 * native(case)[1]))
    return len(cases)


def promptfoo(work: Path, cases: list[dict[str, str]], args: argparse.Namespace) -> int:
    """The configuration for promptfoo 0.123 that `rlaif harness promptfoo` writes."""
    folder = work / "promptfoo"
    binary = folder / "node_modules" / ".bin"
    if not (binary / "promptfoo").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--silent", "node@22",
             "promptfoo@0.123.0"], cwd=folder, check=True,
        )  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "rlaif", "harness", "promptfoo", "-c", "demo", "--url", URL, "-o",
         str(folder / "config")], check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    import yaml

    path = folder / "config" / "promptfooconfig.yaml"
    config = yaml.safe_load(path.read_text())
    # Providers that say what the cases say.
    config["providers"] = [f"file://{side}.js" for side in "ab"]
    for side in "ab":
        said = json.dumps({case["prompt"]: case[side] for case in cases})
        (folder / "config" / f"{side}.js").write_text(
            f"const said = {said};\nmodule.exports = class {{ id() {{ return '{side}'; }}\n"
            "async callApi(prompt) { return { output: said[prompt] }; } };\n"
        )
    config["tests"] = [{"vars": {"question": case["prompt"]}} for case in cases]
    path.write_text(yaml.safe_dump(config))
    out = folder / "out.json"
    subprocess.run(
        [str(binary / "promptfoo"), "eval", "-c", str(path), "--no-cache", "-o", str(out)],
        cwd=folder, stdout=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{binary}:{os.environ['PATH']}", "RLAIF_TOKEN": "none",
             "PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_CONFIG_DIR": str(folder / "state")},
    )  # fmt: skip
    results = json.loads(out.read_text())["results"]["results"]
    by_prompt = {case["prompt"]: case for case in cases}
    for result in results:
        case = by_prompt[result["vars"]["question"]]
        compared, _ = native(case)
        for part in result["gradingResult"]["componentResults"]:
            kind = part["assertion"]["type"]
            side = result["provider"]["id"]
            if kind == "llm-rubric":
                own = {"prompt": case["prompt"], "response": case[side]}
                score = httpx.post(f"{URL}/v1/judge/pointwise", json=own).json()["score"]
                check("promptfoo", case["id"], abs(part["score"] - score) < 1e-4, True)
            elif kind == "select-best" and compared["winner"]:
                check("promptfoo", case["id"], part["pass"], compared["winner"] == side)
    return len(results)


def arena_hard(work: Path, cases: list[dict[str, str]], args: argparse.Namespace) -> int:
    """Arena-Hard-Auto: the prompt and the pattern of its own configuration."""
    import re

    for item in run(Path(sys.executable), ARENA, args.arena_hard, str(work / "cases.json")):
        case = next(c for c in cases if c["id"] == item["case"])
        said = ask("rlaif/demo:arena-hard", "Judge.", item["user"])
        (label,) = set(re.compile(item["pattern"]).findall(said))
        compared, _ = native(case)
        winner = {"A": "a", "B": "b"}.get(label[0]) if "=" not in label else None
        check("arena-hard", case["id"], winner, compared["winner"])
    return len(cases)


def fastchat(work: Path, cases: list[dict[str, str]], args: argparse.Namespace) -> int:
    """FastChat's MT-bench: its own prompts, by its own rules."""
    path = Path(args.fastchat) / "fastchat" / "llm_judge" / "data" / "judge_prompts.jsonl"
    prompts = {p["name"]: p for p in map(json.loads, path.read_text().splitlines())}
    for case in cases:
        compared, score = native(case)
        template = prompts["pair-v2"]
        user = template["prompt_template"].format(
            question=case["prompt"], answer_a=case["a"], answer_b=case["b"]
        )
        said = ask("rlaif/demo:mt-bench", template["system_prompt"], user)
        read = next((x for x in ("A", "B", "C") if f"[[{x}]]" in said), "error")
        check("fastchat", case["id"], read, {"a": "A", "b": "B"}.get(compared["winner"], "C"))
        single = prompts["single-v1"]
        user = single["prompt_template"].format(question=case["prompt"], answer=case["a"])
        said = ask("rlaif/demo:mt-bench", single["system_prompt"], user)
        check("fastchat", case["id"], f"[[{1 + round(9 * score)}]]" in said, True)
    return 2 * len(cases)


HARNESSES: dict[str, Callable[[Path, list[dict[str, str]], argparse.Namespace], int]] = {
    "rewardbench": rewardbench,
    "deepeval": deepeval,
    "promptfoo": promptfoo,
    "arena-hard": arena_hard,
    "fastchat": fastchat,
}


def main() -> None:
    """Check and say what was checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--only", nargs="+", choices=HARNESSES, default=list(HARNESSES))
    parser.add_argument("--arena-hard", help="a checkout of arena-hard-auto")
    parser.add_argument("--fastchat", help="a checkout of FastChat")
    parser.add_argument("--cases", type=int, default=8)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    pairs = {p.prompt: p for p in World(31, "test").pairs(4 * args.cases)}
    cases = [
        {"id": f"c{i}", "prompt": p.prompt, "a": p.response_a, "b": p.response_b}
        for i, p in enumerate(list(pairs.values())[: args.cases])
    ]
    (args.work / "cases.json").write_text(json.dumps(cases))
    server = subprocess.Popen(
        [sys.executable, "-m", "rlaif", "serve", "-c", "demo", "--engine", "packed", "--port",
         str(PORT), "--alias", f"{ALIAS}=demo:rewardbench", "--cache-folder",
         str(args.work / "cache")],
    )  # fmt: skip
    try:
        while True:
            try:
                httpx.get(f"{URL}/health").raise_for_status()
                break
            except httpx.HTTPError:
                if server.poll() is not None:
                    raise SystemExit("the server did not start") from None
                time.sleep(0.5)
        for name in args.only:
            if name == "arena-hard" and not args.arena_hard:
                print("arena-hard   not checked: name a checkout with --arena-hard")
            elif name == "fastchat" and not args.fastchat:
                print("fastchat     not checked: name a checkout with --fastchat")
            else:
                print(f"{name:12} {HARNESSES[name](args.work, cases, args)} questions read rightly")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
