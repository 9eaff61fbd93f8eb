"""CTs in HU, written for one of their users: a folder of NIfTI maps, tables and facts for each case."""

import csv
import io
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from voxlate import __version__
from voxlate.base.errors import BadInput, CannotWrite
from voxlate.base.executors.job import Progress, no_report
from voxlate.base.files import lock, read_json, whole_folder, write_json, write_text
from voxlate.base.messages import Message, message, read_messages
from voxlate.checks.intensity_checks import check_tissue
from voxlate.clinic.consumer_dicom import find_source, write_attenuation, write_plan
from voxlate.clinic.consumers.beams import read_beam
from voxlate.clinic.consumers.maps import with_data, within
from voxlate.clinic.consumers.pet import WATER_MU, add_couch, coefficients, mu_511, on_pet_grid
from voxlate.clinic.consumers.planning import (
    clear_outside,
    cut_slices,
    plane_of,
    squared,
    transverse,
)
from voxlate.clinic.consumers.proton import ray_totals, wepl_map
from voxlate.clinic.consumers.tables import HuTable, read_table
from voxlate.clinic.consumers.tissues import default_table
from voxlate.clinic.consumers.ultrasound import (
    CONVERSIONS,
    acoustic_ends,
    bone_of,
    end_of_thickness,
    skull_of,
    skull_rays,
)
from voxlate.clinic.ct_checks import body_of, unusual
from voxlate.clinic.cts import ENDS, CtFiles, check_ends, find_cts, read_ct
from voxlate.clinic.options.consumers import ConsumerOptions
from voxlate.clinic.trust import refuse_changed, refuse_untrusted, why_not
from voxlate.evaluation.intervals.expected import expected_errors
from voxlate.scans.formats.io import content_hash, read_volume, write_volume
from voxlate.scans.formats.nifti import DISTRUSTED
from voxlate.scans.images.grid import Volume, canonical, resample, same_grid
from voxlate.scans.images.mask import foreground

SHARED_SECONDS = 1.0
NOTICE = "of a synthetic CT"
AIR_BELOW_HU = -900.0  # a table that begins below knows air
IN_COUCH = 0.05  # of a body; voxels at its skin may be


@dataclass
class Converted:
    """What `voxlate.export_for` wrote for a user of CTs.

    Args:
        consumer: planning, proton, ultrasound or pet.
        folders: one for each case.
        files: all files in them: maps (NIfTI, in the units of `facts`), tables (CSV), facts.json and DICOM.
        facts: by case what the maps are, and from which image.
        left_out: the reason of each case that could not be converted.
        messages: what is unusual in a CT.

    Example:
        >>> import voxlate
        >>> converted = voxlate.export_for("OTHERS/head0/ct.nii.gz", "PET", consumer="pet", progress=False)
        >>> converted.consumer, converted.left_out
        ('pet', {})
    """

    consumer: str
    folders: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)


@dataclass
class _Case:
    """A case that is written: its CT, and the new folder of its files; `facts` are written last."""

    files: CtFiles
    volumes: Mapping[str, Volume]
    to: Path
    done: Converted
    facts: dict[str, Any] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    @property
    def ct(self) -> Volume:
        """The CT itself."""
        return self.volumes[""]

    @cached_property
    def body(self) -> np.ndarray:
        """The body in the CT, bool [D, H, W]; raises BadInput where it shows none."""
        return body_of(self.ct)

    def write(self, name: str, volume: Volume) -> None:
        """Write a map as NIfTI."""
        mark = DISTRUSTED if why_not(self.files.provenance) else ""
        notice = f" ({self.done.consumer}); {NOTICE}{mark}"  # after what every header says
        write_volume(self.to / f"{name}.nii.gz", volume, notice)
        self.units[name] = volume.unit

    def map(self, name: str, data: np.ndarray, unit: str) -> None:
        """Write a map [D, H, W] on the grid of the CT."""
        self.write(name, with_data(self.ct, data, unit, name))

    def rows(self, name: str, columns: Mapping[str, np.ndarray]) -> None:
        """Write columns of numbers as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values()):  # without a number where there is none
            writer.writerow([f"{value:.4f}" if np.isfinite(value) else "" for value in row])
        write_text(self.to / name, text.getvalue())

    def say(self, text: str, code: str = "consumer") -> None:
        """Add a message on the case."""
        self.done.messages.append(message(code, text, case=self.files.case))


def export_for(
    out: Path, to: Path, options: ConsumerOptions, progress: Progress = no_report
) -> Converted:
    """Write TO/<case>/ for a consumer, from a folder that synth wrote, a case's folder, or a CT in HU.

    progress is called with (cases done, cases). Raises BadInput for what is no CT in HU, and for options that do not fit.
    """
    if options.consumer is None:
        raise BadInput(
            "--for: expected planning, proton, ultrasound or pet, found none. Name the user of the CT."
        )
    _check(options)
    cases = find_cts(out)
    count, done = len(cases), Converted(options.consumer)
    with lock(to, SHARED_SECONDS):
        for number, files in enumerate(cases):
            progress(number, count)
            try:
                _convert(files, to, options, done)
            except BadInput as error:
                if count == 1 or isinstance(error, CannotWrite):
                    raise
                done.left_out[files.case] = str(error)
    progress(count, count)
    return done


def _convert(files: CtFiles, to: Path, options: ConsumerOptions, done: Converted) -> None:
    """Write one case and its facts."""
    refuse_changed(files.files.values())
    refuse_untrusted(files.case, files.provenance, options.accept_untrusted)
    volumes = {end: read_ct(path) for end, path in files.files.items()}
    check_ends(volumes, files.case)
    folder = to / files.case
    _check_folder(folder, done.consumer, _scans(files))
    with whole_folder(folder) as new:
        case = _Case(files, volumes, new, done)
        stated = read_messages(files.provenance)
        kept = [said for said in stated if said.code == "starter" or said.grade != "note"]
        done.messages += [said.on(files.case) for said in kept + check_tissue(case.ct)]
        for sentence in unusual(case.ct, case.body, files.others):
            case.say(sentence)
        _CONVERT[done.consumer](case, options)
        _write_facts(case)
        if folder.exists():
            shutil.rmtree(folder)
    done.folders.append(folder)
    done.files += sorted(path for path in folder.rglob("*") if path.is_file())


def _scans(files: CtFiles) -> dict[str, str]:
    """The hashes of the scans of which a CT was synthesised, by name; of another CT, its own."""
    inputs = files.provenance.get("inputs", {}).items()
    hashes = {name: entry["sha256"] for name, entry in inputs if "sha256" in entry}
    return hashes or {"ct": content_hash(files.files[""])}


def _check_folder(folder: Path, consumer: str, scans: Mapping[str, str]) -> None:
    """Raise BadInput for a folder that holds anything but an earlier export of the same scans for this consumer, which is replaced."""
    present = {path.name for path in folder.glob("*")}
    facts = read_json(folder / FACTS) if FACTS in present else None
    earlier = facts if isinstance(facts, dict) else {}
    written = {FACTS, *earlier.get("files", ())} if earlier.get("consumer") == consumer else set()
    if present - written:
        raise BadInput(
            f"{folder}: expected a new folder, or one that export --for {consumer} wrote, found other files in it. Choose another --out."
        )
    if written and earlier.get("scans") != scans:
        raise BadInput(
            f"{folder}: expected a new folder, or an export of the same scan, found that of another one. Choose another --out."
        )


_OPTIONS = {  # the options of each consumer; those of others are refused, because they would have no effect
    "planning": {"table", "plane", "clear_outside", "like"},
    "proton": {"table", "beam"},
    "ultrasound": {"beam", "conversion", "aperture"},
    "pet": {"kvp", "couch", "like"},
}


FACTS = "facts.json"
COLUMNS = {"proton": "rsp", "planning": "electron_density"}  # of the tables


def _check(options: ConsumerOptions) -> None:
    """Raise BadInput for options that no case could be written with, before any is, and for those without any effect."""
    default = ConsumerOptions()
    used = _OPTIONS[options.consumer or ""] | {"consumer", "accept_untrusted"}
    for name, value in vars(options).items():
        if name not in used and value != getattr(default, name):
            users = ", ".join(user for user, names in _OPTIONS.items() if name in names)
            raise BadInput(
                f"--{name.replace('_', '-')}: expected it with --for {users}, found --for {options.consumer}. Leave it out."
            )
    coefficients(options.kvp)
    if options.beam is not None:
        read_beam(options.beam)
    if options.table is not None:
        _table(options)


def _write_facts(case: _Case) -> None:
    """Write what the maps are, and from which image."""
    files, done = case.files, case.done
    ct = files.files[""]
    said = (one for one in done.messages if one.case == files.case)
    facts = {
        "voxlate": __version__,
        "consumer": done.consumer,
        "notice": f"{NOTICE}; research software, not a medical device",
        "do_not_trust": why_not(files.provenance),
        "cautions": [one.text for one in said if one.grade == "caution"],
        "expected_error": {} if files.folder is None else expected_errors(files.folder),
        "ct": ct.name,
        "ct_hash": content_hash(ct),
        "scans": _scans(files),
        **case.facts,
        "units": case.units,
        "files": sorted(path.name for path in case.to.iterdir()),
    }
    write_json(case.to / FACTS, facts)
    done.facts[files.case] = facts


def _say_beyond(case: _Case, table: HuTable, hu: np.ndarray) -> None:
    """Say how many of a body's voxels [N], in HU, are beyond the rows of a table."""
    # air has the value of the first row
    below = table.hu[0] if table.hu[0] > AIR_BELOW_HU else -np.inf
    beyond = float(((hu < below) | (hu > table.hu[-1])).mean()) if hu.size else 0.0
    if beyond:
        case.say(
            f"{beyond:.2%} of the body are beyond the rows of the table ({table.hu[0]:g} to {table.hu[-1]:g} HU) and get its last value: extend it."
        )


def _table(options: ConsumerOptions) -> HuTable:
    """The user's table, or the default one."""
    column = COLUMNS[options.consumer or ""]
    return default_table(column) if options.table is None else read_table(options.table, column)


def _proton(case: _Case, options: ConsumerOptions) -> None:
    """rsp and wepl with the ends of the interval, totals of rays 5 mm apart, and the table."""
    table = _table(options)
    direction = read_beam(options.beam or "0")
    grid, body = case.ct.grid, case.body
    _say_beyond(case, table, case.ct.data[0][body])
    maps = {end: table(volume.data[0]) for end, volume in case.volumes.items()}
    for end, rsp in maps.items():
        case.map(f"rsp{ENDS[end]}", rsp, "1")
        case.map(f"wepl{ENDS[end]}", wepl_map(rsp, body, grid, direction), "mm")
    totals = ray_totals(maps, body, grid, direction)
    columns = {f"{axis}_mm": totals.entry_mm[:, number] for number, axis in enumerate("xyz")}
    columns["length_mm"] = totals.length_mm
    columns |= {f"wepl{ENDS[end]}_mm": values for end, values in totals.wepl_mm.items()}
    case.rows("rays.csv", columns)
    table.write(case.to / "table.csv")
    ratio = totals.wepl_mm[""].sum() / totals.length_mm.sum()
    mean = {end: float(values.mean()) for end, values in totals.wepl_mm.items()}
    rays = len(totals.length_mm)
    case.facts = {
        "beam_ras": [*map(float, direction)],
        "table": table.source,
        "rays": rays,
        "wepl_mm": {end or "ct": path_mm for end, path_mm in mean.items()},
        "wepl_over_length": float(ratio),
    }
    case.say(
        f"mean water-equivalent path {mean['']:.1f} mm on {rays} rays, {ratio:.3f} of the length in the body; table: {table.source}."
    )
    if len(maps) == 3:
        low, high = (100 * (mean[end] / mean[""] - 1) for end in ("low", "high"))
        case.facts["wepl_percent"] = {"low": low, "high": high}
        case.say(
            f"the interval of a path reaches from {low:+.1f} to {high:+.1f} % of it on average, as if all voxels of a ray were wrong in the same direction; plans usually allow 3.5 % for a measured CT."
        )


def _pet(case: _Case, options: ConsumerOptions) -> None:
    """mu in 1/cm with the ends of the interval, on the grid of the PET where one is given."""
    pet = None if options.like is None else read_volume(options.like)
    couch = None if options.couch is None else read_volume(options.couch)
    if couch is not None:
        most = couch.data.max()
        if most < WATER_MU / 3:
            case.say(
                f"the couch attenuates at most {most:.2g}/cm, a third of water or less: is its file in 1/mm?"
            )
        inside = resample(couch, case.ct.grid, order=0, fill=0.0).data[0][case.body]
        share = float((inside > WATER_MU / 3).mean())
        if share > IN_COUCH:
            case.say(
                f"{share:.0%} of the body are in attenuating voxels of the couch, whose attenuation is added to theirs: does its map show a patient, or lie elsewhere?"
            )
    share = 1.0
    maps = {}
    for end, ct in case.volumes.items():
        mu = with_data(ct, mu_511(ct.data[0], options.kvp), "1/cm", "mu")
        if pet is not None:
            mu, share = on_pet_grid(mu, pet.grid, str(options.like))
        maps[f"mu{ENDS[end]}"] = mu if couch is None else add_couch(mu, couch)
    for name, mu in maps.items():
        case.write(name, mu)
    statement = f"linear attenuation at 511 keV, Carney et al. 2006, {options.kvp:g} kVp{'' if couch is None else ', couch added'}"
    has_dicom = write_attenuation(
        maps, statement, case.files.folder, options.like, case.to / "dicom", case.done.messages
    )
    a, b, break_point = coefficients(options.kvp)
    case.facts = {
        "kvp": options.kvp,
        "unit": "1/cm",
        "source": "Carney et al. 2006",
        "a": a,
        "b": b,
        "break_point_hu": break_point - 1000,
        "couch": couch is not None,
        "share_of_pet_in_ct": share,
        "dicom": has_dicom,
    }
    if share < 1:
        case.say(
            f"{share:.0%} of the PET's grid lie within the CT: elsewhere mu is 0, also where the body goes on."
        )


def _ultrasound(case: _Case, options: ConsumerOptions) -> None:
    """density, sound_speed and alpha_coeff of the skull, its mask, and thickness and density ratio on rays."""
    ct = case.ct
    direction = read_beam(options.beam or "0,0,-1")
    body = case.body
    skull = skull_of(clear_outside(ct, body))
    most = float(ct.data[0][skull].max())
    case.write("ct", ct)
    case.map("skull", skull, "1")
    units = {"density": "kg/m3", "sound_speed": "m/s", "alpha_coeff": "dB/(MHz cm)"}
    columns = dict[str, np.ndarray]()
    summary = dict[str, Mapping[str, float]]()
    hu = {end: volume.data[0] for end, volume in case.volumes.items()}
    for name, of_ends in acoustic_ends(hu, skull, options.conversion, most).items():
        for end, values in of_ends.items():
            case.map(f"{name}{ENDS[end]}", values, units[name])
    for end, volume in case.volumes.items():
        alone = clear_outside(volume, body)  # a head rest at the border is no head
        # each end has a skull of its own: with the threshold on the lower HU it is thinner
        bone = bone_of(alone) if end else skull
        rays = skull_rays(alone.data[0], bone, ct.grid, direction, options.aperture, skull)
        if not end:
            met, summary["ct"] = np.isfinite(rays.thickness_mm), rays.summary
            columns = {f"{axis}_mm": rays.entry_mm[met, k] for k, axis in enumerate("xyz")}
            columns["density_ratio"] = rays.ratio[met]
        thickness = rays.thickness_mm[met]
        if end:
            thickness = end_of_thickness(end, thickness, columns["thickness_mm"])
        columns[f"thickness{ENDS[end]}_mm"] = thickness
        mean = {"thickness_mm": float(thickness.mean())} if np.isfinite(thickness).all() else {}
        summary.setdefault(end or "ct", mean)
    case.rows("rays.csv", columns)
    case.facts = {
        "beam_ras": [*map(float, direction)],
        "conversion": options.conversion,
        "source": CONVERSIONS[options.conversion].source,
        "largest_hu_of_skull": most,
        "alpha_power": 1.0,
        "aperture_mm": options.aperture,
        "skull": summary,
    }
    endless = int(np.isinf(columns.get("thickness_high_mm", np.zeros(1))).sum())
    _say_skull(case, summary, endless, options.conversion)


def _say_skull(
    case: _Case, summary: Mapping[str, Mapping[str, float]], endless: int, conversion: str
) -> None:
    """Say thickness and density ratio; summary: of the CT, and of the ends of its interval; endless: rays along bone at the high end."""
    if endless:
        case.say(
            f"{endless} rays run along bone at the high end of the interval, where their thickness has no number."
        )
    rays = summary["ct"]
    ends = [f"{of['thickness_mm']:.1f} mm" if of else "unknown" for of in summary.values()][1:]
    between = f" (interval {' to '.join(ends)})" if ends else ""
    case.say(
        f"skull {rays['thickness_mm']:.1f} ± {rays['thickness_std_mm']:.1f} mm thick along the beam{between}, on {rays['rays']} rays."
    )
    marrow = rays["rays_with_marrow"]
    ratio = f"{rays['skull_density_ratio']:.2f}" if marrow else "unknown"
    unresolved = "" if 2 * marrow > rays["rays"] else ": too few to stand for the skull"
    case.say(
        f"density ratio {ratio}, from the {marrow} of {rays['rays']} rays on which marrow is darker than both tables{unresolved}."
    )
    if CONVERSIONS[conversion].attenuation is None:
        case.say(f"no attenuation is written: {conversion} has none.")


def _planning(case: _Case, options: ConsumerOptions) -> None:
    """A transverse CT, the body and electron densities; DICOM where the source is a DICOM series."""
    own = ct = case.ct
    resampled = False
    if options.plane == "axial":
        turned = transverse(own)
        # flips alone lead from one grid to the other, or it is resampled
        resampled = not same_grid(canonical(own).grid, canonical(turned).grid)
        ct = squared(turned)
    body = case.body if ct is own else foreground(ct)
    if options.clear_outside:
        ct = clear_outside(ct, body)
    cut = cut_slices(body, within(own, ct.grid), ct.grid.spacing_mm[2])
    if cut and options.plane == "axial":  # slices of other planes end at the neck
        case.say(
            f"the scan cuts the body off in {cut} of {len(body)} slices: beyond it they show air where the patient is.",
            "cut-outline",
        )
    table = _table(options)
    _say_beyond(case, table, ct.data[0][body])
    case.write("ct", ct)
    mask = with_data(ct, body, "1", "mask")
    case.write("body", mask)
    density = "electron_density"
    case.write(density, with_data(ct, table(ct.data[0]), "1", density))
    table.write(case.to / "table.csv")
    case.facts = {
        "plane": plane_of(ct.grid) if options.plane == "source" else "axial",
        "grid": str(ct.grid),
        "resampled": resampled,
        "cut_slices": cut,
        "cleared_outside": options.clear_outside,
        "table": table.source,
    }
    like = None if options.like is None else Path(options.like)
    folder, messages = case.files.folder, case.done.messages
    source = find_source(folder, like, messages)
    if folder is not None and source is not None:
        write_plan(ct, mask, folder, source, case.to / "dicom", messages)
    case.facts["dicom"] = source is not None
    beside = "; DICOM series, body contours and Segmentation beside it" if source else ""
    case.say(f"CT on {ct.grid}{beside}.")


_CONVERT: dict[str, Callable[[_Case, ConsumerOptions], None]] = {
    "planning": _planning,
    "proton": _proton,
    "ultrasound": _ultrasound,
    "pet": _pet,
}
