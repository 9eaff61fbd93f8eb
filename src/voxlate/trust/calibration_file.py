"""The file of a calibration: RUN/calibration.<answer>.<samples>.safetensors, checked strictly when it is read."""

import hashlib
import json
import math
from pathlib import Path

from pydantic import StrictStr
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from voxlate.scoring.regions import regions_from
from voxlate.system.config import adapter
from voxlate.system.errors import BadInput
from voxlate.system.records import Digest, Record, Shape, Tensors, checksum, write_tensors
from voxlate.trust.calibration import BODY, MEMORY, SAMPLE_METHODS, Calibration, Header, Target
from voxlate.trust.out_of_distribution import reference_shapes, references_from
from voxlate.trust.widths import SETTINGS, widths_from, widths_shapes


class _Stamped(TypedDict):
    header: StrictStr
    sha256: Digest


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration with a checksum of its whole content."""
    tensors = calibration.references.tensors(MEMORY)
    for name, widths in calibration.widths.items():
        tensors |= widths.tensors(name)
    text = json.dumps(adapter(Header).dump_python(calibration.header, mode="json"))
    stated = json.dumps({"header": text, "sha256": checksum(text, tensors)})
    write_tensors(path, tensors, {"calibration": stated})


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file; raises BadInput where it is damaged, was changed, or is another file."""
    record = Record(path, "a calibration", "Remove it, and calibrate again.")
    with record.tensors("pt") as file:
        stamped = record.parse(_Stamped, file.text("calibration"))
        text = stamped["header"]
        header: Header = record.parse(Header, text, infinite=True)
        _check(record, header)
        mapped = file.read(_shapes(file, header))
        tensors = {name: tensor.clone() for name, tensor in mapped.items()}
    record.check_checksum(stamped["sha256"], checksum(text, tensors))
    references = references_from(tensors, MEMORY)
    same = references.patients == header.patients
    record.check(same, f"scans of {references.patients} patients, not of {header.patients}")
    learned = [name for name, target in header.targets.items() if target.way in SETTINGS]
    widths = {name: widths_from(tensors, name) for name in learned}
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    return Calibration(header, widths, references, digest)


def _shapes(file: Tensors, header: Header) -> dict[str, Shape]:
    """The shapes of the tensors: of the networks of targets with a learned method, and of the reference patches."""
    points, _ = file.shapes.get(f"{MEMORY}.points", ((), ""))
    file.record.check(len(points) == 2, "no patches of known scans")
    shapes = {f"{MEMORY}.{name}": shape for name, shape in reference_shapes(points).items()}
    for name, target in header.targets.items():
        if target.way in SETTINGS:
            features, _ = file.shapes.get(f"{name}.centre", ((), ""))
            file.record.check(len(features) == 1, f"no network for {name}")
            own = widths_shapes(target.way, features[0])
            shapes |= {f"{name}.{key}": shape for key, shape in own.items()}
    return shapes


def _check(record: Record, header: Header) -> None:
    """Raise BadInput unless the entries of a header agree with each other."""
    names = header.targets.keys()
    record.check(
        bool(names) and header.units.keys() == names,
        f"units of {', '.join(header.units) or 'nothing'}",
    )
    record.check(
        header.halves.keys() == names, f"scales of {', '.join(header.halves) or 'nothing'}"
    )
    record.check(
        len(header.cases) >= header.patients,
        f"{header.patients} patients of {len(header.cases)} cases",
    )
    samples = header.synth.get("samples")
    record.check(type(samples) is int and samples >= 1, "options of no synthesis")
    for name, target in header.targets.items():
        _check_target(record, name, target, header.coverage, int(str(samples)))


def _check_target(
    record: Record,
    name: str,
    target: Target,
    coverage: float,
    samples: int,
) -> None:
    record.check(
        target.scales.get(coverage, 0) > 0, f"no scale of {name} for the coverage {coverage:g}"
    )
    record.check(target.way in target.compared, f"a way of {name} that was not compared")
    needs_samples = {target.way, *target.compared} & set(SAMPLE_METHODS)
    record.check(
        not needs_samples or samples > 1, f"intervals of {name} by samples, of images of one"
    )
    record.check(
        target.ends[0] < target.ends[1],
        f"ends of {name} from {target.ends[0]:g} to {target.ends[1]:g}",
    )
    try:
        regions = regions_from(target.regions)
    except BadInput as error:
        raise record.wrong(f"regions of {name} that are none ({error})") from error
    plain = all(region.modality and not region.mirrored for region in regions)
    record.check(plain, f"regions of {name} that are no thresholds")
    known = {BODY, "mae", *target.regions}
    record.check(target.bounds.keys() <= known, f"bounds of {name} for other regions")
    for comparison in target.compared.values():
        record.check(comparison.coverage.keys() <= known, f"a coverage of {name} in other regions")
        for mean, low, high in comparison.coverage.values():
            sound = low <= mean <= high and not math.isnan(low)
            record.check(sound, f"a coverage of {name} outside its interval")
