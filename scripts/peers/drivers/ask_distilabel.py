"""Asks a server through distilabel: a path of prompts on each line in, seconds out.

Its `TextGeneration` task is called batch by batch (50 prompts, its default), as a pipeline's step
calls it, but without the processes around a pipeline, which take seconds to start.
"""

import json
import sys
import time

from distilabel.models.llms import OpenAILLM
from distilabel.steps.tasks import TextGeneration

url = sys.argv[1]
kwargs = {"max_new_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": 5}
llm = OpenAILLM(model="judge", base_url=url, api_key="none", generation_kwargs=kwargs, timeout=3600)
task = TextGeneration(llm=llm)
task.load()
for line in sys.stdin:
    with open(line.strip(), encoding="utf-8") as file:
        rows = [{"instruction": text} for text in json.load(file)]
    size = task.input_batch_size
    answered = 0
    began = time.perf_counter()
    for start in range(0, len(rows), size):
        for outputs in task.process(rows[start : start + size]):
            answered += sum(row["generation"] is not None for row in outputs)
    seconds = time.perf_counter() - began
    assert answered == len(rows), f"{answered} of {len(rows)} answered"
    print(f"seconds {seconds}", flush=True)
