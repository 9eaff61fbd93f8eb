"""Cases whose DICOM series lie mixed in folders, told apart by their tags."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from voxlate.data.presets import SHOWN, CaseFiles, Key, Preset, is_dicom_folder, key_of, named_cases, path_expression
from voxlate.data.tags import Tags
from voxlate.errors import BadInput
from voxlate.images.series import Seen, list_series, listed


def cases_by_series(root: Path, layout: Preset) -> list[CaseFiles]:
    """The cases whose series lie in folders of the layout's form, each series chosen by its tags.

    A case may have one folder or many; root may itself be one. A modality that no series fits is missing. Raises
    BadInput where no folder has the form, several series fit one modality of a case, or none fits in any case.
    """
    skip = [path_expression(one) for one in layout.skip]
    folders = {name: path for name, path in _dicom_folders(root) if not any(one.fullmatch(name) for one in skip)}
    for pattern in layout.patterns:
        if series := _series_of_cases(root, folders, pattern):
            chosen = {key: _chosen(seen, layout.series, case=key[1]) for key, seen in series.items()}
            if not any(chosen.values()):
                raise _none_fits(root, series, layout.series)
            return [case for case in named_cases(chosen, layout) if case.files]
    shown = ", ".join(f"'{name}'" for name in list(folders)[:SHOWN]) + (", …" if len(folders) > SHOWN else "")
    found = f"{len(folders)} of another form ({shown})" if folders else "none"
    expected = "' or '".join(layout.patterns)
    raise BadInput(
        f"{root}: expected folders of DICOM files like '{expected}', found {found}. Check the path, or pass --pattern "
        "with {patient} and {case} where they stand in a folder's path."
    )


def _dicom_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Folders with DICOM files by their paths below root; root itself goes by its name."""
    for folder, names, files in os.walk(root, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith("."))
        here = Path(folder)
        if files and is_dicom_folder(here):
            yield here.relative_to(root).as_posix() if here != root else root.resolve().name, here


def _series_of_cases(root: Path, folders: Mapping[str, Path], pattern: str) -> dict[Key, list[Seen]]:
    expression = path_expression(pattern)
    series: dict[Key, list[Seen]] = defaultdict(list)
    for name, folder in folders.items():
        if match := expression.fullmatch(name):
            series[key_of(match, root)] += list_series(folder)
    return series


def _chosen(series: Sequence[Seen], tables: Mapping[str, Tags], case: str) -> dict[str, Path]:
    chosen = {}
    for name, tags in tables.items():
        fitting = [seen for seen in series if tags.fits(seen)]
        if len(fitting) > 1:
            folders = " and ".join(dict.fromkeys(str(seen.folder) for seen in fitting))
            raise BadInput(
                f"{folders}: expected one series with {tags} to be {name} of case {case}, found {listed(fitting)}. "
                f"Move the others out of the folder, or narrow [series.{name}] in a preset file of your own."
            )
        if fitting:
            chosen[name.lower()] = fitting[0].path
    return chosen


def _none_fits(root: Path, series: Mapping[Key, list[Seen]], tables: Mapping[str, Tags]) -> BadInput:
    (_, case), seen = next(iter(series.items()))
    asked = " or ".join(f"{tags} ({name})" for name, tags in tables.items())
    return BadInput(
        f"{root}: expected DICOM series with {asked}, found none in {len(series)} cases; {case} has {listed(seen)}. "
        "Check the path, or name the tags in a preset file of your own."
    )
