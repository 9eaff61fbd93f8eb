"""Power spectra and histograms of phantoms beside those of real scans, on the same axes.

python benchmarks/realism.py OUT --phantoms KIND=COHORT[:CASES] ... --real KIND=FILE ...

A cohort is what `voxlate phantom` wrote: with ct, with maps, or with cta. MR images are drawn from the maps as
the starters' trainings draw them: the contrasts of benchmarks/starter_recipes, noise, resolution and slice thickness.
A real scan is a NIfTI file, or a pattern in quotes that names the PNG slices of one patient, whose pixels count as 1 mm.
Of all scans, only the means and quartiles over scans are written: OUT/realism.json, OUT/realism.png and a table. What one
scan gave is kept in OUT/scans, so that a call that was interrupted goes on; the same call gives the same bits.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from glob import glob
from pathlib import Path

import matplotlib.image
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from voxlate.anatomy.acquisition import draw_effects, in_plane, rician
from voxlate.anatomy.contrast import magnitude
from voxlate.anatomy.physics import PhysicsSettings
from voxlate.anatomy.tissue import FURNITURE, INTRACRANIAL, Label
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.slice_profile import margin, through_plane
from voxlate.training.recipe.reading import read

RECIPES = Path(__file__).with_name("starter_recipes")
SEED = 20
FIELDS_T = (1.5, 3.0)
RINGS = np.linspace(0, 0.5, 21)  # edges, in 1/mm; the first ring holds the mean and is left out
STATED = (0.1, 0.2, 0.3, 0.4)  # 1/mm
LEVELS_MM = (20.0, 110.0)  # below the vertex: the levels that the slices of the real heads show
MOST_SLICES = 24
LEAST_BODY = 0.1  # share of the window; slices with less are left out
STRIPPED_STEPS = 2  # pixels of 1 mm that strippers take from the surface of the brain
VESSEL_SLAB_MM = 20.0
LEAST_HU = -300.0  # of a body
CT_WINDOW_HU = (0.0, 80.0)
CTA_WINDOW_HU = (-100.0, 500.0)
MR_LEVELS = np.linspace(0.1, 1.2, 45)  # below a tenth of the peak lies the noise of the background

Measured = dict[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """What is compared: a modality, its part of the body and the axis of its histogram.

    side_mm: of the window of the spectrum; recipe, contrast: which starter's training draws it from maps, or none for
    an image of the cohort.
    """

    title: str
    side_mm: float
    levels: np.ndarray
    recipe: str = ""
    contrast: str = ""
    stripped: bool = False
    vessels: bool = False

    @property
    def is_mr(self) -> bool:
        return self.recipe != ""


def _brain(name: str) -> Kind:
    return Kind(f"{name.upper()}, brain", 160, MR_LEVELS, "brain_mr_to_mr", name, stripped=True)


KINDS = {
    # Bins of 4 HU: slices of 8 bits have 50 to 90 grey levels, which finer bins would show as a comb.
    "ct": Kind("CT, head", 200, np.linspace(2, 78, 20)),
    "mr": Kind("MR of any contrast, head", 200, MR_LEVELS, "head_mr_to_ct", "mr"),
    "head_t1": Kind("T1, head", 200, MR_LEVELS, "brain_mr_to_mr", "t1"),
    "t1": _brain("t1"),
    "t2": _brain("t2"),
    "flair": _brain("flair"),
    "tof": Kind(
        "TOF, circle of Willis", 36, MR_LEVELS, "head_tof_to_cta_experimental", "tof", vessels=True
    ),
    "cta": Kind("CTA, circle of Willis", 36, np.linspace(*CTA_WINDOW_HU, 41), vessels=True),
}


@dataclass(frozen=True)
class Slices:
    """Slices [N, H, W] in HU, or in shares of the peak of an MR; spacing_mm: along H and W."""

    values: np.ndarray
    spacing_mm: tuple[float, float]


@lru_cache(maxsize=12)
def part_of(folder: Path, name: str) -> Volume:
    """A map, image or label map of a phantom."""
    return read_volume(folder / f"{name}.nii.gz")


def of_phantom(folder: Path, kind: Kind, number: int) -> Slices:
    """The slices of one case of a cohort; `number` draws its sequence and effects."""
    tissues = part_of(folder, "seg")
    if kind.vessels:
        chosen, box = around_the_circle(tissues)
    else:
        labels = tissues.data[0]
        head = (labels > 0) & ~np.isin(labels, FURNITURE)
        chosen, box = levels_of(head, tissues), np.s_[:, :]
    if not kind.is_mr:
        name = "cta" if kind.vessels else "ct"
        values = part_of(folder, name).data[0][chosen]
        return Slices(values[:, *box], spacing_of(tissues)[1:])
    signal = drawn(folder, kind, number, tissues, chosen)
    if kind.stripped:
        labels = tissues.data[0][chosen]
        inside = np.isin(labels, INTRACRANIAL)
        cross = ndimage.generate_binary_structure(2, 1)[None]
        signal = signal * ndimage.binary_erosion(inside, cross, iterations=STRIPPED_STEPS)
    return Slices(of_peak(signal[:, *box]), spacing_of(tissues)[1:])


def drawn(folder: Path, kind: Kind, number: int, tissues: Volume, chosen: np.ndarray) -> np.ndarray:
    """The MR signal of the chosen slices, with the sequence and the scanner's effects that a training item would get."""
    settings = read(str(RECIPES / f"{kind.recipe}.toml")).data.physics
    assert isinstance(settings, PhysicsSettings)
    rng = np.random.default_rng([SEED, number, list(KINDS.values()).index(kind)])
    field_t = FIELDS_T[number % len(FIELDS_T)]
    contrast = settings.contrasts[kind.contrast]
    protocol = contrast.draw(rng, field_t)
    effects = draw_effects(rng, settings, field_t)
    distance, *pixels = spacing_of(tissues)
    reach = margin(effects.thickness_mm, distance)
    maps = {name: part_of(folder, name).data[0] for name in contrast.needs}
    depth = len(tissues.data[0])
    clean = []
    for level in chosen:
        near = np.clip(np.arange(level - reach, level + reach + 1), 0, depth - 1)
        slab = magnitude(protocol, {name: values[near] for name, values in maps.items()})
        clean.append(through_plane(slab, effects.thickness_mm, distance)[0])
    signal = in_plane(np.stack(clean), effects, (pixels[0], pixels[1]))
    return rician(signal, effects.noise * float(np.percentile(signal, 99.5)), rng)


def of_scan(files: list[Path], kind: Kind) -> Slices:
    """The slices of a real scan; PNG slices of CT are in the window from 0 to 80 HU."""
    if files[0].suffix == ".png":
        pictures = [matplotlib.image.imread(file) for file in files]
        grey = np.stack([p[..., :3].mean(-1) if p.ndim == 3 else p for p in pictures])
        low, high = CT_WINDOW_HU
        shown = of_peak(grey) if kind.is_mr else low + grey * (high - low)
        return Slices(shown[evenly(np.arange(len(shown)))], (1.0, 1.0))
    scan = canonical(read_volume(files[0]))
    values = scan.data[0]
    if kind.stripped:
        # Some stripped scans are stored in standard deviations: the background then is what was 0.
        values = values - values[0, 0, 0]
    if kind.vessels:
        chosen = evenly(np.arange(len(values)))
    else:
        least = 0.1 * np.percentile(values, 99) if kind.is_mr else LEAST_HU
        chosen = levels_of(values > least, scan)
    values = values[chosen]
    return Slices(of_peak(values) if kind.is_mr else values, spacing_of(scan)[1:])


def spacing_of(volume: Volume) -> tuple[float, float, float]:
    x, y, z = np.linalg.norm(volume.affine[:3, :3], axis=0)
    return float(z), float(y), float(x)


def levels_of(body: np.ndarray, volume: Volume) -> np.ndarray:
    """Evenly spaced slices between two distances from the uppermost slice with body."""
    there = np.flatnonzero(body.mean((1, 2)) > 0.02)
    below_mm = (there[-1] - np.arange(len(body))) * spacing_of(volume)[0]
    return evenly(np.flatnonzero((below_mm >= LEVELS_MM[0]) & (below_mm <= LEVELS_MM[1])))


def evenly(levels: np.ndarray) -> np.ndarray:
    return levels[:: -(-len(levels) // MOST_SLICES)]


def around_the_circle(tissues: Volume) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Slices and part of the plane around the level of a phantom that has the most arteries."""
    distance, *pixels = spacing_of(tissues)
    arteries = tissues.data[0] == Label.ARTERY
    level = int(ndimage.gaussian_filter1d(arteries.sum((1, 2)).astype(float), 2).argmax())
    reach = round(VESSEL_SLAB_MM / distance / 2)
    chosen = np.arange(max(level - reach, 0), min(level + reach + 1, len(arteries)))
    middle = np.argwhere(arteries[level]).mean(0)
    box = []
    for centre, size, spacing in zip(middle, arteries.shape[1:], pixels):
        count = round(KINDS["tof"].side_mm / spacing)
        first = int(np.clip(round(centre) - count // 2, 0, size - count))
        box.append(slice(first, first + count))
    return evenly(chosen), (box[0], box[1])


def of_peak(signal: np.ndarray) -> np.ndarray:
    """MR in shares of the 99.5th percentile of its body, which is brighter than a tenth of the 99th percentile."""
    body = signal > 0.1 * np.percentile(signal, 99)
    return np.asarray(signal / np.percentile(signal[body], 99.5))


def windowed(slices: Slices, side_mm: float, body: np.ndarray) -> list[np.ndarray]:
    """A square of each slice around its body, [n, n] with zeros outside the slice; slices with little body are left out."""
    squares = []
    counts = [round(side_mm / spacing) for spacing in slices.spacing_mm]
    for level, inside in zip(slices.values, body):
        padded = np.pad(level, [(count, count) for count in counts])
        centre = np.argwhere(inside).mean(0) if inside.any() else np.zeros(2)
        y, x = (round(middle) + count - count // 2 for middle, count in zip(centre, counts))
        there = np.pad(inside, [(count, count) for count in counts])
        cut = np.s_[y : y + counts[0], x : x + counts[1]]
        if there[cut].mean() >= LEAST_BODY:
            squares.append(padded[cut])
    return squares


def density(square: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Power in mm² per ring of RINGS after the first, of a slice under a Hann window; the power up to 0.5/mm is 1."""
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in square.shape))
    mean = (square * window).sum() / window.sum()
    power = np.abs(np.fft.fft2((square - mean) * window)) ** 2
    axes = [np.fft.fftfreq(n, spacing) for n, spacing in zip(square.shape, spacing_mm)]
    frequency = np.hypot(axes[0][:, None], axes[1])
    total, _ = np.histogram(frequency, RINGS, weights=power)
    count, _ = np.histogram(frequency, RINGS)
    cell = 1 / np.prod([n * spacing for n, spacing in zip(square.shape, spacing_mm)])
    return np.asarray((total / count)[1:] / (total[1:].sum() * cell))


def measured(slices: Slices, kind: Kind) -> Measured:
    """The mean spectrum of the slices, and the shares of grey levels within the body."""
    values = slices.values
    if kind.is_mr:
        body = values > MR_LEVELS[0]
    else:
        # A CT in a window shows air and fat as 0.
        values = np.clip(values, *(CTA_WINDOW_HU if kind.vessels else CT_WINDOW_HU))
        body = values > kind.levels[0]
    squares = windowed(Slices(values, slices.spacing_mm), kind.side_mm, body)
    if not squares:
        raise SystemExit(
            "expected a slice of which the body fills a tenth of the window, found none."
        )
    histogram, _ = np.histogram(values[body], kind.levels)
    return {
        "density": np.mean([density(square, slices.spacing_mm) for square in squares], axis=0),
        "histogram": histogram / histogram.sum(),
        "above": np.array([(values[body] >= kind.levels[-1]).mean()]),
    }


Curves = dict[str, list[list[float]]]


def curves(scans: list[Measured]) -> Curves:
    """The quartiles and the median over scans of each curve, and its mean, [4][points]."""
    found = {}
    for name in ("density", "histogram", "above"):
        values = np.stack([scan[name] for scan in scans])
        rows = [*np.quantile(values, (0.25, 0.5, 0.75), axis=0), values.mean(0)]
        found[name] = [[float(f"{value:.5g}") for value in row] for row in rows]
    return found


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.minimum(first, second).sum())


def compared(phantoms: list[Measured], scans: list[Measured]) -> dict[str, float | None]:
    """Ratios of the median densities at STATED, the overlap of the mean histograms, and that of each real scan with the others."""
    middle = (RINGS[1:-1] + RINGS[2:]) / 2
    medians = [np.median([scan["density"] for scan in s], axis=0) for s in (phantoms, scans)]
    at = [np.exp(np.interp(STATED, middle, np.log(median))) for median in medians]
    means = [np.mean([scan["histogram"] for scan in s], axis=0) for s in (phantoms, scans)]
    report: dict[str, float | None] = {
        f"density ratio at {frequency:g} per mm": round(float(ratio), 2)
        for frequency, ratio in zip(STATED, at[0] / at[1])
    }
    report["overlap"] = round(overlap(*means), 2)
    own = []
    for left_out, scan in enumerate(scans):
        others = [other["histogram"] for k, other in enumerate(scans) if k != left_out]
        if others:
            own.append(overlap(scan["histogram"], np.mean(others, axis=0)))
    report["overlap of real scans"] = round(float(np.mean(own)), 2) if own else None
    return report


def draw_figure(report: dict[str, dict[str, Curves]]) -> Figure:
    """Two panels for each kind, four kinds in a row: the spectra above the histograms."""
    across = min(4, len(report))
    rows = -(-len(report) // across)
    figure = Figure(figsize=(3.1 * across, 4.8 * rows), layout="constrained")
    panels = figure.subplots(2 * rows, across, squeeze=False)
    for panel in panels.flat:
        panel.set_visible(False)
    for place, (name, sources) in enumerate(report.items()):
        row, column = divmod(place, across)
        kind = KINDS[name]
        upper, lower = panels[2 * row][column], panels[2 * row + 1][column]
        ends = {"density": (upper, RINGS[1:]), "histogram": (lower, kind.levels)}
        for curve, (panel, edges) in ends.items():
            panel.set_visible(True)
            middle = (edges[1:] + edges[:-1]) / 2
            for source, colour in (("phantoms", "tab:blue"), ("real", "tab:orange")):
                if source not in sources:
                    continue
                low, median, high, _ = np.array(sources[source][curve])
                panel.plot(middle, median, color=colour, label=source)
                panel.fill_between(middle, low, high, color=colour, alpha=0.25, linewidth=0)
        upper.set(title=kind.title, xlabel="frequency (1/mm)", yscale="log")
        lower.set(xlabel="share of the peak" if kind.is_mr else "HU")
        if column == 0:
            upper.set_ylabel("power density (mm²)")
            lower.set_ylabel("share of voxels")
    panels[0][0].legend()
    return figure


def table(found: dict[str, dict[str, float | None]], counts: dict[str, dict[str, int]]) -> str:
    head = ["", "phantoms, real scans", *(f"{f:g}/mm" for f in STATED), "overlap", "real scans"]
    lines = [head, ["---"] * len(head)]
    for name, values in found.items():
        both = f"{counts[name]['phantoms']}, {counts[name]['real']}"
        cells = ["–" if value is None else f"{value:.2f}" for value in values.values()]
        lines.append([KINDS[name].title, both, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def once(path: Path, kind: Kind, slices_of: Callable[[], Slices]) -> Measured:
    """What an earlier call measured and wrote to the file, or what is measured now."""
    if not path.exists():
        values = {name: value.tolist() for name, value in measured(slices_of(), kind).items()}
        half = path.with_suffix(".half")
        half.write_text(json.dumps(values))
        half.rename(path)
    return {name: np.array(value) for name, value in json.loads(path.read_text()).items()}


def cases_of(given: str) -> list[Path]:
    """The case folders of COHORT or of COHORT:CASES, the first ones."""
    place, colon, cases = given.rpartition(":")
    cohort, most = (Path(place), int(cases)) if colon and cases.isdigit() else (Path(given), None)
    found = sorted(path for path in cohort.iterdir() if path.is_dir())[:most]
    if not found:
        raise SystemExit(f"--phantoms: expected a cohort of phantoms in {cohort}, found no case.")
    return found


def measure_real(folder: Path, name: str, number: int, pattern: str) -> Measured:
    files = sorted(Path(found) for found in glob(pattern))
    if not files:
        raise SystemExit(f"--real {name}={pattern}: expected a scan, found none. Check the path.")
    read_scan = partial(of_scan, files, KINDS[name])
    print(f"{name}: real scan {number + 1}", flush=True)
    return once(folder / f"{name}_real_{number:03d}.json", KINDS[name], read_scan)


def pairs(parser: argparse.ArgumentParser, given: list[str]) -> list[tuple[str, str]]:
    found = []
    for pair in given:
        name, _, path = pair.partition("=")
        if name not in KINDS or not path:
            parser.error(
                f"expected KIND=PATH with a kind of {', '.join(KINDS)}, found {pair}. Name the kind before the path."
            )
        found.append((name, path))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--phantoms", nargs="+", required=True, metavar="KIND=COHORT")
    parser.add_argument("--real", nargs="*", default=[], metavar="KIND=FILE")
    given = parser.parse_args()
    folder = given.out / "scans"
    folder.mkdir(parents=True, exist_ok=True)
    scans: dict[str, dict[str, list[Measured]]] = {}
    for name, path in pairs(parser, given.real):
        real = scans.setdefault(name, {"real": []})["real"]
        real.append(measure_real(folder, name, len(real), path))
    cases = [
        (case, name, number)
        for name, path in pairs(parser, given.phantoms)
        for number, case in enumerate(cases_of(path))
    ]
    # Case after case, so that its maps are read once for all contrasts.
    for done, (case, name, number) in enumerate(sorted(cases), start=1):
        read_case = partial(of_phantom, case, KINDS[name], number)
        found = once(folder / f"{name}_phantom_{number:03d}.json", KINDS[name], read_case)
        scans.setdefault(name, {}).setdefault("phantoms", []).append(found)
        print(f"phantoms: {done} of {len(cases)}", flush=True)
    write_report(given.out, {name: scans[name] for name in KINDS if name in scans})
    return 0


def write_report(out: Path, scans: dict[str, dict[str, list[Measured]]]) -> None:
    report = {
        name: {source: curves(found) for source, found in sources.items()}
        for name, sources in scans.items()
    }
    found = {
        name: compared(sources["phantoms"], sources["real"])
        for name, sources in scans.items()
        if len(sources) == 2
    }
    counts = {
        name: {source: len(s) for source, s in found.items()} for name, found in scans.items()
    }
    text = json.dumps({"scans": counts, "compared": found, "curves": report}, indent=1)
    (out / "realism.json").write_text(text + "\n")
    (out / "realism.md").write_text(table(found, counts))
    draw_figure(report).savefig(out / "realism.png", dpi=72)


if __name__ == "__main__":
    raise SystemExit(main())
