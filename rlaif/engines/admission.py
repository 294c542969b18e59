"""How many requests a running vLLM holds at once."""

from __future__ import annotations

STEPS_AHEAD = 3
"""A step that runs, one that is ready, and one whose requests come meanwhile."""
CACHE_SHARE = 0.8
"""Share of the KV cache that requests may fill; the rest keeps prefixes for later requests."""
LEAST_REQUESTS, MOST_REQUESTS = 256, 4096


class Admission:
    """Lets requests in until they are worth a few steps, and as long as the cache holds them.

    By count alone an engine starves where questions are short: 256 questions of 40 tokens behind a
    shared context are less than one step of a large GPU.

    Args:
        capacity: of the KV cache, in tokens.
        step: tokens that a step computes at most.
        most: requests at once, if the user said so.
    """

    def __init__(self, capacity: int, step: int, most: int | None = None) -> None:
        self.most_tokens = int(CACHE_SHARE * capacity)
        self.most_requests = most or MOST_REQUESTS
        self._wanted = 0 if most else STEPS_AHEAD * step

    def count_requests(self, own: int) -> int:
        """About how many requests come in.

        Args:
            own: tokens of a request that no earlier one has.
        """
        wanted = max(LEAST_REQUESTS, self._wanted // own) if self._wanted else self.most_requests
        return max(1, min(wanted, self.most_requests, self.most_tokens // own))

    def has_room(self, requests: int, tokens: int) -> bool:
        """Whether another request may come in.

        Args:
            requests: that are in.
            tokens: of these, those that no earlier request has, and those to be written.
        """
        if not requests:
            return True
        if tokens >= self.most_tokens or requests >= self.most_requests:
            return False
        return not self._wanted or requests < LEAST_REQUESTS or tokens < self._wanted
