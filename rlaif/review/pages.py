"""The pages: a name, one pair after the other, what the judge said, and the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unicodedata import category
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from rlaif.errors import RlaifError
from rlaif.records import CLEAR, Message
from rlaif.review.access import AccessMiddleware, CookieSigner
from rlaif.review.store import Decision, ReviewStore, ReviewTask, Said, first_shown
from rlaif.review.word_diff import word_diff
from rlaif.templates.messages import message_text

STATIC = Path(__file__).parent / "static"
SAID: dict[str, dict[str, Said]] = {
    "a": {"left": "a", "right": "b"},
    "b": {"left": "b", "right": "a"},
}
"""By which completion stands left: what "left" and "right" mean."""
MOST_NAME, MOST_NOTE, MOST_FIELDS = 60, 4000, 32


@dataclass(frozen=True)
class Review:
    """What the pages show.

    Attributes:
        title: of the run.
        questions: of the principles, by id.
        reasoning: what the judge wrote about a pair, by (row, id): principle and text.
    """

    store: ReviewStore
    title: str
    questions: dict[str, str]
    reasoning: dict[tuple[int, str], list[tuple[str, str]]]


def build_review(review: Review, *, hosts: frozenset[str], token: str | None) -> FastAPI:
    """The application."""
    app = FastAPI(title="rlaif review", docs_url=None, redoc_url=None, openapi_url=None)
    seals = CookieSigner(review.store.secret)
    app.add_middleware(AccessMiddleware, seals=seals, hosts=hosts, token=token)
    pages = _Pages(review, seals)

    @app.exception_handler(RlaifError)
    async def failed(request: Request, error: RlaifError) -> Response:
        """What went wrong, in one sentence; nothing of the form was kept."""
        return pages.failed(request, str(error))

    app.get("/")(pages.start)
    app.post("/name")(pages.name)
    app.get("/next")(pages.next)
    app.get("/pair/{number}")(pages.pair)
    app.post("/pair/{number}")(pages.decide)
    app.get("/pair/{number}/seen")(pages.seen)
    app.get("/pair/{number}/edit")(pages.edit)
    app.post("/undo")(pages.undo)
    app.get("/static/{name}")(pages.static)
    return app


class _Pages:
    """Long because it is the list of routes, a few lines each."""

    def __init__(self, review: Review, seals: CookieSigner) -> None:
        self._review, self._store, self._seals = review, review.store, seals
        self._numbers: dict[str, int] = {}
        self._environment = Environment(
            loader=PackageLoader("rlaif.review", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["said"] = message_text

    def _page(self, template: str, reviewer: str, status: int = 200, **values: Any) -> Response:
        page = self._environment.get_template(f"{template}.html.j2")
        html = page.render(
            title=self._review.title,
            reviewer=reviewer,
            form=self._seals.seal("form", reviewer),
            progress=self._store.progress(reviewer),
            **values,
        )
        return HTMLResponse(html, status)

    def _reviewer(self, request: Request) -> str:
        return self._seals.name(request.cookies.get(self._seals.name_cookie, ""))

    async def _form(self, request: Request, reviewer: str) -> dict[str, str] | None:
        """The fields of a form of ours; None for one that is not."""
        text = (await request.body()).decode("utf-8", "replace")
        try:
            found = parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError:
            return None
        fields = {key: values[-1] for key, values in found.items()}
        return fields if self._seals.holds("form", reviewer, fields.get("form", "")) else None

    def _stale(self, reviewer: str) -> Response:
        return self._page(
            "message",
            reviewer,
            403,
            heading="This form is out of date",
            text="Your name may have changed in another tab. Nothing was saved.",
        )

    def failed(self, request: Request, text: str) -> Response:
        """Something went wrong."""
        page = self._environment.get_template("message.html.j2")
        html = page.render(
            title=self._review.title, reviewer="", heading="Something went wrong", text=text
        )
        return HTMLResponse(html, 500)

    def static(self, name: str) -> Response:
        """The style sheet and the keys."""
        kinds = {
            "review.css": "text/css",
            "review.js": "text/javascript",
            "icon.svg": "image/svg+xml",
        }
        if name not in kinds:
            return HTMLResponse("page not found", 404)
        return FileResponse(STATIC / name, media_type=kinds[name])

    def start(self, request: Request) -> Response:
        """Ask for a name."""
        reviewer = self._reviewer(request)
        return self._page("start", reviewer, problem="")

    async def name(self, request: Request) -> Response:
        """Keep the name."""
        before = self._reviewer(request)
        fields = await self._form(request, before)
        if fields is None:
            return await run_in_threadpool(self._stale, before)
        name = " ".join(fields.get("name", "").split())
        if not 0 < len(name) <= MOST_NAME or any(category(c) in ("Cc", "Cs") for c in name):
            problem = f"A name must have 1 to {MOST_NAME} characters and no control characters."
            return await run_in_threadpool(
                lambda: self._page("start", before, 422, problem=problem)
            )
        answer = RedirectResponse("/next", 303)
        answer.set_cookie(
            self._seals.name_cookie,
            self._seals.named(name),
            httponly=True,
            samesite="strict",
            max_age=90 * 86400,
        )
        return answer

    def next(self, request: Request) -> Response:
        """On to the next pair."""
        reviewer = self._reviewer(request)
        if not reviewer:
            return RedirectResponse("/", 303)
        number = self._store.next_for(reviewer)
        if number is None:
            return self._page("done", reviewer)
        return RedirectResponse(f"/pair/{self._address(number)}", 303)

    def _address(self, number: int) -> str:
        """What a pair is called outside: its number would say whether the judge decided it."""
        return self._seals.seal("pair", str(number))[:12]

    def pair(self, request: Request, number: str) -> Response:
        """A pair, without what the judge said."""
        return self._of_pair(request, number, "pair")

    def edit(self, request: Request, number: str) -> Response:
        """The same with a field for a better completion."""
        return self._of_pair(request, number, "edit")

    def _of_pair(self, request: Request, number: str, template: str) -> Response:
        reviewer = self._reviewer(request)
        if not reviewer:
            return RedirectResponse("/", 303)
        task = self._task(number)
        if task is None:
            return self._missing(reviewer)
        side = request.query_params.get("side", "left")
        start = side if side in ("left", "right") else "left"
        return self._page(
            template, reviewer, **self._shown(task, reviewer), start=start, problem=""
        )

    def _task(self, number: str) -> ReviewTask | None:
        if number not in self._numbers:  # the queue may have grown
            self._numbers = {self._address(n): n for n in self._store.numbers()}
        found = self._numbers.get(number)
        return None if found is None else self._store.task(found)

    def _missing(self, reviewer: str) -> Response:
        return self._page(
            "message",
            reviewer,
            404,
            heading="Pair not found",
            text="This pair is not in the queue.",
        )

    async def decide(self, request: Request, number: str) -> Response:
        """Keep what was said, then show what the judge said."""
        reviewer = self._reviewer(request)
        fields = await self._form(request, reviewer)
        return await run_in_threadpool(self._decide, reviewer, fields, number)

    def _decide(self, reviewer: str, fields: dict[str, str] | None, number: str) -> Response:
        if fields is None or not reviewer:
            return self._stale(reviewer)
        task = self._task(number)
        if task is None:
            return self._missing(reviewer)
        first = first_shown(task, reviewer)
        choice = fields.get("choice", "")
        verdict = SAID[first].get(choice)
        if choice in ("tie", "skip"):
            verdict = "tie" if choice == "tie" else "skip"
        note = fields.get("note", "").strip()[:MOST_NOTE]
        edited, problem = "", ""
        if verdict is None:
            return self._page(
                "message",
                reviewer,
                422,
                heading="Nothing selected",
                text="Choose one of the buttons below the pair.",
            )
        if "edited" in fields and choice in ("left", "right"):
            # Browsers send line ends as CR LF.
            edited = fields["edited"].replace("\r\n", "\n").strip()
            texts = {message_text(side[-1]).strip() for side in (task.item.a, task.item.b)}
            if not edited:
                problem = "Your completion is empty."
            elif edited in texts:
                problem = (
                    "This is identical to one of the two completions; choose that one instead."
                )
            if problem:
                shown = self._shown(task, reviewer) | {"note": note, "draft": edited}
                return self._page("edit", reviewer, 422, **shown, start=choice, problem=problem)
        pasted = fields.get("pasted", "0")[:9]
        self._store.decide(
            task.number,
            reviewer,
            verdict,
            first=first,
            note=note,
            edited=edited,
            pasted=min(int(pasted), 10**6) if pasted.isascii() and pasted.isdigit() else 0,
        )
        where = "/next" if verdict == "skip" else f"/pair/{number}/seen"
        return RedirectResponse(where, 303)

    def seen(self, request: Request, number: str) -> Response:
        """What the judge said, to whoever has decided."""
        reviewer = self._reviewer(request)
        task = self._task(number) if reviewer else None
        said = self._store.decision(task.number, reviewer) if task else None
        if task is None or said is None:
            return RedirectResponse("/next", 303)
        return self._page(
            "seen", reviewer, **self._shown(task, reviewer), **self._judged(task, said)
        )

    async def undo(self, request: Request) -> Response:
        """Take the last decision back."""
        reviewer = self._reviewer(request)
        fields = await self._form(request, reviewer)
        if fields is None or not reviewer:
            return await run_in_threadpool(self._stale, reviewer)
        number = await run_in_threadpool(self._store.undo, reviewer)
        return RedirectResponse(
            "/next" if number is None else f"/pair/{self._address(number)}", 303
        )

    def _shown(self, task: ReviewTask, reviewer: str) -> dict[str, Any]:
        item = task.item
        first = first_shown(task, reviewer)
        left, right = (item.a, item.b) if first == "a" else (item.b, item.a)
        before = self._store.decision(task.number, reviewer)
        return {
            "number": self._address(task.number),
            "note": before.note if before else "",
            "draft": before.edited if before else "",
            "prompt": item.prompt,
            "left": left,
            "right": right,
            "diff": _diff(_text(left), _text(right)),
            "texts": {"left": left[-1]["content"], "right": right[-1]["content"]},
            "principles": self._asked(task),
        }

    def _asked(self, task: ReviewTask) -> list[tuple[str, str]]:
        """The principles of the pair: id and question, the one most in doubt first."""
        opinions = sorted(task.item.opinions, key=lambda o: _importance(o.p_a, o.invalid))
        asked = self._review.questions | task.item.criteria
        return [(o.principle, asked.get(o.principle, "")) for o in opinions]

    def _judged(self, task: ReviewTask, said: Decision) -> dict[str, Any]:
        item, first = task.item, said.first
        names = {"a": "Left" if first == "a" else "Right", "b": "Right" if first == "a" else "Left"}
        p_left = item.p_a if first == "a" else 1.0 - item.p_a
        return {
            "said": said,
            "own": names.get(said.verdict, "Neither"),
            "judge": names.get(item.winner, ""),
            "outcome": item.status,
            "reason": item.reason,
            "p_left": p_left,
            "agrees": bool(item.winner) and said.verdict == item.winner,
            "differs": bool(item.winner)
            and said.verdict in ("a", "b")
            and said.verdict != item.winner,
            "opinions": [
                (o.principle, o.p_a if first == "a" else 1.0 - o.p_a, o.invalid)
                for o in item.opinions
            ],
            "judges": [(n, p if first == "a" else 1.0 - p) for n, p in item.judges],
            "reasons": task.reasons,
            "reasoning": self._review.reasoning.get((item.row, item.id), []),
        }


def _importance(p: float, invalid: str) -> tuple[int, float]:
    """Opinions first, the least sure of them at the top; then what has none; then the invalid."""
    margin = abs(2.0 * p - 1.0)
    if invalid:
        return 2, 0.0
    return (0, margin) if margin >= CLEAR else (1, -margin)


_diff = lru_cache(maxsize=256)(word_diff)


def _text(messages: Sequence[Message]) -> str:
    return "\n\n".join(map(message_text, messages))
