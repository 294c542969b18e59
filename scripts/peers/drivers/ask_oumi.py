"""Asks a server through oumi's judge: a path of prompts on each line in, seconds out."""

import json
import sys
import time

from oumi.core.configs import (
    GenerationParams,
    InferenceConfig,
    InferenceEngineType,
    ModelParams,
    RemoteParams,
)
from oumi.core.configs.judge_config import JudgeConfig
from oumi.core.configs.params.judge_params import (
    JudgeOutputType,
    JudgeParams,
    JudgeResponseFormat,
)
from oumi.judges.simple_judge import SimpleJudge

url, workers = sys.argv[1], int(sys.argv[2])
judge = SimpleJudge(
    JudgeConfig(
        judge_params=JudgeParams(
            prompt_template="{question}",
            response_format=JudgeResponseFormat.RAW,
            judgment_type=JudgeOutputType.TEXT,
        ),
        inference_config=InferenceConfig(
            model=ModelParams(model_name="judge"),
            engine=InferenceEngineType.REMOTE_VLLM,
            generation=GenerationParams(max_new_tokens=1, temperature=0.0),
            remote_params=RemoteParams(
                api_url=f"{url}/chat/completions",
                num_workers=workers,
                use_adaptive_concurrency=False,
                connection_timeout=3600.0,
            ),
        ),
    )
)
for line in sys.stdin:
    with open(line.strip(), encoding="utf-8") as file:
        rows = [{"question": text} for text in json.load(file)]
    began = time.perf_counter()
    found = judge.judge(rows)
    seconds = time.perf_counter() - began
    assert len(found) == len(rows), f"{len(found)} of {len(rows)} answered"
    print(f"seconds {seconds}", flush=True)
