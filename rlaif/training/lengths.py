"""What is done with rows by their length: the same for pairs and for completions."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlaif.errors import RlaifError
from rlaif.training.policy_text import PolicyText, TextAccount


@dataclass
class LengthAccount(TextAccount):
    """What was done with rows by their length, and how many are left."""

    prompt_too_long: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    truncated: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    repeated_by_weight: int = 0
    trained: int = 0

    def length_facts(self) -> tuple[tuple[list[str], str], ...]:
        """The rows of each kind, and what happened to them."""
        return (
            (self.empty, "skipped: the chat template renders a completion as empty"),
            (self.prompt_too_long, "skipped: the prompt alone fills max_length"),
            (self.dropped, "dropped: longer than max_length"),
            (self.truncated, "truncated to max_length"),
        )


class LengthFilter:
    """Keeps the rows that can be trained on, and names the others in an account.

    Args:
        what: of a row, in errors.
        overlong: what becomes of longer rows: "truncate", "drop" or "error".
    """

    def __init__(
        self, what: str, text: PolicyText, max_length: int, overlong: str, account: LengthAccount
    ) -> None:
        self._what, self._text, self._account = what, text, account
        self._most, self._overlong = max_length, overlong

    def keeps(self, name: str, *, prompt: int, common: int, least: int, most: int) -> bool:
        """Whether a row is trained on.

        Args:
            prompt: tokens of the prompt alone.
            common: tokens that the prompt and the row begin with alike.
            least, most: tokens of the row's shortest and longest conversation.

        Raises:
            RlaifError: it is too long, and that is to be an error.
        """
        account = self._account
        if most > self._most and self._overlong == "error":
            raise RlaifError(
                f"{self._what} {name!r} has {most} tokens, more than max_length {self._most}",
                hint="Raise --max-length, or use --overlong truncate or --overlong drop.",
            )
        if common >= self._most:
            account.prompt_too_long.append(name)
        elif least <= common:
            account.empty.append(name)
        elif most > self._most and self._overlong == "drop":
            account.dropped.append(name)
        else:
            if most > self._most:
                account.truncated.append(name)
            if common < prompt:
                account.prompt_end_cut.append(name)
            if not self._text.ends_turns:
                account.endless.append(name)
            return True
        return False
