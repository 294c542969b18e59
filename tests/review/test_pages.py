"""The pages without a browser: nothing of the judge before the decision, and a closed door."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from rlaif.errors import RlaifError
from rlaif.review.access import CookieSigner
from rlaif.review.pages import Review, build_review
from rlaif.review.start import questions
from rlaif.review.store import ReviewStore, ReviewTask, first_shown
from rlaif.review.word_diff import word_diff
from tests.review.helpers import HOSTILE, labeled, store_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReviewStore]:
    with closing(store_of(labeled(tmp_path, prompt_injection=True), 20, overlap=0.0)) as found:
        yield found


def client(store: ReviewStore, *, token: str | None = None, **headers: str) -> TestClient:
    reasoning = {(t.item.row, t.item.id): [("one", "SECRET REASONS")] for t in store.tasks()}
    review = Review(store, "run", {"one": "Which response is one?"}, reasoning)
    app = build_review(review, hosts=frozenset({"127.0.0.1"}), token=token)
    return TestClient(
        app, raise_server_exceptions=False, base_url="http://127.0.0.1:8100", headers=headers
    )


def form_of(page: str) -> str:
    return re.search(r'name="form" value="([0-9a-f]+)"', page).group(1)  # type: ignore[union-attr]


def log_in(c: TestClient, name: str = "anna") -> str:
    """Name oneself; the address of the first pair."""
    answer = c.post("/name", data={"form": form_of(c.get("/").text), "name": name})
    assert answer.status_code == 200, answer.text
    return answer.url.path


def task_at(store: ReviewStore, path: str) -> ReviewTask:
    seals = CookieSigner(store.secret)
    address = path.split("/")[2]
    (number,) = (n for n in store.numbers() if seals.seal("pair", str(n)).startswith(address))
    task = store.task(number)
    assert task is not None
    return task


def test_the_judge_is_silent_before_the_decision(store: ReviewStore) -> None:
    c = client(store)
    path = log_in(c)
    task = task_at(store, path)
    for page in (c.get(path).text, c.get(f"{path}/edit").text):
        assert "SECRET" not in page
        assert "some/model" not in page
        assert "judge" not in page.lower().replace("rlaif", "")
        assert not any(reason in page for reason in task.reasons)
    # Nor does asking for the answer show it.
    assert c.get(f"{path}/seen").url.path == path
    form = form_of(c.get(path).text)
    seen = c.post(path, data={"form": form, "choice": "left"})
    assert seen.url.path == f"{path}/seen"
    assert "SECRET REASONS" in seen.text
    assert "the judge" in seen.text


def test_left_and_right_mean_what_stood_there(store: ReviewStore) -> None:
    c = client(store)
    for choice in ("left", "right", "left", "right"):
        path = c.get("/next").url.path if c.cookies else log_in(c)
        task = task_at(store, path)
        page = c.get(path).text
        first = first_shown(task, "anna")
        left = task.item.a if first == "a" else task.item.b
        at = {s: page.index(f'id="{s}"') for s in ("left", "right")}
        shown = page[at["left"] : at["right"]]
        assert left[0]["content"].split()[-1] in shown
        c.post(path, data={"form": form_of(page), "choice": choice})
        said = store.decision(task.number, "anna")
        assert said is not None
        assert said.verdict == (first if choice == "left" else {"a": "b", "b": "a"}[first])
    sides = {first_shown(t, w) for t in store.tasks() for w in ("anna", "ben")}
    assert sides == {"a", "b"}


def test_an_edit_is_kept_and_must_differ(store: ReviewStore) -> None:
    c = client(store)
    path = log_in(c)
    task = task_at(store, path)
    page = c.get(f"{path}/edit?side=right")
    form = form_of(page.text)
    first = first_shown(task, "anna")
    right = (task.item.b if first == "a" else task.item.a)[0]["content"]
    for text, problem in (("", "is empty"), (right, "one of the two")):
        answer = c.post(path, data={"form": form, "choice": "right", "edited": text})
        assert answer.status_code == 422
        assert problem in answer.text
    better = "better\r\nlines\r\n"
    c.post(path, data={"form": form, "choice": "right", "edited": better, "pasted": "7"})
    said = store.decision(task.number, "anna")
    assert said is not None
    assert (said.edited, said.pasted) == ("better\nlines", 7)
    assert said.verdict == {"a": "b", "b": "a"}[first]


def test_hostile_text_is_text(store: ReviewStore) -> None:
    c = client(store)
    path = log_in(c, 'x"><script>alert(1)</script>')
    form = form_of(c.get(path).text)
    pages = [
        c.get(path).text,
        c.get(f"{path}/edit").text,
        c.post(path, data={"form": form, "choice": "tie", "note": HOSTILE}).text,
    ]
    for page in pages:
        assert "<script>" not in page.replace('<script src="/static/review.js" defer>', "")
        assert "<img" not in page
        assert "<svg" not in page
        assert "{{ 7 * 7 }}" in page
        assert page.count("</textarea>") == page.count("<textarea")


def test_forms_of_others_are_refused(store: ReviewStore) -> None:
    c = client(store)
    path = log_in(c)
    form = form_of(c.get(path).text)
    good = {"form": form, "choice": "left"}
    assert c.post(path, data={"choice": "left"}).status_code == 403
    assert c.post(path, data={**good, "form": "0" * 32}).status_code == 403
    assert c.post(path, data=good, headers={"origin": "http://evil.example"}).status_code == 403
    assert c.post(path, data=good, headers={"origin": "null"}).status_code == 403
    assert c.post(path, data=good, headers={"origin": "http://["}).status_code == 403
    assert c.post(path, data=good, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert c.post("/undo", data={}).status_code == 403
    # A form of one's own page under another name is another's.
    other = client(store)
    log_in(other, "ben")
    assert other.post(path, data=good).status_code == 403
    assert c.post(path, content=b"x" * (4 << 20) + b"y").status_code == 413
    assert not store.decisions()
    assert c.post(path, data=good, headers={"origin": "http://127.0.0.1:8100"}).status_code == 200
    assert len(store.decisions()) == 1


def test_names_that_we_did_not_sign_are_nobody(store: ReviewStore) -> None:
    c = client(store)
    c.cookies.set(CookieSigner(store.secret).name_cookie, f"{b'root'.hex()}.{'0' * 32}")
    assert c.get("/next").url.path == "/"
    for bad in ("", " ", "x" * 61, "a\x07b"):
        page = c.post("/name", data={"form": form_of(c.get("/").text), "name": bad})
        assert page.status_code == 422


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "10.0.0.7"])
def test_hosts_that_were_not_named_are_refused(store: ReviewStore, host: str) -> None:
    """DNS rebinding: a page elsewhere whose name is pointed at this machine."""
    answer = client(store).get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "SECRET" not in answer.text


def test_a_token_is_shown_once_and_never_guessed(store: ReviewStore) -> None:
    c = client(store, token="a-secret")
    assert c.get("/").status_code == 401
    assert c.get("/static/review.css").status_code == 401
    assert c.get("/?token=wrong").status_code == 401
    c.cookies.set(CookieSigner(store.secret).token_cookie, "a-secret")
    assert c.get("/").status_code == 401
    c.cookies.clear()
    inside = c.get("/?token=a-secret")
    assert inside.status_code == 200
    assert "token" not in str(inside.url)
    assert c.get("/").status_code == 200
    cookie = inside.history[0].headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_every_answer_forbids_what_pages_do_not_need(store: ReviewStore) -> None:
    c = client(store)
    for path in ("/", "/static/review.js", "/nowhere", log_in(c)):
        headers = c.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/pair/1", "/pair/x", "/pair/-1", "/pair/٣", "/pair/99/seen", f"/pair/{'9' * 5000}"]
)
def test_pairs_that_are_not_there(store: ReviewStore, path: str) -> None:
    c = client(store)
    log_in(c)
    answer = c.get(path)
    assert answer.status_code == (200 if path.endswith("seen") else 404)
    assert "Traceback" not in answer.text


def test_addresses_say_nothing_of_the_judge(store: ReviewStore) -> None:
    """Numbers would: the decided pairs of a run come first."""
    c = client(store)
    assert not re.search(r"/pair/\d{1,6}(/|$)", log_in(c))


def test_odd_forms_are_answered(store: ReviewStore) -> None:
    c = client(store)
    path = log_in(c)
    form = form_of(c.get(path).text)
    odd = {"form": form, "choice": "left", "edited": "new text", "pasted": "9" * 5000}
    assert c.post(path, data=odd).status_code == 200
    assert c.post(path, data={"form": form, "choice": "neither"}).status_code == 422
    c.post(path, data={"form": form, "choice": "tie", "edited": "ignored"})
    said = store.decisions()
    assert [(d.verdict, d.edited) for d in said][1:] == [("tie", "")]
    assert said[0].pasted < 10**7


def test_what_fails_is_one_sentence(store: ReviewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    c = client(store)
    path = log_in(c)
    form = form_of(c.get(path).text)

    def full(*_: object, **__: object) -> None:
        raise RlaifError("the review file failed (disk full)", hint="Make room.")

    monkeypatch.setattr(store, "decide", full)
    answer = c.post(path, data={"form": form, "choice": "left"})
    assert answer.status_code == 500
    assert "disk full" in answer.text


def test_a_refused_edit_keeps_what_was_written(store: ReviewStore) -> None:
    c = client(store)
    path = log_in(c)
    task, page = task_at(store, path), c.get(path)
    text = task.item.a[0]["content"]
    answer = c.post(
        path, data={"form": form_of(page.text), "choice": "left", "edited": text, "note": "KEEP ME"}
    )
    assert answer.status_code == 422
    assert "KEEP ME" in answer.text
    c.post(
        path,
        data={"form": form_of(page.text), "choice": "left", "edited": "BETTER", "note": "KEEP ME"},
    )
    again = c.get(f"{path}/edit").text
    assert "KEEP ME" in again
    assert "BETTER" in again


def test_two_reviews_on_one_machine_keep_their_names(store: ReviewStore, tmp_path: Path) -> None:
    """Cookies do not know ports."""
    (tmp_path / "other").mkdir()
    with closing(store_of(labeled(tmp_path / "other"), 5)) as second:
        one, two = client(store), client(second)
        path = log_in(one, "anna")
        two.cookies.update(one.cookies)
        log_in(two, "ben")
        one.cookies.update(two.cookies)
        form = form_of(one.get(path).text)
        assert one.post(path, data={"form": form, "choice": "left"}).status_code == 200
        assert [d.reviewer for d in store.decisions()] == ["anna"]


def test_undo_leads_back(store: ReviewStore) -> None:
    c = client(store)
    path = log_in(c)
    c.post(path, data={"form": form_of(c.get(path).text), "choice": "left"})
    following = c.get("/next").url.path
    assert following != path
    back = c.post("/undo", data={"form": form_of(c.get(following).text)})
    assert back.url.path == path


def test_the_end_says_so(tmp_path: Path) -> None:
    with closing(store_of(labeled(tmp_path), 2, overlap=0.0)) as store:
        c = client(store)
        path = log_in(c)
        for _ in range(2):
            c.post(path, data={"form": form_of(c.get(path).text), "choice": "tie"})
            path = c.get("/next").url.path
        assert "You have no pairs left" in c.get("/next").text


def test_the_run_knows_what_its_principles_ask(tmp_path: Path) -> None:
    run = labeled(tmp_path, 3)
    assert questions(run) == {"one": "Which response is one?", "two": "Which response is two?"}
    (run / "constitution.yaml").unlink()
    assert questions(run) == {}


def test_word_diffs_hold_both_texts() -> None:
    a, b = (
        "The cat sat on a mat, quietly.\nIt slept.",
        "The dog sat on the mat, quietly.\nIt slept!",
    )
    found = word_diff(a, b)
    assert found is not None
    one, two = found
    assert "".join(text for _, text in one) == a
    assert "".join(text for _, text in two) == b
    assert [text for own, text in one if own] == ["cat", "a", "."]
    assert [text for own, text in two if own] == ["dog", "the", "!"]
    assert word_diff("one text about cats", "Nothing here is shared: 42!") is None
    assert word_diff("x " * 15_000, "x " * 15_000) is None
