"""Runs the examples of a constitution's principles through a judge: its unit tests."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from rlaif.api.service import Service
from rlaif.constitution.load import LoadedConstitution
from rlaif.constitution.schema import Principle
from rlaif.errors import Place
from rlaif.generation.judge_calls import PairCaller
from rlaif.judging.scoring import score_pair
from rlaif.records import Pair, Preference


@dataclass(frozen=True)
class ExampleResult:
    """One example of one principle.

    Attributes:
        number: from 1, in file order.
        p_chosen: probability that the example's `chosen` is better, by this principle alone.
        flipped: whether the two orders disagree.
        reason: why it failed, or "".
    """

    principle: str
    number: int
    prompt: str
    p_chosen: float
    flipped: bool
    reason: str
    place: Place

    @property
    def passed(self) -> bool:
        """Whether the judge prefers what the author wrote to be better."""
        return not self.reason

    @property
    def margin(self) -> float:
        """From -1 (for `rejected`) to 1 (for `chosen`)."""
        return 2.0 * self.p_chosen - 1.0


def run_examples(
    loaded: LoadedConstitution, judging: PairCaller, service: Service | None, *, margin: float
) -> list[ExampleResult]:
    """Ask about every example of every principle, in both orders; checks are run.

    Args:
        service: the running judge; not needed where no principle asks one.
        margin: least margin with which `chosen` must win.
    """
    waiting: list[tuple[Principle, int, Future[list[Preference]] | None]] = []
    for principle in loaded.constitution.principles:
        for number in range(1, len(principle.examples) + 1):
            future = None
            if principle.judged:
                assert service is not None
                future = service.submit(judging.compare([_pair(principle, number)], [principle]))
            waiting.append((principle, number, future))
    found = []
    for principle, number, future in waiting:
        if future is None:
            (score,) = score_pair(_pair(principle, number), [principle], [])
        else:
            (preference,) = future.result()
            score = preference.scores[0]
        reason = ""
        if score.invalid:
            reason = score.invalid
        elif score.sign < margin or score.sign <= 0:
            reason = (
                f"prefers the rejected completion (p = {score.p_a:.3f} for chosen)"
                if score.sign < 0
                else f"margin {score.sign:.3f} < {margin:g}"
            )
            if score.flipped:
                reason += "; the two orders disagree"
        prompt = principle.examples[number - 1].conversation[-1]["content"]
        found.append(
            ExampleResult(
                principle=principle.id,
                number=number,
                prompt=prompt,
                p_chosen=score.p_a,
                flipped=score.flipped,
                reason=reason,
                place=loaded.places[principle.id],
            )
        )
    return found


def _pair(principle: Principle, number: int) -> Pair:
    example = principle.examples[number - 1]
    one, two = ([{"role": "assistant", "content": t}] for t in (example.chosen, example.rejected))
    return Pair(f"{principle.id}/{number}", example.conversation, one, two)  # type: ignore[arg-type]


def junit(name: str, results: Sequence[ExampleResult]) -> str:
    """The results as JUnit XML: a suite per principle, a case per example."""
    root = ET.Element(
        "testsuites",
        name=_legal(name),
        tests=str(len(results)),
        failures=str(sum(not r.passed for r in results)),
    )
    for principle in dict.fromkeys(r.principle for r in results):
        own = [r for r in results if r.principle == principle]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=principle,
            tests=str(len(own)),
            failures=str(sum(not r.passed for r in own)),
        )
        for r in own:
            case = ET.SubElement(
                suite,
                "testcase",
                classname=f"{name}.{principle}",
                name=f"example {r.number}",
                file=_legal(str(r.place.file)),
                line=str(r.place.line),
            )
            if not r.passed:
                failure = ET.SubElement(case, "failure", message=_legal(r.reason))
                failure.text = f"{r.place}: {_legal(r.prompt)}"
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _legal(text: str) -> str:
    """Without the characters that XML 1.0 has no way to write."""
    return "".join(
        c
        for c in text
        if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000"
    )
