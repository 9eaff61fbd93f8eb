"""The images of a folder that are scored, with their maps: each has a truth, and all come from one synthesis of their own case's scans."""

import functools
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW, MAPS, STD, SYNTHETIC, UNCALIBRATED
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.formats.io import content_hash, is_there, scan_endings, without_ending
from voxlate.synthesis.provenance import (
    common_settings,
    difference,
    provenance_of,
    run_folders,
    source_paths,
)
from voxlate.training.naive import Baselines
from voxlate.training.recipe.run_provenance import PROVENANCE, first_run, read_run, stated_place

BASELINES = "naive.safetensors"
Images = dict[str, Path]  # of a case, by name


@dataclass(frozen=True, eq=False)
class Interval:
    """The maps of the lower and upper ends of intervals.

    coverage: nominal coverage; bound: upper bound of the mean absolute error inside the body in physical units; changed:
    whether the maps were changed after synthesis.
    """

    low: Path
    high: Path
    coverage: float
    bound: float | None
    changed: bool


def interval_of(
    images: Mapping[str, Path], modality: str, provenance: Mapping[str, Any]
) -> Interval | None:
    """The intervals of an image among its case's maps, as its provenance describes them; None if there are none."""
    calibration = provenance.get("calibration")
    low, high = images.get(modality + LOW), images.get(modality + HIGH)
    if low is None or high is None or not calibration:
        return None
    bound = provenance.get("bounds", {}).get(modality, {}).get("mae")
    changed = is_changed(low, provenance) or is_changed(high, provenance)
    return Interval(low, high, float(calibration["coverage"]), bound, changed)


def is_changed(image: Path, provenance: Mapping[str, Any]) -> bool:
    """Whether the content of an image differs from the one that its provenance states; False if it states none."""
    written: str | None = provenance.get("images", {}).get(image.name)
    return written is not None and written != content_hash(image)


@dataclass(frozen=True, eq=False)
class Item:
    """One synthesised image: its case, modality, files and provenance.

    baselines, prepared: the naive baselines and the prepared cohort of its run, if they exist.
    """

    case: CaseFiles
    modality: str
    synthesis: Path
    std: Path | None
    interval: Interval | None
    provenance: Mapping[str, Any]
    baselines: Baselines | None = None
    prepared: Path | None = None

    @property
    def label(self) -> str:
        """The name of the image in messages and metrics.json: <case>/<modality>."""
        return f"{self.case.case}/{self.modality}"

    @property
    def fold(self) -> str:
        """Of a cross-validation, the run that made the image because it did not train on its case; "" of other images."""
        if "held_out_by" not in self.provenance:
            return ""
        runs = map(Path, self.provenance.get("runs") or [self.provenance["run"]])
        return "+".join(run.parent.name if run.suffix else run.name for run in runs)

    @property
    def inputs(self) -> dict[str, Path]:
        """The source scans by the image's provenance, or at their place in the cohort if they were moved."""
        return {
            name: path if is_there(path) else self.case.files.get(name, path)
            for name, path in source_paths(self.provenance).items()
        }


@dataclass(frozen=True)
class ScoredImages:
    """The images to score, the names of images without a truth, and by image or case the reason against scoring it."""

    items: list[Item]
    without_truth: list[str]
    refused: dict[str, str]


def find_items(out: Path, cases: Mapping[str, CaseFiles], where: str) -> ScoredImages:
    """The syntheses of OUT/<case> whose case has a truth; where: name of the cohort in messages.

    Raises BadInput if there are none, or if they are from syntheses with different settings.
    """
    if not out.is_dir():
        raise BadInput(
            f"{out}: expected the folder that `voxlate synth` wrote, found none. Check the path."
        )
    scored = ScoredImages([], [], {})
    folders = case_folders(out)
    whole = provenance_of(out)
    is_synthesis = any((folder / "provenance.json").is_file() for folder, _ in folders)
    for folder, images in folders:
        case = cases.get(folder.name)
        complete = (folder / "provenance.json").is_file()
        if case and folder.name in whole.get("failed", {}):
            reason = f"its image is of an earlier run; {whole['failed'][folder.name]}"
            scored.refused[folder.name] = reason
        elif case and is_synthesis and not complete:
            reason = "synth was stopped while it wrote this case: run it again"
            scored.refused[folder.name] = reason
        else:
            _add_items(scored, folder, images, case)
    if not scored.items:
        refused = next((f" ({case}: {why})" for case, why in scored.refused.items()), "")
        raise BadInput(
            f"{out}: expected images of the cases in {where} at OUT/CASE/MODALITY.nii.gz, as synth writes them, found none that match{refused}. Check the two folders and the names."
        )
    for items in items_by_modality(scored.items).values():
        _check_one_method(out, items)
    _add_absent(scored, out, cases)
    return scored


def case_folders(out: Path) -> list[tuple[Path, Images]]:
    """The folders of cases in OUT with their images by modality."""
    folders = [(place, images_in(place)) for place in sorted(filter(Path.is_dir, out.iterdir()))]
    return [(place, images) for place, images in folders if images]


def _add_items(scored: ScoredImages, folder: Path, images: Images, case: CaseFiles | None) -> None:
    """Add the syntheses of one case."""
    for modality, path in images.items():
        if is_map(modality, images):
            continue
        if case is None or modality not in case.files:
            scored.without_truth.append(f"{folder.name}/{modality}")
            continue
        provenance = provenance_of(folder.parent, folder.name)
        std = spread_of(modality, images)
        interval = interval_of(images, modality, provenance)
        scored.items.append(Item(case, modality, path, std, interval, provenance))


def is_map(name: str, images: Collection[str]) -> bool:
    """Whether an image of a case is a map of another image of it, such as its standard deviation."""
    ends = {LOW: HIGH, HIGH: LOW}  # a scan may be called ct_low, so an interval needs both ends
    for suffix in MAPS:
        main = name.removesuffix(suffix)
        if main != name and main in images and main + ends.get(suffix, suffix) in images:
            return True
    return False


def spread_of(modality: str, images: Mapping[str, Path]) -> Path | None:
    """The map of an image's standard deviation, if there is one."""
    return images.get(modality + STD) or images.get(modality + UNCALIBRATED)


def _add_absent(scored: ScoredImages, out: Path, cases: Mapping[str, CaseFiles]) -> None:
    """Add the reasons why images with a truth are absent, of the cases that synth was asked for, or else of all.

    By <case>/<modality>, or by case if it has no image at all.
    """
    whole = provenance_of(out)
    labels = {item.label for item in scored.items}
    with_image = {item.case.case for item in scored.items}
    targets = {item.modality for item in scored.items}
    for case in whole.get("cases") or cases:
        files = cases[case].files.keys() if case in cases else set()
        # a source of the case's images is no target
        for name in sorted(targets & files - source_paths(provenance_of(out, case)).keys()):
            label = f"{case}/{name}"
            if label not in labels:
                label = label if case in with_image else case
                reason = whole.get("failed", {}).get(label, f"no image in {out.name}")
                scored.refused.setdefault(label, reason)


def _check_one_method(out: Path, items: Iterable[Item]) -> None:
    """Raise BadInput if images are from several models, seeds or options, because their scores describe no method."""
    methods = grouped(
        (json.dumps(common_settings(item.provenance), sort_keys=True), item)
        for item in items
        if item.provenance
    )
    if len(methods) > 1:
        first, second, *_ = (images[0].provenance for images in methods.values())
        counts = [f"{len(images)} as {images[0].case.case}" for images in methods.values()]
        raise BadInput(
            f"{out}: expected images of one method, found {len(methods)} ({', '.join(counts)}) that differ in {difference(first, second)}. Run synth again over all cases, or into another folder."
        )


def images_in(folder: Path) -> Images:
    """Image files by modality: those that the provenance lists, if it does, in the format with the least loss."""
    listed = provenance_of(folder).get("images")
    images = {}
    for ending in reversed(scan_endings()):
        for path in sorted(folder.glob(f"*{ending}")):
            if listed is None or path.name in listed:
                images[modality_of(path.name)] = path
    return dict(sorted(images.items()))


def modality_of(file: str) -> str:
    """The modality that the name of an image file says, also where the image completes a case."""
    return without_ending(file).removeprefix(SYNTHETIC)


def items_by_modality(items: Iterable[Item]) -> dict[str, list[Item]]:
    """The images of each modality, sorted by the modalities' names."""
    return dict(sorted(grouped((item.modality, item) for item in items).items()))


def check_unchanged(out: Path, document: Mapping[str, Any]) -> None:
    """Raise BadInput if images of OUT have changed since the scores in `document`; scores without their images pass."""
    for label, content in document.get("images", {}).items():
        case, modality = label.split("/")
        path = images_in(out / case).get(modality)
        if path is not None and content_hash(path) != content:
            raise BadInput(
                f"{out}: expected scores of the images in this folder, found {label} changed since. Run voxlate evaluate again."
            )


def add_run_files(
    items: Iterable[Item], naive: Baselines | Path | str | None, prepared: Path | None
) -> list[Item]:
    """The images with the files of their runs; naive, prepared: for all images instead, `naive` also by its run."""
    read = functools.cache(Baselines.load)
    if isinstance(naive, Path | str):
        naive = read(Path(naive) / BASELINES)
    completed = []
    for item in items:
        folders = run_folders(item.provenance)
        stored = [path for folder in folders if (path := folder / BASELINES).is_file()]
        baselines = naive
        if naive is None and stored:
            baselines = read(stored[0])
        cohort = prepared or _find_cohort(folders)
        completed.append(replace(item, baselines=baselines, prepared=cohort))
    return completed


def _find_cohort(runs: Iterable[Path]) -> Path | None:
    """The prepared cohort that the first of the runs names, if it is still there."""
    run = first_run(runs)
    prepared = None if run is None else read_run(run / PROVENANCE).get("prepared")
    if run is None or prepared is None:
        return None
    folder = stated_place(run, prepared)
    return folder if (folder / "cohort.json").is_file() else None
