"""What a run of the model checker did and found, as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.model.history import Fault, History


@dataclass
class Report:
    """Filled while the run goes on."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    pauses: Counter[str] = field(default_factory=Counter)
    figures: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    #: What was killed when; told when there are faults.
    deeds: list[str] = field(default_factory=list)

    def text(self, history: History) -> str:
        """A line per subject; the faults last, by name, a few of each."""
        outcomes = Counter((operation.kind, operation.outcome) for operation in history.operations.values())
        attempts = [attempt.outcome for operation in history.operations.values() for attempt in operation.attempts]
        lines = [
            f"seed {self.seed}",
            f"kills    {self.kills.total()}: {_listed(self.kills)}",
            f"pauses   {self.pauses.total()}: {_listed(self.pauses)}",
            f"attempts {len(attempts)}: {_listed(Counter(attempts))}",
            f"operations {outcomes.total()}, after their last attempt",
            *(f"  {kind}: {_listed(_of_kind(outcomes, kind))}" for kind in sorted({kind for kind, _ in outcomes})),
            f"answers  {_listed(Counter(history.answers))}",
            f"readings {len(history.readings)}: {_listed(Counter(reading.sight for reading in history.readings))}",
            *(f"{name}: {figure}" for name, figure in self.figures.items()),
            f"faults   {len(self.faults)}: {_listed(Counter(fault.name for fault in self.faults))}".rstrip(": "),
        ]
        return "\n".join([*lines, *_examples(self.faults), *(self.deeds if self.faults else [])]) + "\n"


def _of_kind(outcomes: Counter[tuple[str, str]], kind: str) -> Counter[str]:
    return Counter({outcome: count for (of_kind, outcome), count in outcomes.items() if of_kind == kind})


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _examples(faults: Iterable[Fault], *, of_each: int = 5) -> list[str]:
    shown: Counter[str] = Counter()
    lines = []
    for fault in faults:
        shown[fault.name] += 1
        if shown[fault.name] <= of_each:
            lines.append(f"  {fault}")
    return lines
