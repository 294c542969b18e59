"""Tokenizes what many prompts share once, and joins token ids instead of texts.

Joined ids are right only where no token can reach over the seam.  That is shown in three
steps, and where one fails every prompt is tokenized whole:

1. No token of the vocabulary spells the two characters at the seam next to each other, so no
   merge and no piece spans it, whatever stands further left or right.
2. Short probes with awkward text before the seam (spaces, digits, emoji, letters of other
   scripts) give the same ids joined as whole, for every continuation.
3. For every context one continuation, another each time, is tokenized as part of the whole, and
   must end in exactly the ids that are joined.  The ids of the context come from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

Encode = Callable[[str], list[int]]
Wrap = Callable[[str, str], str]

_MARK = "\ue000"
_MOST_REMEMBERED = 4096
_PROBES = (
    "",
    " ",
    "  \t ",
    "\n",
    "\n\n\n",
    " \n ",
    "a",
    "a ",
    "Z9",
    "42",
    "3.14",
    "...",
    "?!",
    "a's",
    "(",
    "]",
    "-",
    "--",
    "_",
    "`",
    "```\n",
    "{",
    "<",
    "\\",
    "\r\n",
    "\r",
    "\u00a0",
    "\u200b",
    "\ufeff",
    "é",
    "e\u0301",
    "漢字",
    "かな",
    "عربى",
    "हिन्दी",
    "🙂",
    "\u200d",
    "ﬁ",
    "Ａ",
)


@cache
def _byte_letters() -> dict[int, str]:
    """How byte-level vocabularies (GPT-2 and after) write each byte as a printable character."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    table = {b: chr(b) for b in shown}
    table |= {b: chr(256 + i) for i, b in enumerate(hidden)}
    return table


def _spellings(char: str, *, last: bool) -> set[str]:
    """The ways in which vocabularies write `char`, seen from its end or its start."""
    byte = char.encode("utf-8", "replace")[-1 if last else 0]
    found = {char, _byte_letters()[byte], f"<0x{byte:02X}>"}
    return found | {"▁"} if char == " " else found


def never_joined(left: str, right: str, vocabulary: Iterable[str]) -> bool:
    """Whether no token spells the characters `left` and `right` next to each other."""
    pairs = [a + b for a in _spellings(left, last=True) for b in _spellings(right, last=False)]
    return not any(pair in token for token in vocabulary for pair in pairs)


def shared_length(rows: Sequence[Sequence[int]]) -> int:
    """How many leading ids all `rows` have in common."""
    low, high = min(map(list, rows)), max(map(list, rows))
    for i, (one, other) in enumerate(zip(low, high, strict=False)):
        if one != other:
            return i
    return min(len(low), len(high))


class SegmentEncoder:
    """Token ids of `wrap(shared + tail, prefill)` for many tails of each shared text.

    Args:
        encode: text to ids, without adding special tokens.
        wrap: a message's content, and what opens the answer, to the text of the whole chat.
        vocabulary: the tokens as the tokenizer writes them.
    """

    def __init__(self, encode: Encode, wrap: Wrap, vocabulary: Sequence[str]) -> None:
        self._encode = encode
        self._wrap = wrap
        self._vocabulary = vocabulary
        self._seams: dict[tuple[str, frozenset[str], str], int | None] = {}
        self._tails: dict[tuple[str, str], tuple[str, list[int]]] = {}
        self._turn = 0
        self.joined = self.whole = 0

    def encode(
        self, shared: str, tails: Sequence[str], fixed: int, prefill: str = ""
    ) -> tuple[list[int], list[list[int]]]:
        """The ids that all the prompts begin with, and what each goes on with.

        Args:
            shared: text before the tails.
            tails: one per prompt; equal ones are told apart by the caller.
            fixed: how many characters at the end of `shared` are the same in every call; 0 where
                the tails change from call to call, so that nothing is worth remembering.
            prefill: what opens the answer.
        """
        if not fixed:
            self.whole += len(tails)
            return self._encode_whole(shared, tails, prefill)
        key = (shared[len(shared) - fixed :], frozenset(tail[:1] for tail in tails), prefill)
        if key not in self._seams:
            if len(self._seams) >= _MOST_REMEMBERED:
                self._seams.clear()
            self._seams[key] = self._find_seam(key[0], tails, prefill)
        moved = self._seams[key]
        if moved is not None:
            cut = len(shared) - moved
            context = self._context(shared[:cut], shared[cut:], tails, prefill)
            if context is not None:
                self.joined += len(tails)
                return context, [self._tail(shared[cut:] + tail, prefill)[1] for tail in tails]
            self._seams[key] = None
        self.whole += len(tails)
        return self._encode_whole(shared, tails, prefill)

    def _encode_whole(
        self, shared: str, tails: Sequence[str], prefill: str
    ) -> tuple[list[int], list[list[int]]]:
        rows = [self._encode(self._wrap(shared + tail, prefill)) for tail in tails]
        # Every prompt keeps a token of its own, as with joined ids.
        n = min(shared_length(rows), min(map(len, rows)) - 1)
        return rows[0][:n], [row[n:] for row in rows]

    def _tail(self, tail: str, prefill: str) -> tuple[str, list[int]]:
        """Text and ids of a tail with all that the chat template and the prefill put after it."""
        key = (tail, prefill)
        if key not in self._tails:
            if len(self._tails) >= _MOST_REMEMBERED:
                self._tails.clear()
            text = self._wrap(_MARK + tail, prefill).partition(_MARK)[2]
            self._tails[key] = (text, self._encode(text))
        return self._tails[key]

    def _context(
        self, shared: str, moved: str, tails: Sequence[str], prefill: str
    ) -> list[int] | None:
        """The ids before the seam, or None where the joined ids would be wrong."""
        self._turn += 1
        tail = moved + tails[self._turn % len(tails)]
        whole = self._wrap(shared + tail, prefill)
        text, ids = self._tail(tail, prefill)
        if not ids or not whole.endswith(text):
            return None
        found = self._encode(whole)
        if found[-len(ids) :] != ids or len(found) == len(ids):
            return None
        return found[: -len(ids)]

    def _find_seam(self, fixed: str, tails: Sequence[str], prefill: str) -> int | None:
        """How many characters to move from the shared text to the tails; None: no place is safe."""
        for moved in range(min(len(fixed), 24)):
            left = fixed[len(fixed) - moved - 1]
            rights = {(fixed[len(fixed) - moved :] + tail)[:1] for tail in tails}
            if "" in rights or any(right.isspace() for right in rights):
                continue
            if not all(never_joined(left, right, self._vocabulary) for right in rights):
                continue
            cut = len(fixed) - moved
            if self._probes_hold(fixed[:cut], fixed[cut:], tails, prefill):
                return moved
        return None

    def _probes_hold(self, fixed: str, moved: str, tails: Sequence[str], prefill: str) -> bool:
        for n, probe in enumerate(_PROBES):
            shared = f"x{probe}{fixed}"
            context = self._context(shared, moved, tails, prefill)
            if context is None:
                return False
            for tail in tails if n < 4 else tails[n % len(tails) :][:1]:
                joined = context + self._tail(moved + tail, prefill)[1]
                if joined != self._encode(self._wrap(shared + moved + tail, prefill)):
                    return False
        return True
