"""A prepared case of which one scan stands for the source of a model that takes any of several.

It has the voxels, the statistics and the mask of the case on disk, under another name: a training reads it as any case.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from voxlate.scans.cases.case import PreparedCase
from voxlate.scans.cases.case_header import CaseHeader

T = TypeVar("T")
OF_SCANS = ("units", "origins", "statistics", "voxels", "signatures", "registered", "misaligned")


@dataclass(frozen=True)
class OneScan:
    """A scan of a case on disk, and the source for which it stands."""

    case: str
    scan: str
    source: str

    @property
    def name(self) -> str:
        """The name of the case, which no case on disk has; its noise depends on it."""
        return f"{self.scan} of {self.case}"

    def renamed(self, table: Mapping[str, T]) -> dict[str, T]:
        """A table by modality with the scan as the source, in the same order, which is that of the mask's bits."""
        return {self.source if name == self.scan else name: table[name] for name in table}

    def header(self, header: CaseHeader) -> CaseHeader:
        """The header with the scan as the source."""
        tables: dict[str, Any] = {name: self.renamed(getattr(header, name)) for name in OF_SCANS}
        return replace(header, case=self.name, **tables)

    def of(self, case: PreparedCase) -> PreparedCase:
        """The case with the scan as the source; its arrays are the same."""
        return replace(case, header=self.header(case.header), arrays=self.renamed(case.arrays))
