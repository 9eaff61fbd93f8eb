"""The folder of a synthesis: which of its images are kept, which belong to other options, and its provenance."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.files import lock, relative_to, safe_name, write_json
from voxlate.synthesis.inputs import contents_of
from voxlate.synthesis.provenance import difference, provenance_of, read_provenance
from voxlate.synthesis.result import check_folder, read_synthesis

SHARED_SECONDS = 60.0  # that one of several processes waits for another to write shared files
OF_ONE_CASE = {  # entries of a case's provenance that the folder's provenance does not have
    "case", "bounds", "expected", "measured", "familiar", "peaks", "split", "inputs", "prepared", "warnings", "empty", "images", "in_training", "anyway", "held_out_by",
    "network_calls", "seconds_per_slice", "device", "batch", "planes_read",
}  # fmt: skip


@dataclass(frozen=True)
class OutputFolder:
    """The folder into which cases are synthesised, and what all its images have in common.

    plan: what decides the images, without the scans of a case (see `Model.plan`); origins: of the models; others: cases
    that other processes write into the folder at the same time, None where there are no other processes; parts: into how many
    processes the cases are split; ending: of the
    images' files.
    """

    path: Path
    plan: Mapping[str, Any]
    origins: tuple[Path, ...]
    others: Sequence[str] | None
    ending: str
    parts: int

    def folder_of(self, case: str) -> Path:
        """The folder of a case."""
        return self.path / safe_name(case, "case")

    def runs_from(self, folder: Path, members: Collection[int] | None = None) -> dict[str, Any]:
        """The entries of a provenance on where models are: `run`, the first, and of an ensemble also `runs`, all of them.

        members: the numbers of those that made the images, None for all. The scores use the naive baselines of the first.
        """
        used = [
            one for number, one in enumerate(self.origins) if members is None or number in members
        ]
        places = [place_from(origin, folder) for origin in used]
        return {"run": places[0], **({"runs": places} if len(places) > 1 else {})}

    def lock(self, path: Path, wait_seconds: float = 0) -> AbstractContextManager[None]:
        """Hold a folder against the other processes, where there are any."""
        return nullcontext() if self.others is None else lock(path, wait_seconds)

    def differences(self, cases: Collection[str]) -> list[str]:
        """For each image of these cases that belongs to another plan: in what it differs.

        Raises BadInput for images of other cases that belong to another plan.
        """
        differences = []
        for path in sorted(self.path.glob("*/provenance.json")):
            stated = read_synthesis(path)
            change = _difference(stated, self.plan) if stated else ""
            if not change:
                continue
            if path.parent.name not in cases:
                raise BadInput(
                    f"{self.path}: expected images made in one way, found that of {path.parent.name}, which is not to be made now, to differ in {change}. Choose another --out, or remove that folder."
                )
            differences.append(change)
        return differences

    def claim(self, cases: Sequence[str]) -> None:
        """State the plan of all parts in the folder; raise BadInput where images or other processes have another plan.

        cases: of all parts. The plan is written before the first image, so that processes that start at the same time
        read it. It remains after a crash, and then refuses only other plans.
        """
        self.differences(())  # a part replaces no image that another job may have written
        path = self.path / "provenance.json"
        if not path.is_file():
            shared = {key: value for key, value in self.plan.items() if key != "inputs"}
            self._write(shared, cases, {})
            return
        stated = read_synthesis(path)
        if stated.get("parts", self.parts) != self.parts:
            raise BadInput(
                f"{path}: expected one of {stated['parts']} parts, as which this folder was begun, found one of {self.parts}, which holds other cases. Give all parts the same number, or choose another --out."
            )
        if change := _difference(stated, self.plan):
            raise BadInput(
                f"{path}: expected the way in which this part is to be made, found one that differs in {change}. Give all parts the same options, choose another --out, or remove {self.path}."
            )

    def has_images_of(self, case: str, files: Mapping[str, Path]) -> bool:
        """Whether the images of a case were written by this plan from the content of these scans.

        Raises BadInput where the images in its folder are of other scans.
        """
        folder = self.path / case
        check_folder(folder)
        path = folder / "provenance.json"
        if not path.exists():
            return False
        stated = read_provenance(path)
        inputs = stated.get("inputs", {})
        same_scans = _hashes(inputs) == _hashes(contents_of(files))
        places = {name: scan["path"] for name, scan in inputs.items() if "path" in scan}
        elsewhere = all(
            places.get(name) != place_from(file, folder) for name, file in files.items()
        )
        if places and elsewhere and not same_scans:
            raise BadInput(
                f"{folder}: expected no image of another scan, found that of {' and '.join(map(str, places.values()))}. Choose another --out, or remove the folder."
            )
        decisive = {*self.plan, "calibration"} - {"inputs"}  # a missing calibration is a difference
        return same_scans and all(stated.get(key) == self.plan.get(key) for key in decisive)

    def write_provenance(
        self,
        example: Path,
        cases: Sequence[str],
        lacking: Mapping[str, str],
        failed: Mapping[str, str],
    ) -> None:
        """Write the folder's provenance: what all cases have in common, their names, and why some have no image.

        example: the folder of a finished case; lacking: why other cases cannot be synthesised.
        """
        shared = read_provenance(example / "provenance.json")
        before = provenance_of(self.path)
        old = {case: why for case, why in lacking.items() if (self.path / case).is_dir()}
        still = {case: why for case, why in before.get("failed", {}).items() if case not in cases}
        # evaluate states which have no image
        listed = [*before.get("cases", []), *cases, *(self.others or ())]
        entries = {key: value for key, value in shared.items() if key not in OF_ONE_CASE}
        self._write(entries, list(dict.fromkeys(listed)), {**still, **old, **failed})

    def _write(
        self, entries: Mapping[str, Any], cases: Sequence[str], failed: Mapping[str, str]
    ) -> None:
        parts = {} if self.others is None else {"parts": self.parts}
        document = {**self.runs_from(self.path), "cases": list(cases), "failed": failed}
        write_json(self.path / "provenance.json", {**entries, **document, **parts})


def _difference(stated: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """The first difference between images and a plan in words, in the options or in the calibration; "" for none."""
    change = difference(stated, plan)
    calibrations = [stated.get("calibration"), plan.get("calibration")]
    if change or calibrations[0] == calibrations[1]:
        return change
    names = [
        f"calibration {entry.get('sha256', '')[:8]}" if entry else "no calibration"
        for entry in calibrations
    ]
    return " and ".join(names)


def _hashes(inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The hash of each input."""
    return {name: scan.get("sha256") for name, scan in inputs.items()}


def place_from(path: Path, folder: Path) -> str:
    """A path relative to a folder: provenance has no absolute path, and remains valid if both are moved."""
    return relative_to(folder, path.resolve() if path.exists() else path.absolute())
