"""What a model knows of the scans of its training: the fingerprints of its sources, and the background of its targets."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from voxlate.base.array_types import AnyArray
from voxlate.base.messages import FEWEST_PATIENTS
from voxlate.base.records import MOST_NUMBER, Name, Number, Record, Shape, checksum, write_tensors
from voxlate.checks.fingerprint import SIDE, Fingerprint, fingerprint, stored_fingerprint
from voxlate.checks.reference import Reference, fit_reference
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.mask import background_value, dilate, foreground
from voxlate.scans.images.misalignment import block_means

if TYPE_CHECKING:
    from voxlate.scans.cases.prepared import Cohort

COARSE_MM = 4.0
MOST_CASES = 100  # the farthest of more is hardly farther


@dataclass(frozen=True)
class Stated:
    """What a file states of the reference of one source; see Reference."""

    names: tuple[Name, ...]
    patients: Annotated[int, Field(ge=FEWEST_PATIENTS, le=MOST_NUMBER)]


@dataclass(frozen=True)
class KnownHeader:
    """The header of a file of known scans."""

    backgrounds: dict[Name, Number]
    beyond: dict[Name, Number]
    references: dict[Name, Stated] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownScans:
    """The scans of a training: by source their reference, by target its background and `beyond`.

    backgrounds: in physical units; beyond: the share of a target's body that no source shows, median over cases. A source of
    too few patients has no reference.
    """

    backgrounds: Mapping[str, float]
    beyond: Mapping[str, float]
    references: Mapping[str, Reference] = field(default_factory=dict)

    @classmethod
    def read(cls, stated: KnownHeader, arrays: Mapping[str, AnyArray]) -> "KnownScans":
        """Those of a file's header and arrays."""
        references = {
            name: Reference(of.names, arrays[f"{name}.values"], arrays[f"{name}.mean"], of.patients)
            for name, of in stated.references.items()
        }
        return cls(stated.backgrounds, stated.beyond, references)

    @property
    def header(self) -> KnownHeader:
        """What a file states beside its arrays."""
        stated = {name: Stated(one.names, one.patients) for name, one in self.references.items()}
        return KnownHeader(dict(self.backgrounds), dict(self.beyond), stated)

    @property
    def arrays(self) -> dict[str, AnyArray]:
        """SOURCE.values and SOURCE.mean of each reference."""
        arrays = dict[str, AnyArray]()
        for name, one in self.references.items():
            arrays |= {f"{name}.values": one.values, f"{name}.mean": one.mean}
        return arrays

    def save(self, path: Path) -> None:
        """Write them as a safetensors file."""
        text = json.dumps(asdict(self.header), sort_keys=True, allow_nan=False)
        write_tensors(path, self.arrays, {"anatomy": text, "sha256": checksum(text, self.arrays)})


def read_known_scans(path: Path, modalities: Collection[str]) -> KnownScans:
    """Read the known scans of a training of these modalities; those of version 0.7 hold no references.

    Raises BadInput where a file is damaged, was edited, or is of another training or format.
    """
    record = Record(
        path,
        "what is usual in a training",
        "Remove it, and images are synthesised without these checks; install voxlate again if it is that of a starter.",
    )
    with record.tensors() as file:
        text = file.text("anatomy")
        digest = file.text("sha256")
        earlier = json.loads(text)
        if "usual" in earlier:
            return KnownScans(earlier.get("backgrounds", {}), earlier.get("beyond", {}))
        stated: KnownHeader = record.parse(KnownHeader, text)
        arrays = file.read(shapes_of(stated))
    record.check_checksum(digest, checksum(text, arrays))
    others = set().union(*vars(stated).values()) - set(modalities)
    record.check(not others, f"modalities that its recipe has not ({', '.join(sorted(others))})")
    return KnownScans.read(stated, arrays)


def shapes_of(stated: KnownHeader) -> dict[str, Shape]:
    """The shapes of the arrays beside a header."""
    shapes = {}
    for name, of in stated.references.items():
        shapes[f"{name}.values"] = Shape((None, len(of.names)))
        shapes[f"{name}.mean"] = Shape((SIDE,) * 3, ("U8",))
    return shapes


def known_scans_of(
    cohort: "Cohort",
    cases: Sequence[str],
    sources: Collection[str],
    targets: Mapping[str, IntensityMap],
) -> KnownScans:
    """The known scans of a cohort's training cases; at most MOST_CASES of them, evenly chosen."""
    step = -(-len(cases) // MOST_CASES) or 1
    scans = {name: list[tuple[str, Fingerprint]]() for name in sources}
    airs = defaultdict[str, list[float]](list)
    beyond = defaultdict[str, list[float]](list)
    for case_name in cases[::step]:
        case = cohort.case(case_name)
        header = case.header
        # Read once each, because drawn ones are computed.
        volumes = {name: case.volume(name) for name in {*sources, *targets} & {*header.visible}}
        shown = [name for name in sources if name in volumes]
        for name in shown:
            measured = stored_fingerprint(header, name)
            if measured is None:
                measured = fingerprint(volumes[name])
            if measured.numbers:
                scans[name].append((header.patient, measured))
        for name in targets.keys() & volumes.keys():
            scale = targets[name].scale(header.statistics[name])
            airs[name].append(float(scale.forward(np.float32(background_value(volumes[name])))))
            beyond[name].append(_beyond(volumes[name], [volumes[source] for source in shown]))
    backgrounds = {}
    for name, values in airs.items():
        scale = cohort.target_scale(targets[name], name, cases)
        backgrounds[name] = float(scale.inverse(np.median(values)))
    shares = {name: round(float(np.median(own)), 4) for name, own in beyond.items()}
    return KnownScans(backgrounds, shares, references_of(scans))


def references_of(scans: Mapping[str, Sequence[tuple[str, Fingerprint]]]) -> dict[str, Reference]:
    """The reference of each source from the patient and the fingerprint of its scans; none of few patients."""
    references = {}
    for name, some in scans.items():
        patients = [patient for patient, _ in some]
        if len({*patients}) >= FEWEST_PATIENTS:
            references[name] = fit_reference([scan for _, scan in some], patients)
    return references


def _beyond(target: Volume, sources: Sequence[Volume]) -> float:
    """The share of a target's body that is a voxel of COARSE_MM or more away from the body that any source shows."""
    body, *shown = (foreground(_coarse(volume)) for volume in (target, *sources))
    near = dilate(np.logical_or.reduce(shown), 1, (1, 1, 1))
    return float((body & ~near).sum() / max(1, body.sum()))


def _coarse(volume: Volume) -> Volume:
    """A volume averaged over blocks of about COARSE_MM; voxels that fill no block are left out."""
    data = volume.data[0]
    sides_mm = volume.grid.spacing_mm
    blocks = [min(n, max(1, round(COARSE_MM / mm))) for n, mm in zip(data.shape, sides_mm)]
    z, y, x = np.multiply(sides_mm, blocks)
    means = block_means(data, blocks)[None]
    return Volume(means, np.diag([x, y, z, 1.0]), volume.unit, volume.modality)
