"""A judge that stops responding ends the run, and what was paid for is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import RlaifError
from rlaif.labeling import job as labeling
from rlaif.records import Failure, Request, Result
from tests.labeling.helpers import contents, label, write_inputs


class Flaky(ScriptedEngine):
    """Answers `good` questions, then fails in a way that may pass."""

    good = 40
    answered = 0

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        for results in super().run(requests):
            found: list[Result] = []
            for result in results:
                Flaky.answered += 1
                over = Flaky.answered > Flaky.good
                found.append(Failure(result.id, "status 503: busy", True) if over else result)
            yield found


def test_a_fault_that_may_pass_ends_the_run_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, constitution = write_inputs(tmp_path, 60)
    whole = label(data, constitution, tmp_path / "whole", cache=tmp_path / "other")
    with monkeypatch.context() as patched:
        patched.setattr(labeling, "create_engine", lambda judge: Flaky(max_in_flight=8))
        Flaky.answered = 0
        with pytest.raises(RlaifError, match=r"stopped responding .status 503"):
            label(data, constitution, tmp_path / "run", cache=tmp_path / "cache")
    assert not (tmp_path / "run" / "manifest.json").exists()
    done = label(data, constitution, tmp_path / "run", cache=tmp_path / "cache")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    asked = done.manifest["last_process"]["verdicts_asked"]
    assert asked <= whole.manifest["last_process"]["verdicts_asked"] - Flaky.good
