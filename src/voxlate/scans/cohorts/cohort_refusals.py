"""Cohorts that are refused: scans that voxlate synthesised, and a modality of several units."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.formats.dicom import entries_in, folder_and_key, headers_of
from voxlate.scans.formats.dicom_headers import text_of
from voxlate.scans.formats.io import is_synthetic

SYNTHESISED = "SYNTHETIC "  # with which the descriptions of exported DICOM series begin


def refuse_synthetic(cases: Iterable[CaseFiles], names: Collection[str] | None = None) -> None:
    """Raise BadInput where a scan of a cohort is an image that voxlate synthesised; names: of scans, by default all."""
    for case in cases:
        for name, path in case.files.items():
            if (names is None or name in names) and _is_synthesised(path):
                raise BadInput(
                    f"{path}: expected a scan of the patient, found an image that voxlate synthesised, which is no truth and no source to learn from. Take the scan, or leave the case out (--exclude)."
                )


def _is_synthesised(path: Path) -> bool:
    """Whether the file, or the description of a DICOM series, says so."""
    place, key = folder_and_key(path)
    if place.is_dir():
        with suppress(BadInput, IndexError):  # which reading the scan says
            ((image, header), *_) = headers_of(path if key else entries_in(place)[0]).items()
            return text_of(header, "SeriesDescription", image).startswith(SYNTHESISED)
        return False
    return is_synthetic(path)


def check_unit(name: str, unit: str, case: str, first: dict[str, tuple[str, str]]) -> None:
    """Raise BadInput where a modality has another unit than in the case before; first: (unit, case) by modality."""
    known, other = first.setdefault(name, (unit, case))
    if unit != known:
        raise BadInput(
            f"{name}: expected one unit in all cases, found {known} in {other} and {unit} in {case}. Convert one of them, or leave those cases out by a manifest."
        )
