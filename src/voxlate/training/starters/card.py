"""The card of a starter: what it was trained on, which scans it takes, what was measured, and its limits."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from voxlate.base.groups import grouped
from voxlate.base.records import (
    Count,
    Digest,
    FileName,
    Name,
    NotNegative,
    Number,
    Positive,
    Record,
    ShortDigest,
    Text,
)
from voxlate.scans.cohorts.path_names import scans_named
from voxlate.training.starters.names import CARD

MOST_BYTES = 10 * 10**6  # of the weights of one starter, so that the package stays small


@dataclass(frozen=True)
class Measured:
    """One measured number: the scans, the score, its value, and the best naive baseline where there is one.

    error_of: the modality of which it is the mean error.
    """

    scans: Text
    score: Text
    value: Number
    baseline: Number | None = None
    error_of: Name | None = None

    def __str__(self) -> str:
        compared = "" if self.baseline is None else f" (best naive baseline {self.baseline:.4g})"
        return f"{self.scans}: {self.score} {self.value:.4g}{compared}"


@dataclass(frozen=True)
class Intervals:
    """The calibration of a starter: its file, the beginning of the file's SHA-256, and a sentence on its intervals."""

    file: FileName
    sha256: ShortDigest
    text: Text


@dataclass(frozen=True)
class Card:
    """The facts of a starter, as its card.toml states them.

    accepts: for each of its modalities, the names of scans in cohorts that it stands for; stripped: whether its scans
    show the brain alone; spacing_mm: the finest and coarsest pixels of its training; sha256: the checksum of the
    weights' header and tensors; run: the beginning of the SHA-256 of the run's file that was packed; cpu_hours: of its
    training, on one core; target_limits: what cannot be trusted in a synthesised modality; intervals: None of a starter without a calibration; licence: of the weights.
    """

    title: Text
    trained_on: Text
    source: list[Name]
    target: list[Name]
    accepts: dict[Name, list[Name]]
    stripped: bool
    spacing_mm: tuple[Positive, Positive]
    parameters: Count
    bytes: Annotated[int, Field(ge=1, le=MOST_BYTES)]
    cpu_hours: NotNegative
    sha256: Digest
    run: ShortDigest
    limits: list[Text] = field(default_factory=list)
    target_limits: dict[Name, Text] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    intervals: Intervals | None = None
    licence: Text = "Apache-2.0"

    @property
    def errors(self) -> dict[str, list[str]]:
        """The measured mean errors by modality."""
        return grouped((one.error_of, f"{one}") for one in self.measured if one.error_of)

    @property
    def all_limits(self) -> list[str]:
        """The limits of single targets, then those of all."""
        return [*self.target_limits.values(), *self.limits]

    @property
    def on_intervals(self) -> str:
        """A sentence on the intervals."""
        return "It has no intervals." if self.intervals is None else self.intervals.text

    @property
    def completes(self) -> bool:
        """Whether it synthesises any missing modality from the others."""
        return self.source == self.target

    def names_of(self, modality: str) -> tuple[str, ...]:
        """The names of scans in cohorts that one of its modalities stands for, its own first."""
        return (modality, *self.accepts.get(modality, ()))

    def match(self, source: Sequence[str], target: Sequence[str]) -> dict[str, str] | None:
        """The cohort's name of each modality that it uses, in the order of the starter's; None if they do not match.

        A starter that completes gives any of its modalities from any others; another needs all of its own.
        """
        if self.completes:
            theirs = [*dict.fromkeys((*source, *target))]
            names = self._pair(self.source, theirs)
            return names if len(names) == len(theirs) else None
        names = self._pair(self.source, source) | self._pair(self.target, target)
        own, theirs = [*self.source, *self.target], [*source, *target]
        return names if len(own) == len(theirs) == len(names) else None

    def _pair(self, own: Sequence[str], theirs: Sequence[str]) -> dict[str, str]:
        """The cohort's name of each modality of a side that has one, each of which is used once."""
        names = dict[str, str]()
        for name in own:
            free = [other for other in theirs if other not in names.values()]
            if stated := scans_named(free, self.names_of(name)):
                names[name] = stated[0]
        return names

    @property
    def lines(self) -> list[str]:
        """The card as sentences."""
        return [
            f"Trained on {self.trained_on}, {self.cpu_hours:.3g} hours of one core.",
            *(
                f"A scan called {', '.join(self.accepts.get(name, [name]))} is taken as {name}."
                for name in self.source
            ),
            *(f"Measured on {result}." for result in self.measured),
            *([] if self.measured else ["Not measured on real scans."]),
            self.on_intervals,
            *(f"Limit: {limit}" for limit in self.all_limits),
        ]


def read_card(folder: Path) -> Card:
    """The card of a starter's folder; raises BadInput if it is not as it was written."""
    path = folder / CARD
    record = Record(path, "the card of a starter", "Install voxlate again.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise record.wrong(f"none that can be read ({error})") from error
    return record.fill(Card, content)
