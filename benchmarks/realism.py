"""Power spectra and histograms of phantoms beside those of real scans, on the same axes.

python benchmarks/realism.py OUT [--cases 4] [--anatomy 2] [--real ct=FILE ... t1=FILE ...]

Writes OUT/realism.json and OUT/realism.png. Kinds: ct (HU, or 8-bit slices of the window from 0 to 80 HU), t1, t2 and
flair (stripped brains), mr (whole heads, any contrast). Files: NIfTI, or PNG slices. Only medians and quartiles over
scans are written. Frequencies are in cycles per pixel: phantoms have 1 mm, as the scans that they are compared with
should have.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
from matplotlib.figure import Figure

from voxlate.data.acquisition import draw_effects, in_plane, rician
from voxlate.data.physics import Contrast, PhysicsSettings
from voxlate.images.io import read_volume
from voxlate.phantoms.contrast import magnitude, needed_maps
from voxlate.phantoms.head import Head, make_head
from voxlate.phantoms.maps import tissue_map
from voxlate.phantoms.scanner import image
from voxlate.phantoms.tissue import INTRACRANIAL

SIZE = (200, 240, 28)  # 1 mm in the plane
SEED = 20
LEAST_BODY = 0.1  # share of a slice; slices with less are left out
FREQUENCIES = np.linspace(0, 0.5, 26)
WINDOW_HU = (0.0, 80.0)
# Edges lie between whole HU, so that each bin holds two of them.
LEVELS = np.linspace(0, 1, 41) - 0.5 / 80
LEAST_GREY = {"ct": 0.02}  # the lower end of the window; in MR all below is noise of the background
LEAST_MR = 0.1
FIELD_T = 1.5
CONTRASTS = {
    "t1": Contrast(sequence="mprage"),
    "t2": Contrast(sequence="spin_echo", tr_ms=(3000, 6000), te_ms=(80, 120)),
    "flair": Contrast(sequence="flair"),
    "mr": Contrast(sequence="any"),
}
KINDS = ("ct", *CONTRASTS)
Measured = dict[str, np.ndarray]


def phantom(head: Head, kind: str, case: int) -> np.ndarray:
    """A phantom's image [D, H, W] in shares of the CT window, or of the 99.5th percentile of its body."""
    if kind == "ct":
        return windowed(image(head, "ncct"))
    rng = np.random.default_rng([SEED, case, KINDS.index(kind)])
    protocol = CONTRASTS[kind].draw(rng, FIELD_T)
    names = needed_maps(protocol.kind, protocol.dose > 0, protocol.fat_removed > 0)
    signal = magnitude(protocol, {name: tissue_map(head, name) for name in names})
    effects = draw_effects(rng, PhysicsSettings(contrasts=CONTRASTS), FIELD_T)
    signal = in_plane(signal, effects, head.spacing_mm[1:])
    signal = rician(signal, effects.noise * float(np.percentile(signal, 99.5)), rng)
    if kind != "mr":
        signal = np.where(np.isin(head.labels, INTRACRANIAL), signal, 0)
    return scaled(signal)


def windowed(hounsfield: np.ndarray) -> np.ndarray:
    low, high = WINDOW_HU
    return np.clip((hounsfield - low) / (high - low), 0, 1)


def scaled(signal: np.ndarray) -> np.ndarray:
    """MR in shares of the 99.5th percentile of its body, which is brighter than a tenth of the 99th percentile."""
    body = signal > 0.1 * np.percentile(signal, 99)
    return np.clip(signal / np.percentile(signal[body], 99.5), 0, 1)


def real(path: Path, kind: str) -> np.ndarray:
    """A scan as `phantom` gives it; a PNG is one slice, a CT of 8 bits is in its window already."""
    if path.suffix == ".png":
        values = matplotlib.image.imread(path)
        grey = values[..., :3].mean(-1) if values.ndim == 3 else values
        return grey[None] if kind == "ct" else scaled(grey[None])
    values = read_volume(path).data[0]
    return windowed(values) if kind == "ct" else scaled(values)


def slices_of(volume: np.ndarray) -> Iterator[np.ndarray]:
    """The slices with enough body."""
    for level in volume:
        if (level > 0.1).mean() >= LEAST_BODY:
            yield level


def spectrum(level: np.ndarray) -> np.ndarray:
    """Mean power per frequency ring of a slice of variance 1, in decibels."""
    side = max(level.shape)
    padded = np.zeros((side, side))
    padded[: level.shape[0], : level.shape[1]] = level
    power = np.abs(np.fft.fft2((padded - padded.mean()) / padded.std())) ** 2 / side**2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    total, _ = np.histogram(frequency, FREQUENCIES, weights=power)
    count, _ = np.histogram(frequency, FREQUENCIES)
    return np.asarray(10 * np.log10(np.maximum(total / count, 1e-6)))


def measured(volume: np.ndarray, kind: str) -> Measured:
    """The mean spectrum of the slices, and the shares of grey levels within the body, ends left out."""
    chosen = list(slices_of(volume))
    if not chosen:
        raise SystemExit("expected a slice of which the body fills a tenth, found none.")
    inside = volume[(volume > LEAST_GREY.get(kind, LEAST_MR)) & (volume < 0.98)]
    histogram, _ = np.histogram(inside, LEVELS)
    return {
        "spectrum_db": np.mean([spectrum(level) for level in chosen], axis=0),
        "histogram": histogram / max(histogram.sum(), 1),
    }


def quartiles(scans: list[Measured]) -> dict[str, list[list[float]]]:
    """The quartiles and the median over scans of each curve, [3][points]."""
    names = ("spectrum_db", "histogram")
    return {
        name: np.quantile([scan[name] for scan in scans], (0.25, 0.5, 0.75), axis=0)
        .round(4)
        .tolist()
        for name in names
    }


def draw_figure(report: dict[str, dict[str, dict[str, list[list[float]]]]]) -> Figure:
    figure = Figure(figsize=(3 * len(report), 5.4), layout="constrained")
    panels = figure.subplots(2, len(report), squeeze=False)
    axes_of = {"spectrum_db": FREQUENCIES, "histogram": LEVELS}
    units = ("cycles per pixel", "share of the window or percentile")
    for column, (kind, sources) in enumerate(report.items()):
        for row, (name, ends) in enumerate(axes_of.items()):
            panel = panels[row][column]
            middle = (ends[1:] + ends[:-1]) / 2
            for source, colour in zip(sources, ("tab:blue", "tab:orange")):
                low, median, high = sources[source][name]
                panel.plot(middle, median, color=colour, label=source)
                panel.fill_between(middle, low, high, color=colour, alpha=0.25, linewidth=0)
            panel.set_xlabel(units[row])
            panel.set_title(f"{kind}: {'power in dB' if row == 0 else 'share of voxels'}")
    panels[0][0].legend()
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--anatomy", type=int, default=2, choices=(1, 2))
    parser.add_argument("--real", nargs="*", default=[], metavar="KIND=FILE")
    given = parser.parse_args()
    scans: dict[str, dict[str, list[Measured]]] = {}
    for case in range(given.cases):
        head = make_head(SEED, case, SIZE, version=given.anatomy)
        for kind in KINDS:
            sources = scans.setdefault(kind, {"phantoms": [], "real": []})
            sources["phantoms"].append(measured(phantom(head, kind, case), kind))
    for pair in given.real:
        kind, _, path = pair.partition("=")
        if kind not in KINDS or not path:
            parser.error(
                f"--real: expected KIND=FILE with a kind of {', '.join(KINDS)}, found {pair}. Name the kind before the file."
            )
        scans[kind]["real"].append(measured(real(Path(path), kind), kind))
    report = {
        kind: {source: quartiles(found) for source, found in sources.items() if found}
        for kind, sources in scans.items()
    }
    counts = {kind: {name: len(found) for name, found in s.items()} for kind, s in scans.items()}
    given.out.mkdir(parents=True, exist_ok=True)
    axes = {"frequencies": FREQUENCIES.round(3).tolist(), "levels": LEVELS.round(4).tolist()}
    text = json.dumps({"scans": counts, **axes, "curves": report}, indent=1)
    (given.out / "realism.json").write_text(text + "\n")
    draw_figure(report).savefig(given.out / "realism.png", dpi=110)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
