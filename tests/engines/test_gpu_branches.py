"""What a machine with GPUs does, as far as a count of them decides it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlaif.engines import workers
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.training.loop import common_arguments
from rlaif.training.settings import DPOSettings


def environments(replicas: int, parallel: int) -> list[dict[str, str]]:
    settings = EngineSettings(
        model="demo", data_parallel_size=replicas, tensor_parallel_size=parallel
    )
    backend = workers.open_process_backend(settings)
    assert backend._settings.data_parallel_size == 1
    return list(backend._environments)


def test_each_replica_sees_its_own_gpus_of_those_that_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "_count_gpus", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    shown = [e["CUDA_VISIBLE_DEVICES"] for e in environments(2, 2)]
    assert shown == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,GPU-3,1")
    shown = [e["CUDA_VISIBLE_DEVICES"] for e in environments(4, 1)]
    assert shown == ["7", "5", "GPU-3", "1"]
    with pytest.raises(RlaifError, match="3 replicas with 2 GPUs each need 6, but there are 4"):
        environments(3, 2)


def test_replicas_without_a_gpu_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_count_gpus", lambda: 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert environments(3, 1) == [{"OMP_NUM_THREADS": "2"}] * 3


@pytest.mark.parametrize(
    ("gpu", "lora", "weights", "bf16"),
    [(True, 16, "bfloat16", True), (True, 0, "float32", True), (False, 16, "float32", False)],
)
def test_training_is_in_bfloat16_on_a_gpu_with_trained_weights_in_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpu: bool, lora: int, weights: str, bf16: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    found = common_arguments(DPOSettings(model="demo", lora_r=lora), tmp_path)
    assert found["model_init_kwargs"] == {"dtype": weights}
    assert (found["bf16"], found["use_cpu"]) == (bf16, not gpu)
