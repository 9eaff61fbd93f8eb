"""The cases of a cohort of DICOM series, each series chosen by its tags."""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from voxlate.cohorts.choice import Choice
from voxlate.cohorts.paths import (
    Candidates,
    Folders,
    Key,
    key_of,
    named_cases,
    path_expression,
    some_of,
)
from voxlate.cohorts.presets import CaseFiles, Preset, Tags
from voxlate.formats.dicom import SeriesInfo, is_dicom_folder, list_series, listing
from voxlate.formats.io import location_of
from voxlate.system.errors import BadInput


def cases_by_series(
    root: Path,
    layout: Preset,
    folders_below: Folders,
    choice: Choice,
) -> list[CaseFiles]:
    """The cases whose series are in folders of the layout's form, each series chosen by its tags.

    A case may have one folder or many; root may itself be one. A modality that no series fits is missing. Raises
    BadInput where no folder has the form, several series fit one modality of a case, or none fits in any case.
    """
    skip = [path_expression(one) for one in layout.skip]
    folders = dict[str, Path]()  # by their paths below root
    for folder, files in folders_below:
        if files and is_dicom_folder(folder):
            name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
            if not any(expression.fullmatch(name) for expression in skip):
                folders[name] = folder
    for pattern in layout.patterns:
        expression = path_expression(pattern)
        series: dict[Key, list[SeriesInfo]] = defaultdict(list)
        for name, folder in folders.items():
            match = expression.fullmatch(name)
            if match:
                of_case = series[key_of(match, root)]
                of_case += [
                    info
                    for info in list_series(folder)
                    if choice.has_file(info.path, root, info.description)
                ]
        if series:
            fitting = {key: _fitting(of_case, layout.series) for key, of_case in series.items()}
            if not any(fitting.values()):
                raise _none_fits(root, series, layout.series)
            unclear = functools.partial(_several_series, layout.series)
            return [case for case in named_cases(fitting, layout, choice, unclear) if case.files]
    others = f"{len(folders)} of another form ({some_of(list(folders))})" if folders else "none"
    expected = "' or '".join(layout.patterns)
    raise BadInput(
        f"{root}: expected folders of DICOM files like '{expected}', found {others}. Check the path, or pass --pattern with {{patient}} and {{case}} where they stand in a folder's path."
    )


def _fitting(series: Sequence[SeriesInfo], tables: Mapping[str, Tags]) -> Candidates:
    """The series that each modality may be, by their tags, each with its description."""
    fitting = dict[str, list[tuple[Path, str]]]()
    for name, tags in tables.items():
        fits = [(info.path, info.description) for info in series if tags.fits(info)]
        if fits:
            fitting[name.lower()] = fits
    return fitting


def _several_series(
    tables: Mapping[str, Tags],
    candidates: Sequence[tuple[Path, str]],
    modality: str,
    case: str,
) -> BadInput:
    """The error of a case with several series that fit the tags of one modality."""
    name, tags = next((name, tags) for name, tags in tables.items() if name.lower() == modality)
    by_path = dict[Path, SeriesInfo]()
    for folder in {location_of(path) for path, _ in candidates}:
        by_path |= {info.path: info for info in list_series(folder)}
    found = [by_path[path] for path, _ in candidates]
    folders = " and ".join(dict.fromkeys(str(info.folder) for info in found))
    described = len({info.description for info in found}) == len(found)
    chosen = found[0].description if described else found[0].path.name
    return BadInput(
        f"{folders}: expected one series with {tags} to be {modality} of case {case}, found {listing(found)}. Choose one (--prefer '{chosen}'), leave others out (--exclude-file, by description or path), or narrow [series.{name}] in a TOML file of your own (--preset)."
    )


def _none_fits(
    root: Path,
    series: Mapping[Key, list[SeriesInfo]],
    tables: Mapping[str, Tags],
) -> BadInput:
    (_, case), found = next(iter(series.items()))
    wanted = " or ".join(f"{tags} ({name})" for name, tags in tables.items())
    return BadInput(
        f"{root}: expected DICOM series with {wanted}, found none in {len(series)} cases; {case} has {listing(found)}. Check the path, or name the tags in a preset file of your own."
    )
