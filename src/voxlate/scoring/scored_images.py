"""The images of a folder that are scored: each has a truth, and all come from one synthesis of their own case's scans."""

import functools
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.cases.naive import Baselines
from voxlate.cohorts.case_files import CaseFiles
from voxlate.formats.io import content_hash, is_there, scan_endings, without_ending
from voxlate.scoring.intervals import Interval, interval_of
from voxlate.scoring.provenance import (
    difference,
    provenance_of,
    read_run,
    run_folders,
    shared_settings,
    stated_inputs,
)
from voxlate.system.errors import BadInput
from voxlate.system.files import HIGH, LOW, MAPS, STD, SYNTHETIC, UNCALIBRATED

BASELINES = "naive.safetensors"


@dataclass(frozen=True, eq=False)
class Item:
    """One synthesised image: its case, modality, files and provenance."""

    case: CaseFiles
    modality: str
    synthesis: Path
    std: Path | None
    interval: Interval | None
    provenance: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.case.case}/{self.modality}"

    @property
    def inputs(self) -> dict[str, Path]:
        """The source scans by the image's provenance, or at their place in the cohort if they were moved."""
        stated = stated_inputs(self.provenance).items()
        return {
            name: path if is_there(path) else self.case.files.get(name, path)
            for name, path in stated
        }


@dataclass(frozen=True)
class ScoredImages:
    """The images to score, the names of images without a truth, and by case the reason against scoring an image."""

    items: list[Item]
    without_truth: list[str]
    refused: dict[str, str]


def find_items(out: Path, cases: Mapping[str, CaseFiles], where: str) -> ScoredImages:
    """The syntheses of OUT/<case> whose case has a truth; where: name of the cohort in messages.

    Raises BadInput if there are none, if they are from syntheses with different settings, or from another case's scans.
    """
    if not out.is_dir():
        raise BadInput(
            f"{out}: expected the folder that `voxlate synth` wrote, found none. Check the path."
        )
    scored = ScoredImages([], [], {})
    failed = provenance_of(out).get("failed", {})
    every = {path.name: images_in(path) for path in sorted(out.iterdir()) if path.is_dir()}
    folders = {name: images for name, images in every.items() if images}
    stated = {name for name in folders if (out / name / "provenance.json").is_file()}
    for name, images in folders.items():
        case = cases.get(name)
        if case and name not in stated and set(images.values()) <= _scans(case):
            continue  # OUT is the cohort itself, and this case has no synthesis
        if case and name in failed:
            scored.refused[name] = f"its image is of an earlier run; {failed[name]}"
        elif case and stated and name not in stated:
            scored.refused[name] = "synth was stopped while it wrote this case: run it again"
        else:
            own = {
                modality: path for modality, path in images.items() if not is_map(modality, images)
            }
            for modality, path in own.items():
                if case is None or modality not in case.files:
                    scored.without_truth.append(f"{name}/{modality}")
                    continue
                provenance = provenance_of(out, name, modality)
                std = spread_of(modality, images)
                interval = interval_of(images, modality, provenance)
                scored.items.append(Item(case, modality, path, std, interval, provenance))
    if not scored.items:
        refused = next((f" ({case}: {why})" for case, why in scored.refused.items()), "")
        raise BadInput(
            f"{out}: expected <case>/<modality>.nii.gz with the names of the cases in {where}, found none that match{refused}. Check the two folders and the names of the modalities."
        )
    for of_modality in items_by_modality(scored.items).values():
        _check_one_way(
            out,
            {item.case.case: item.provenance for item in of_modality if item.case.case in stated},
        )
    _check_own_scans(out, {item.case.case for item in scored.items}, cases)
    return scored


def is_map(name: str, images: Collection[str]) -> bool:
    """Whether an image of a case is a map of another image of it, such as its standard deviation."""
    own = {
        suffix for suffix in MAPS if name.endswith(suffix) and name.removesuffix(suffix) in images
    }
    ends = {LOW: HIGH, HIGH: LOW}  # a scan may be called ct_low
    return any(
        suffix not in ends or name.removesuffix(suffix) + ends[suffix] in images for suffix in own
    )


def spread_of(modality: str, images: Mapping[str, Path]) -> Path | None:
    """The map of an image's standard deviation, if there is one."""
    return images.get(modality + STD) or images.get(modality + UNCALIBRATED)


def _scans(case: CaseFiles) -> set[Path]:
    """All files of a case."""
    return {
        *case.files.values(),
        *case.labels.values(),
        *([case.mask] if case.mask else []),
    }


def not_scored(out: Path, images: ScoredImages, cases: Mapping[str, CaseFiles]) -> dict[str, str]:
    """The reasons why images with a truth are absent, by <case>/<modality>, or by case if it has no image at all.

    The cases are those that synth was asked for, or else all.
    """
    provenance = provenance_of(out)
    scored = {(item.case.case, item.modality) for item in images.items}
    targets = items_by_modality(images.items)
    reasons = provenance.get("failed", {}) | images.refused
    absent = dict[str, str]()
    for case in provenance.get("cases") or cases:
        expected = set[str]()
        if case in cases:
            expected = set(targets) & set(cases[case].files) - _given(out, case)
        for name in sorted(name for name in expected if (case, name) not in scored):
            label = f"{case}/{name}" if any((case, other) in scored for other in targets) else case
            absent[label] = reasons.get(label, f"no image in {out.name}")
    return absent | images.refused


def _given(out: Path, case: str) -> set[str]:
    """The modalities that were sources of all images of a case, so that no image of them is expected."""
    provenance = provenance_of(out, case)
    return set() if "made_without" in provenance else set(stated_inputs(provenance))


def _check_one_way(out: Path, provenances: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise BadInput if images are from several models, seeds or options, because their scores describe no method."""
    ways: dict[str, list[str]] = {}
    for case, provenance in provenances.items():
        ways.setdefault(json.dumps(shared_settings(provenance), sort_keys=True), []).append(case)
    if len(ways) > 1:
        first, second, *_ = ways.values()
        groups = [f"{len(cases)} as {cases[0]}" for cases in ways.values()]
        raise BadInput(
            f"{out}: expected images made in one way, found {len(ways)} ({', '.join(groups)}) that differ in {difference(provenances[first[0]], provenances[second[0]])}. Run synth again over all cases, or into another folder."
        )


def _check_own_scans(out: Path, scored: Collection[str], cases: Mapping[str, CaseFiles]) -> None:
    """Raise BadInput if the provenance of an image names another case of the cohort, or a scan of another case."""
    owners = {path.resolve(): name for name, case in cases.items() for path in case.files.values()}
    for name in sorted(scored):
        provenance = provenance_of(out, name)
        owned = {owners.get(place.resolve(), name) for place in stated_inputs(provenance).values()}
        if others := (owned | ({provenance.get("case", name)} & cases.keys())) - {name}:
            raise BadInput(
                f"{out / name}: expected an image made from the scans of {name}, found one of {', '.join(sorted(others))} by its provenance. Give the folder its case's name again."
            )


def images_in(folder: Path) -> dict[str, Path]:
    """Image files by modality: those that the provenance lists, if it does, in the format with the least loss."""
    listed = provenance_of(folder).get("images")
    images = dict[str, Path]()
    for ending in reversed(scan_endings()):
        found = [
            path
            for path in sorted(folder.glob(f"*{ending}"))
            if listed is None or path.name in listed
        ]
        images |= {_modality(path.name): path for path in found}
    return dict(sorted(images.items()))


def _modality(file: str) -> str:
    """The modality that the name of an image file says."""
    return without_ending(file).removeprefix(SYNTHETIC)


def items_by_modality(items: Sequence[Item]) -> dict[str, list[Item]]:
    """The images of each modality, sorted by the modalities' names."""
    names = sorted({item.modality for item in items})
    return {name: [item for item in items if item.modality == name] for name in names}


def check_unchanged(out: Path, document: Mapping[str, Any]) -> None:
    """Raise BadInput if images of OUT have changed since the scores in `document`.

    Scores without their images pass, unless the provenance of the case lists other images now.
    """
    for name, content in document.get("images", {}).items():
        case, modality = name.split("/")
        if (out / case).is_dir() and _is_other(out / case, modality, content):
            raise BadInput(
                f"{out}: expected scores of the images in this folder, found {name} changed since. Run voxlate evaluate again."
            )


def _is_other(folder: Path, modality: str, content: str) -> bool:
    """Whether the image of a case has another content."""
    listed = provenance_of(folder).get("images")
    path = images_in(folder).get(modality)
    if listed and modality not in map(_modality, listed):
        return True
    return path is not None and content_hash(path) != content


@dataclass(frozen=True, eq=False)
class RunFiles:
    """The naive baselines and the prepared cohort of an image's run, if they exist."""

    baselines: Baselines | None
    prepared: Path | None


def run_files_of(
    items: Iterable[Item], naive: Baselines | Path | str | None, prepared: Path | None
) -> dict[Item, RunFiles]:
    """The files of each image's run; naive, prepared: files for all images instead."""
    given = naive if isinstance(naive, Baselines | None) else Baselines.load(naive)

    @functools.cache
    def run_files(folders: tuple[Path, ...]) -> RunFiles:
        stored = [path for folder in folders if (path := folder / BASELINES).is_file()]
        own = Baselines.load(stored[0]) if stored and given is None else given
        return RunFiles(own, _prepared_cohort(folders) if prepared is None else prepared)

    return {item: run_files(tuple(run_folders(item.provenance))) for item in items}


def _prepared_cohort(folders: Iterable[Path]) -> Path | None:
    for run in folders:
        path = run / "provenance.json"
        stated = read_run(path).get("prepared") if path.is_file() else None
        if isinstance(stated, str):
            folder = Path(os.path.normpath(run / stated))
            return folder if (folder / "cohort.json").is_file() else None
    return None
