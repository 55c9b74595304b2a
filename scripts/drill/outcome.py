"""What a case of the drill found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One row of the drill's table; ``wrong`` is empty when the promise was kept in every try."""

    fault: str
    tries: int
    lost: str
    wrong: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        return not self.wrong


def judged(fault: str, tries: int, lost: str, checks: dict[str, bool]) -> Outcome:
    """The outcome of named checks; what is false is wrong."""
    return Outcome(fault, tries, lost, tuple(name for name, fine in checks.items() if not fine))
