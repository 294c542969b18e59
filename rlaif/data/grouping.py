"""Joins rows that belong together: several responses to one prompt, and messages of one thread.

Rows are joined as they come, in flat memory: those of one prompt or one thread must stand
together.  A group that comes up again later is rejected, so that no half is taken for the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from rlaif.data.columns import dig
from rlaif.data.layout import Layout
from rlaif.data.messages import ROLES
from rlaif.records import Rejected

GROUP = "__group__"
"""Column of a joined row that holds the rows that it was made of."""
THREAD = Layout(
    prompt=("prompt",),
    responses=("responses",),
    scores=("responses[].rank",),
    ranks=True,
    id="id",
)
"""How rows made of threads are read."""
Placed = tuple[str, Mapping[str, Any] | Rejected]


def join_rows(rows: Iterable[Placed], layout: Layout) -> Iterator[Placed]:
    """Rows as `layout` groups them; other layouts' rows as they are."""
    if layout.group_by:
        asked = (
            layout.group_by,
            layout.system,
            layout.history,
            layout.tools,
            *layout.context,
            *layout.media,
        )
        yield from _by_value(rows, [path for path in asked if path])
    elif layout.thread_by:
        yield from _threads(rows, layout.thread_by)
    else:
        yield from rows


def _by_value(rows: Iterable[Placed], paths: Sequence[str]) -> Iterator[Placed]:
    """Rows with the same whole question: the value that they are grouped by, and what belongs to
    the prompt beside it.
    """
    seen: set[bytes] = set()
    held: list[Mapping[str, Any]] = []
    first, mark = "", b""
    for place, row in rows:
        if isinstance(row, Rejected):
            yield place, row
            continue
        asked = repr([dig(row, path) for path in paths])
        key = blake2b(asked.encode("utf-8", "replace"), digest_size=12).digest()
        if held and key == mark:
            held.append(row)
            continue
        if held:
            yield first, {GROUP: held}
            held = []
        if key in seen:
            why = f"other responses with this {paths[0]!r} came earlier; sort the file by it"
            yield place, Rejected(place, why)
            mark = b""
            continue
        seen.add(key)
        held, first, mark = [row], place, key
    if held:
        yield first, {GROUP: held}


def _threads(rows: Iterable[Placed], path: str) -> Iterator[Placed]:
    """Every turn of a thread that has replies, as a row with the conversation before it."""
    held: dict[str, Mapping[str, Any]] = {}
    places: dict[str, str] = {}
    tree = None
    for place, row in rows:
        if isinstance(row, Rejected):
            yield place, row
            continue
        start = dig(row, path)
        root = start if isinstance(start, Mapping) else row
        if isinstance(root.get("replies"), list):
            yield from _of_tree(place, root, [], str(row.get("message_tree_id") or ""))
            continue
        own = row.get("message_tree_id")
        if held and (own is None or own != tree) and not row.get(path):
            yield from _of_messages(held, places, path)
            held, places = {}, {}
        name = str(row.get("message_id", row.get("id")))
        held[name], places[name], tree = row, place, own
    yield from _of_messages(held, places, path)


def _of_messages(
    held: Mapping[str, Mapping[str, Any]], places: Mapping[str, str], path: str
) -> Iterator[Placed]:
    """Messages that name the one that they answer, as trees."""
    replies: dict[str, list[str]] = {}
    roots = []
    for name, row in held.items():
        parent = row.get(path)
        if not parent:
            roots.append(name)
        elif str(parent) in held:
            replies.setdefault(str(parent), []).append(name)
        else:
            place = places[name]
            why = f"the message that it answers ({str(parent)[:40]!r}) does not stand before it"
            yield place, Rejected(place, why)

    def tree(name: str) -> dict[str, Any]:
        return {**held[name], "replies": [tree(reply) for reply in replies.get(name, [])]}

    for name in roots:
        yield from _of_tree(places[name], tree(name), [], name)


def _stands(reply: Mapping[str, Any]) -> bool:
    """Whether a message was neither deleted nor turned down in review, as OpenAssistant has it."""
    return not reply.get("deleted") and reply.get("review_result") is not False


def _of_tree(
    place: str, node: Mapping[str, Any], before: list[dict[str, Any]], name: str
) -> Iterator[Placed]:
    stack = [(node, before)]
    found = False
    while stack:
        node, before = stack.pop()
        said, role = node.get("text", node.get("content")), str(node.get("role", "user")).lower()
        if not isinstance(said, str) or role not in ROLES:
            yield place, Rejected(place, "a message of the thread has no text or no known role")
            continue
        path = [*before, {"role": ROLES[role], "content": said}]
        replies = [r for r in node.get("replies") or [] if isinstance(r, Mapping) and _stands(r)]
        answers = [
            r for r in replies if ROLES.get(str(r.get("role", "assistant")).lower()) == "assistant"
        ]
        if ROLES[role] == "user" and answers:
            found = True
            responses = [
                {"text": r.get("text", r.get("content")), "rank": r.get("rank")} for r in answers
            ]
            identity = name if len(path) == 1 else f"{name}/{node.get('message_id', len(path))}"
            yield place, {"prompt": path, "responses": responses, "id": identity}
        stack += [(reply, path) for reply in reversed(replies)]
    if not found:
        yield place, Rejected(place, "the thread has no answer")
