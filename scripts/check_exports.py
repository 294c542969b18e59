"""Holds `rlaif export` against the loaders of the trainers themselves.

    python scripts/check_exports.py --work /tmp/exports --llama-factory CHECKOUT --axolotl CHECKOUT
        --openrlhf CHECKOUT --nemo-rl CHECKOUT --verl CHECKOUT

Labels demo pairs, some with a system prompt and several turns, and exports them in each format.
Then each trainer's own code, from a checkout, reads its file.  What it gives to training must be
what the run holds: the same prompt, the same better and worse answer, in the same rows.  Without a
checkout a format is left out and said to be so; TRL's own formats are always checked.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from datasets import load_dataset
from transformers import AutoTokenizer

import rlaif
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.exporting.export import export_run
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings

POLICY = Path(rlaif.__file__).parent / "demo/models/policy"
Pair = tuple[list[dict[str, str]], str, str]
"""Prompt, better answer, worse answer."""


def bare_package(name: str, folder: Path) -> None:
    """Make a package whose modules can be imported without running its `__init__`."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    sys.modules[name] = module


def stub(*names: str) -> None:
    """Stand-ins for libraries that a loader imports and does not need for text."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = MagicMock()


def label_demo(folder: Path, count: int) -> Path:
    """A run on demo pairs, a third with a system prompt, a third with turns before the question."""
    data = folder / "pairs.jsonl"
    with data.open("w", encoding="utf-8") as file:
        for number, pair in enumerate(World(11, "train").pairs(count)):
            turns = [{"role": "user", "content": pair.prompt}]
            if number % 3 == 1:
                turns = [{"role": "system", "content": f"You are helper {number}."}, *turns]
            elif number % 3 == 2:
                before = [("user", "Good morning."), ("assistant", "Good morning! What is it?")]
                turns = [*({"role": role, "content": text} for role, text in before), *turns]
            row = {"prompt": turns, "response_a": pair.response_a, "response_b": pair.response_b}
            file.write(json.dumps({"id": f"pair-{number}", **row}) + "\n")
    settings = LabelSettings(judge=EngineSettings(engine="scripted", model="hashed"))
    run_label(prepare(str(data), "demo", settings), folder / "run")
    return folder / "run"


def read_run(run: Path) -> list[Pair]:
    """The decided pairs of a run, by plain JSON."""
    found = []
    for line in (run / "preferences.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        found.append((row["prompt"], row["chosen"][0]["content"], row["rejected"][0]["content"]))
    return found


def check_trl(file: Path, pairs: Sequence[Pair], tokenizer: Any, checkout: Path) -> None:
    """TRL takes the prompt out of chosen and rejected by itself."""
    from trl.data_utils import maybe_extract_prompt

    for row, (prompt, chosen, rejected) in zip(_rows(file), pairs, strict=True):
        found = maybe_extract_prompt(row)
        assert found["prompt"] == prompt
        assert [found["chosen"][0]["content"], found["rejected"][0]["content"]] == [
            chosen,
            rejected,
        ]


def check_kto(file: Path, pairs: Sequence[Pair], tokenizer: Any, checkout: Path) -> None:
    """TRL's KTO takes each completion with its label."""
    from trl.data_utils import is_conversational

    rows = list(_rows(file))
    assert all(is_conversational(row) for row in rows)
    wanted = [(p, t, good) for p, c, r in pairs for t, good in ((c, True), (r, False))]
    assert [(r["prompt"], r["completion"][0]["content"], r["label"]) for r in rows] == wanted


def check_llama_factory(file: Path, pairs: Sequence[Pair], tokenizer: Any, checkout: Path) -> None:
    """LLaMA-Factory's reader of `dataset_info.json` and its sharegpt converter."""
    root = checkout / "src/llamafactory"
    stub("omegaconf", "modelscope", "openmind")
    for name in ("", ".data", ".extras"):
        bare_package(f"llamafactory{name}", root / name.strip("."))
    parser = importlib.import_module("llamafactory.data.parser")
    converter = importlib.import_module("llamafactory.data.converter")
    (info,) = parser.get_dataset_list(["preferences"], str(file.parent))
    convert = converter.SharegptDatasetConverter(info, types.SimpleNamespace(media_dir=""))
    for row, (prompt, chosen, rejected) in zip(_rows(file), pairs, strict=True):
        found = convert(row)
        system = [{"role": "system", "content": found["_system"]}] if found["_system"] else []
        assert [*system, *found["_prompt"]] == prompt
        assert [turn["content"] for turn in found["_response"]] == [chosen, rejected]


def check_axolotl(file: Path, pairs: Sequence[Pair], tokenizer: Any, checkout: Path) -> None:
    """Axolotl's `chat_template.default` for DPO, by the configuration that is exported with it."""
    import yaml

    root = checkout / "src/axolotl"
    for name in ("", "utils", "utils/schemas", "prompt_strategies", "prompt_strategies/dpo"):
        bare_package(".".join(["axolotl", *filter(None, name.split("/"))]), root / name)
    stub("axolotl.utils.distributed")
    strategy = importlib.import_module("axolotl.prompt_strategies.dpo.chat_template")
    config = yaml.safe_load((file.parent / "axolotl.yaml").read_text(encoding="utf-8"))
    config["chat_template"] = "tokenizer_default"
    transform, _ = strategy.default(config)
    for row, (prompt, chosen, rejected) in zip(_rows(file), pairs, strict=True):
        found = transform(row, tokenizer=tokenizer)
        assert found["prompt"] == _render(tokenizer, prompt, opened=True)
        for side, text in (("chosen", chosen), ("rejected", rejected)):
            assert found[side].startswith(text)
            whole = _render(tokenizer, [*prompt, _answer(text)])
            assert found["prompt"] + found[side] == whole.rstrip()


def check_openrlhf(file: Path, pairs: Sequence[Pair], tokenizer: Any, checkout: Path) -> None:
    """OpenRLHF's `preprocess_data` for reward models and DPO, with a chat template."""
    for name in ("", "datasets", "utils"):
        bare_package(".".join(["openrlhf", *filter(None, [name])]), checkout / "openrlhf" / name)
    stub("openrlhf.utils.utils")
    module = importlib.import_module("openrlhf.datasets.reward_dataset")
    for row, (prompt, chosen, rejected) in zip(_rows(file), pairs, strict=True):
        for is_dpo in (False, True):
            head, good, bad, _ = module.preprocess_data(
                row,
                prompt_key="prompt",
                apply_chat_template=tokenizer.apply_chat_template,
                is_dpo=is_dpo,
            )
            assert head + good == _render(tokenizer, [*prompt, _answer(chosen)])
            assert head + bad == _render(tokenizer, [*prompt, _answer(rejected)])


def check_nemo_rl(file: Path, pairs: Sequence[Pair], tokenizer: Any, checkout: Path) -> None:
    """NeMo RL's PreferenceDataset; rank 0 is the better one."""
    root = checkout / "nemo_rl"
    for name in ("", "data", "data/datasets", "data/datasets/preference_datasets"):
        bare_package(".".join(["nemo_rl", *filter(None, name.split("/"))]), root / name)
    for name in ("raw_dataset", "utils"):
        stub(f"nemo_rl.data.datasets.{name}")
    if isinstance(sys.modules["nemo_rl.data.datasets.raw_dataset"], MagicMock):
        sys.modules["nemo_rl.data.datasets.raw_dataset"] = types.SimpleNamespace(  # type: ignore[assignment]
            RawDataset=object
        )
    if isinstance(sys.modules["nemo_rl.data.datasets.utils"], MagicMock):
        sys.modules["nemo_rl.data.datasets.utils"] = types.SimpleNamespace(  # type: ignore[assignment]
            load_dataset_from_path=lambda path, *_: _load(Path(path))
        )
    module = importlib.import_module("nemo_rl.data.datasets.preference_datasets.preference_dataset")
    found = module.PreferenceDataset(str(file)).dataset
    for row, (prompt, chosen, rejected) in zip(found, pairs, strict=True):
        ranked = sorted(row["completions"], key=lambda completion: completion["rank"])
        assert row["context"] == prompt
        assert [c["completion"][0]["content"] for c in ranked] == [chosen, rejected]


def check_verl(file: Path, pairs: Sequence[Pair], tokenizer: Any, checkout: Path) -> None:
    """Verl's RLHFDataset: prompts, with what its reward functions get beside them."""
    stub("omegaconf", "tensordict")
    for name in ("", "utils", "utils/dataset"):
        bare_package(".".join(["verl", *filter(None, name.split("/"))]), checkout / "verl" / name)
    stub("verl.utils.import_utils", "verl.utils.fs")
    module = importlib.import_module("verl.utils.dataset.rl_dataset")
    dataset = object.__new__(module.RLHFDataset)
    dataset.__dict__.update(
        dataframe=_load(file),
        prompt_key="prompt",
        image_key="images",
        video_key="videos",
        audio_key="audios",
        processor=None,
        need_tools_kwargs=False,
    )
    for number, (prompt, chosen, _) in enumerate(pairs):
        row = dataset[number]
        assert row["raw_prompt"] == prompt
        assert row["reward_model"]["ground_truth"] == chosen


def check_openai(file: Path, pairs: Sequence[Pair], tokenizer: Any, checkout: Path) -> None:
    """The types of OpenAI's own client, which its preference guide refers to."""
    from openai.types.chat import ChatCompletionMessageParam
    from pydantic import TypeAdapter

    message: Any = TypeAdapter(list[ChatCompletionMessageParam])
    for row, (prompt, chosen, rejected) in zip(_rows(file), pairs, strict=True):
        message.validate_python(row["input"]["messages"])
        for side, text in (("preferred_output", chosen), ("non_preferred_output", rejected)):
            message.validate_python(row[side])
            assert row[side][-1]["content"] == text
        assert row["input"]["messages"] == prompt


def _rows(file: Path) -> Any:
    return iter(_load(file))


def _load(file: Path) -> Any:
    kind = "parquet" if file.suffix == ".parquet" else "json"
    return load_dataset(kind, data_files=str(file), split="train")


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _render(tokenizer: Any, messages: Sequence[dict[str, str]], *, opened: bool = False) -> str:
    return str(
        tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened)
    )


Check = Callable[[Path, Sequence[Pair], Any, Path], None]
CHECKS: dict[str, Check] = {
    "trl": check_trl,
    "reward": check_trl,
    "kto": check_kto,
    "openai": check_openai,
    "llama-factory": check_llama_factory,
    "axolotl": check_axolotl,
    "openrlhf": check_openrlhf,
    "nemo-rl": check_nemo_rl,
    "verl": check_verl,
}
FROM_CHECKOUTS = ("llama-factory", "axolotl", "openrlhf", "nemo-rl", "verl")


def main() -> None:
    """Check every format, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, required=True, help="a folder to write into")
    parser.add_argument("--pairs", type=int, default=60)
    for name in FROM_CHECKOUTS:
        parser.add_argument(f"--{name}", type=Path, metavar="CHECKOUT")
    arguments = vars(parser.parse_args())
    work: Path = arguments["work"]
    work.mkdir(parents=True)
    run = label_demo(work, arguments["pairs"])
    pairs = read_run(run)
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    failed = 0
    for name, check in CHECKS.items():
        checkout = arguments.get(name.replace("-", "_"))
        if name in FROM_CHECKOUTS and checkout is None:
            print(f"{name:14} left out: name a checkout with --{name}")
            continue
        file = export_run(run, work / name, name).file
        try:
            check(file, pairs, tokenizer, checkout or Path())
        except Exception as error:  # a loader raises what it likes
            failed += 1
            print(f"{name:14} FAILED: {type(error).__name__}: {str(error)[:300]}")
        else:
            print(f"{name:14} equal: {len(pairs)} pairs")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
