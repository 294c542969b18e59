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

FASTCHAT = """
import json, sys, types, urllib.request
from unittest.mock import MagicMock
for name in ("anthropic", "openai"):
    sys.modules[name] = MagicMock()
import fastchat.conversation as conversation
adapter = types.ModuleType("fastchat.model.model_adapter")  # the real one needs every model's code
adapter.get_conversation_template = lambda model: conversation.get_conv_template("chatgpt")
adapter.OPENAI_MODEL_LIST, adapter.ANTHROPIC_MODEL_LIST = ["gpt-4"], []
package = types.ModuleType("fastchat.model")
package.__path__ = []
sys.modules.update({"fastchat.model": package, "fastchat.model.model_adapter": adapter})
from fastchat.llm_judge import common

def complete(model, messages, **settings):
    body = json.dumps({"model": model, "messages": messages, **settings}).encode()
    request = urllib.request.Request(sys.argv[2] + "/v1/chat/completions", body,
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))

common.openai.ChatCompletion.create = complete
common.openai.error.OpenAIError = RuntimeError
prompts = common.load_judge_prompts(sys.argv[3])
out = []
for case in json.load(open(sys.argv[1])):
    question = {"turns": ["Hello there.", case["prompt"]]}
    def said(text):
        return {"choices": [{"turns": ["Hello.", text]}]}
    for name in ("pair-v2", "pair-math-v1", "single-v1", "single-math-v1"):
        for turns in (False, True):
            judge = common.Judge("gpt-4", prompts[name + ("-multi-turn" if turns else "")],
                                 ref_based="math" in name, multi_turn=turns)
            reference = said("Forty.") if "math" in name else None
            asked = question if turns else {"turns": [case["prompt"]]}
            a, b = said(case["a"]), said(case["b"])
            if not turns:
                a, b = ({"choices": [{"turns": [case[side]]}]} for side in "ab")
            if name.startswith("pair"):
                read = common.run_judge_pair(asked, a, b, judge, reference, turns)[0]
            else:
                read = common.run_judge_single(asked, a, judge, reference, turns)[0]
            out.append({"case": case["id"], "name": name, "turns": turns, "read": read})
print(json.dumps(out))
"""


def ask(model: str, system: str, user: str) -> str:
    """What the server says to a chat."""
    messages = [{"role": "system", "content": system}] if system else []
    body = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": user}],
        "temperature": 0,
        "max_tokens": 2048,
        "n": 1,
    }
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
        [str(python), "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "DEEPEVAL_TELEMETRY_OPT_OUT": "YES"},
    )
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
            [
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--silent",
                "node@22",
                "promptfoo@0.123.0",
            ],
            cwd=folder,
            check=True,
        )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "rlaif",
            "harness",
            "promptfoo",
            "-c",
            "demo",
            "--url",
            URL,
            "-o",
            str(folder / "config"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
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
        cwd=folder,
        stdout=subprocess.DEVNULL,
        env={
            **os.environ,
            "PATH": f"{binary}:{os.environ['PATH']}",
            "RLAIF_TOKEN": "none",
            "PROMPTFOO_DISABLE_TELEMETRY": "1",
            "PROMPTFOO_CONFIG_DIR": str(folder / "state"),
        },
    )
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
    """Arena-Hard-Auto's `gen_judgment.py`, run on what `rlaif harness arena-hard` writes."""
    import yaml

    checkout = Path(args.arena_hard).resolve()
    python = environment(work, "arena-hard", "openai", "pyyaml", "tqdm", "shortuuid", "pandas")
    folder = work / "arena-hard-run"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "rlaif",
            "harness",
            "arena-hard",
            "-c",
            "demo",
            "--url",
            URL,
            "-o",
            str(folder),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    setting = yaml.safe_load((folder / "setting.yaml").read_text())
    setting["model_list"] = ["model-b"]
    (folder / "setting.yaml").write_text(yaml.safe_dump(setting))
    code = "from utils.judge_utils import JUDGE_SETTINGS as s; print(s['hard_prompt']['baseline'])"
    baseline = subprocess.run(
        [str(python), "-c", code], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()
    data = folder / "data" / setting["bench_name"]
    (data / "model_answer").mkdir(parents=True, exist_ok=True)
    (data / "question.jsonl").write_text(
        "".join(
            json.dumps({"uid": c["id"], "category": "hard_prompt", "prompt": c["prompt"]}) + "\n"
            for c in cases
        )
    )
    for model, side in ((baseline, "a"), ("model-b", "b")):
        lines = [
            {
                "uid": c["id"],
                "model": model,
                "messages": [
                    {"role": "user", "content": c["prompt"]},
                    {"role": "assistant", "content": {"answer": c[side]}},
                ],
            }
            for c in cases
        ]
        path = data / "model_answer" / f"{model}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = data / "model_judgment" / setting["judge_model"] / "model-b.jsonl"
    judged.unlink(missing_ok=True)
    subprocess.run(
        [
            str(python),
            str(checkout / "gen_judgment.py"),
            "--setting-file",
            str((folder / "setting.yaml").resolve()),
            "--endpoint-file",
            str((folder / "endpoints.yaml").resolve()),
        ],
        cwd=folder,
        check=True,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    found = {row["uid"]: row for row in map(json.loads, judged.read_text().splitlines())}
    for case in cases:
        compared, _ = native(case)
        for game, sides in zip(found[case["id"]]["games"], ("ab", "ba"), strict=True):
            label = game["score"]
            winner = None if "=" in label else sides["AB".index(label[0])]
            check("arena-hard", case["id"], winner, compared["winner"])
            if winner:
                check("arena-hard", case["id"], ">>" in label, compared["margin"] >= 0.6)
    return 2 * len(cases)


def fastchat(work: Path, cases: list[dict[str, str]], args: argparse.Namespace) -> int:
    """FastChat's MT-bench: its prompts, its `run_judge_pair` and its `run_judge_single`."""
    python = environment(work, "fastchat", "--no-deps", "fschat==0.2.36")
    prompts = Path(args.fastchat) / "fastchat" / "llm_judge" / "data" / "judge_prompts.jsonl"
    asked = run(python, FASTCHAT, str(work / "cases.json"), URL, str(prompts))
    first = [
        {"role": "user", "content": "Hello there."},
        {"role": "assistant", "content": "Hello."},
    ]
    for item in asked:
        case = next(c for c in cases if c["id"] == item["case"])
        question = {"role": "user", "content": case["prompt"]}
        if item["name"].startswith("pair"):
            pair: dict[str, Any] = {"prompt": case["prompt"]}
            for side in "ab":
                said = {"role": "assistant", "content": case[side]}
                turns = [first[1], question, said]
                pair[f"response_{side}"] = turns if item["turns"] else case[side]
            if item["turns"]:
                pair["prompt"] = first[:1]
            compared = httpx.post(f"{URL}/v1/judge/pairwise", json=pair, timeout=120).json()
            expected: object = {"a": "A", "b": "B"}.get(compared["winner"], "tie")
        else:
            single = {
                "prompt": [*first, question] if item["turns"] else case["prompt"],
                "response": case["a"],
            }
            answer = httpx.post(f"{URL}/v1/judge/pointwise", json=single, timeout=120).json()
            expected = 1 + round(9 * float(answer["score"]))
        check("fastchat", f"{case['id']} {item['name']}", item["read"], expected)
    return len(asked)


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
        [
            sys.executable,
            "-m",
            "rlaif",
            "serve",
            "-c",
            "demo",
            "--engine",
            "packed",
            "--port",
            str(PORT),
            "--alias",
            f"{ALIAS}=demo:rewardbench",
            "--alias",
            "gpt-4=demo:mt-bench",
            "--cache-dir",
            str(args.work / "cache"),
        ],
    )
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
