"""Where the cases of a cohort are: by the default layout, a pattern, a preset for a public data set, or a manifest."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from voxlate.data.find_series import cases_by_series
from voxlate.data.manifest import manifest_in, read_manifest
from voxlate.data.presets import DEFAULT_PATTERNS, CaseFiles, Preset, cases_on_disk, load_preset, presets, take_frames
from voxlate.errors import BadInput

__all__ = ["CaseFiles", "Preset", "find_cases", "load_preset", "manifest_in", "presets"]


def find_cases(
    root: Path | str,
    pattern: str | None = None,
    manifest: Path | str | None = None,
    preset: str | Path | None = None,
    modalities: Sequence[str] | None = None,
) -> list[CaseFiles]:
    """The cases below a folder, sorted by name.

    pattern: a path below root with {patient}, {case}, {modality}, * and **; without a file suffix it takes any that
    can be read, DICOM folders too. Without any option: <root>/<case>/<modality>.<suffix> (the file name may begin with
    the case) or, where root is itself one case, <root>/<modality>.<suffix>. A manifest (see manifest.py) is taken from
    root/cases.csv or root/cohort.csv when none is named. With a preset that has [series] tables, patterns are those of
    the folders with DICOM files, and their series are chosen by tags; [frames] makes modalities of frames of
    a moving scan. modalities: every case must have these; only they are kept.
    Raises BadInput for an empty cohort, a pattern that matches nothing, and so on: one sentence each.
    """
    root = Path(root)
    if not root.is_dir():
        raise BadInput(
            f"{root}: expected a folder of cases, found {'a file' if root.exists() else 'nothing'}. Check the path."
        )
    layout = load_preset(preset) if preset is not None else Preset(title="", source="", patterns=list(DEFAULT_PATTERNS))
    if pattern is not None:
        layout = dataclasses.replace(layout, patterns=[pattern], files={})

    def on_disk() -> list[CaseFiles]:
        if layout.series:
            return cases_by_series(root, layout)
        return cases_on_disk(root, layout, single=pattern is None and preset is None)

    manifest = manifest if manifest is not None else manifest_in(root)
    cases = read_manifest(Path(manifest), root, layout, on_disk) if manifest is not None else on_disk()
    cases = [take_frames(one, layout.frames) for one in cases]
    return _with_modalities(sorted(cases, key=lambda one: one.case), modalities, root)


def _with_modalities(cases: list[CaseFiles], modalities: Sequence[str] | None, root: Path) -> list[CaseFiles]:
    if not cases:
        raise BadInput(
            f"{root}: expected at least one case with an image, found none: an empty cohort. Check the path."
        )
    if modalities is None:
        return cases
    for wanted in modalities:
        _require(cases, wanted, root)
    return [dataclasses.replace(case, files={name: case.files[name] for name in modalities}) for case in cases]


def _require(cases: list[CaseFiles], wanted: str, root: Path) -> None:
    lacking = [case for case in cases if wanted not in case.files]
    if len(lacking) == len(cases):
        known = ", ".join(sorted({name for case in cases for name in case.files}))
        raise BadInput(f"{root}: expected the modality {wanted}, found {known} in the cohort. Name one of these.")
    if lacking:
        found = ", ".join(lacking[0].files)
        raise BadInput(
            f"case {lacking[0].case}: expected the modality {wanted}, found {found} ({len(lacking)} of {len(cases)} "
            "cases lack it). Add the file, leave the case out by a manifest, or do not name this modality."
        )
