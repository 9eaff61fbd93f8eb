"""The cases of a cohort of DICOM series, each series chosen by its tags."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, product
from pathlib import Path

from voxlate.cohorts.case_files import CaseFiles, cases_of
from voxlate.cohorts.choice import Choice, Row, quote_some
from voxlate.cohorts.patterns import fits_any, path_expression, study_of
from voxlate.cohorts.presets import Preset, Tags
from voxlate.formats.dicom import SeriesInfo, is_dicom_folder, list_series, listing
from voxlate.system.errors import BadInput


def cases_by_series(
    root: Path, layout: Preset, folders: Sequence[Path], choice: Choice
) -> list[CaseFiles]:
    """The cases whose series are in folders of the layout's form, each series chosen by its tags.

    A case may have one folder or many; root may itself be one. A modality that no series fits is missing. Raises
    BadInput where no folder has the form, several series fit one modality of a case, or none fits in any case.
    """
    skip = [path_expression(pattern) for pattern in layout.skip]
    places = dict[str, Path]()  # by their paths below root
    for folder in filter(is_dicom_folder, folders):
        name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
        if not fits_any(name, skip):
            places[name] = folder
    for pattern in layout.patterns:
        expression = path_expression(pattern)
        by_case = defaultdict[tuple[str | None, str], list[SeriesInfo]](list)
        for name, folder in places.items():
            match = expression.fullmatch(name)
            if match is not None:
                by_case[study_of(match, root)] += [
                    series
                    for series in list_series(folder)
                    if choice.keep_file(
                        series.path,
                        series.description,
                        series.path.as_posix().removeprefix(f"{root.as_posix()}/"),
                    )
                ]
        if by_case:
            rows = _rows_of(by_case, layout.series)
            if not rows:
                raise _none_fits(root, by_case, layout.series)
            listed = {series.path: series for series in chain.from_iterable(by_case.values())}
            unclear = partial(_several_series, layout.series, listed)
            return cases_of(rows, choice, layout.patient, unclear)
    others = f"{len(places)} of another form ({quote_some([*places])})" if places else "none"
    expected = "' or '".join(layout.patterns)
    raise BadInput(
        f"{root}: expected folders of DICOM files like '{expected}', found {others}. Check the path, or pass --pattern with {{patient}} and {{case}} where they stand in a folder's path."
    )


def _rows_of(
    by_case: Mapping[tuple[str | None, str], Sequence[SeriesInfo]], tables: Mapping[str, Tags]
) -> list[Row]:
    """A row for each modality that a series may be by its tags."""
    rows = list[Row]()
    for (key, of_case), (name, tags) in product(by_case.items(), tables.items()):
        for series in of_case:
            if tags.fits(series):
                rows.append(Row(*key, name.lower(), series.path, series.description))
    return rows


def _several_series(
    tables: Mapping[str, Tags], listed: Mapping[Path, SeriesInfo], rows: Sequence[Row]
) -> BadInput:
    """The error of a case with several series that fit the tags of one modality."""
    modality = rows[0].modality
    name, tags = next((name, tags) for name, tags in tables.items() if name.lower() == modality)
    found = [listed[row.path] for row in rows]
    folders = " and ".join(dict.fromkeys(str(series.folder) for series in found))
    descriptions = [row.description for row in rows]
    differ = len(set(descriptions)) == len(rows)
    choice = descriptions[0] if differ else found[0].path.name
    return BadInput(
        f"{folders}: expected one series with {tags} to be {modality} of case {rows[0].case}, found {listing(found)}. Choose one (--prefer '{choice}'), leave others out (--exclude-file, by description or path), or narrow [series.{name}] in a TOML file of your own (--preset)."
    )


def _none_fits(
    root: Path,
    by_case: Mapping[tuple[str | None, str], list[SeriesInfo]],
    tables: Mapping[str, Tags],
) -> BadInput:
    (_, case), found = next(iter(by_case.items()))
    wanted = " or ".join(f"{tags} ({name})" for name, tags in tables.items())
    return BadInput(
        f"{root}: expected DICOM series with {wanted}, found none in {len(by_case)} cases; {case} has {listing(found)}. Check the path, or name the tags in a preset file of your own."
    )
