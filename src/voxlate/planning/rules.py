"""The rules that turn facts of a cohort into settings, each with a sentence that states its number."""

import math
import tomllib
from dataclasses import dataclass
from typing import Any

from voxlate.planning.facts import AIR_HU, Facts, Scan
from voxlate.planning.roles import Roles

Why = dict[str, str]  # the reason for each key of the recipe
Tables = dict[str, Any]

# Features of a patch stem are at most this wide, because small structures are lost otherwise.
FINEST_MM = 2.1
# Misalignment of scans in pixels: below EXACT they are in register, below ALMOST they may be.
EXACT = 0.2
ALMOST = 0.5
SSIM = 0.4  # weight in a loss
# Factor of the misalignment: a regression blurs smaller features anyway.
BLURRED = 2.5
LONGEST = 160  # features along a side of a patch after the stem
FEWEST = 32
MARGIN = 8  # voxels around the body
# Whole slices are used if the body's box covers at least this share of them.
WHOLE = 0.7
# From this tail of a modality on (see facts.Scan), its brightest voxels are the important ones.
VESSELS = 1.5
TORSO_MM = 300  # a wider body has organs on one side
# Passes over the slices: below FEW no augmentation helps except flips, above MANY all of it does.
FEW = 5
MANY = 30
# Standard deviation of the contrast of cases (see facts.Scan): 0.03 on one scanner, 0.1 on several.
SCANNER_CONTRAST = 0.05
# Trainings with fewer steps take twice the learning rate.
SHORT = 1500  # a regression
SHORT_DRAWS = 800  # a diffusion
RESIDUAL = 4.0  # one over the usual standard deviation of a regression's residual, in network units
BATCH = 4  # of diffusions and of synthesis
# Share of the steps with the highest rate, in which the length may still change (see pace).
HELD = 0.2
# Passes over the slices per patient; a longer training overfits to few patients.
PASSES = 5
LEAST_PASSES = 25

LARGEST_PIXEL_RATIO = 1.3  # largest over smallest pixel of cases
NEGATIVE = 0.02  # share of a map's range: lower values are more than noise
# Factor of the median case's range from which a case may have another unit; strokes reach 4.
OUTLYING = 6.0
# Tukey's fence in quartile ranges above the upper quartile: vessels end and bone begins there.
REACH = 1.5

# Parts of planned recipes, as recipes are written.
_PARTS: dict[str, Tables] = tomllib.loads("""
[light]
flip_lr = 0.5

[medium]
rotate_degrees = 7
scale = 0.08
translate = 0.03
elastic_mm = 2

[full]
rotate_degrees = 12
scale = 0.12
stretch = 0.06
shear = 0.08
translate = 0.05
elastic_mm = 5
elastic_points = 8

[medium_grey]
gamma = 0.2
contrast = 0.1
bias = 0.1
noise = 0.01

[full_grey]
gamma = 0.4
contrast = 0.15
remap = 0.8
bias = 0.1
blur_mm = 0.4
noise = 0.03

[cycle]
kind = "cycle"
critic = { widths = [32, 64, 128], norm = "instance", output = "patches" }
distance = { kind = "regression", loss = "l1" }

[cycle_training]
ema = 0
clip_norm = 0
optimiser = { kind = "adam", lr = 5e-4, betas = [0.5, 0.999], weight_decay = 0, warm_up = 0, decay = "linear", hold = 0.5 }

[diffusion]
kind = "diffusion"
prediction = "x0"
schedule = { kind = "cosine" }
weight = { kind = "table", of = "x0", log_snr = [-4, -2, -1, 0, 1, 1.61, 6], weight = [1.02, 1.14, 1.37, 2, 3.72, 6, 6] }

[sampling]
sampler = "ddim"
steps = 8
eta = 1.0
grid = "log_snr"
end = 0.0518
""")
LIGHT, FULL_GREY = _PARTS["light"], _PARTS["full_grey"]
CYCLE, CYCLE_TRAINING = _PARTS["cycle"], _PARTS["cycle_training"]
OF_RESIDUAL, OF_IMAGE = (
    {**_PARTS["diffusion"], "times": {"kind": "uniform_log_snr", "low": low, "high": 5.5}}
    for low in (-3.5, -6)
)
SAMPLING = _PARTS["sampling"]
# Sampling starts at log-SNR -3, because the regression is close to the truth.
FROM_REGRESSION: Tables = {**SAMPLING, "start": 0.8605}
# Augmentation by the number of passes over the slices.
STRENGTHS: list[tuple[float, tuple[str, Tables, Tables]]] = [
    (FEW, ("no other augmentation", {}, {})),
    (MANY, ("moderate changes", _PARTS["medium"], _PARTS["medium_grey"])),
    (math.inf, ("all changes", _PARTS["full"], FULL_GREY)),
]


@dataclass(frozen=True)
class Size:
    """The size of a step: channels at full resolution, side of the stem in pixels, items per step."""

    width: int
    stem: int
    batch: int

    def __str__(self) -> str:
        stem = f"{self.stem} x {self.stem} stem, " if self.stem > 1 else ""
        return f"width {self.width}, {stem}batch {self.batch}"


def intensity(scan: Scan, is_target: bool) -> tuple[Tables, str]:
    """The intensity map of a modality, and its reason; is_target: whether the modality is synthesised."""
    if scan.unit == "grey" or (scan.pictures and scan.unit == "HU"):
        named = f", not the {scan.unit} that its name suggests" if scan.unit == "HU" else ""
        return _window(
            0, 255
        ), f"values are in {scan.least:g} to {scan.most:g}: pictures of 8 bits{named}"
    if scan.unit == "HU":
        return _whole_body(scan) if is_target else _soft_tissue(scan)
    if scan.unit != "a.u.":
        return _map_window(scan)
    return _percentiles(scan)


def _soft_tissue(scan: Scan) -> tuple[Tables, str]:
    """The window of a source in HU, which need not contain bone."""
    quarter = scan.inside.at(25)
    third = scan.inside.at(75)
    fence = third + REACH * (third - quarter)
    least = _outward(scan.inside.at(5), 10, down=True)
    most = _outward(min(fence, scan.inside.at(99.9)), 10)
    why = f"HU of a source: soft tissue and vessels, from the 5th percentile to {REACH:g} quartile ranges over the 75th, {least:g} to {most:g}; bone beyond is clipped"
    return {**_window(least, most), "clips": 1.0}, why + _no_air(scan)


def _whole_body(scan: Scan) -> tuple[Tables, str]:
    """The window of a target in HU."""
    low = scan.inside.at(0.1)
    high = scan.inside.at(99.9)
    why = f"HU; bodies span {low:.0f} to {high:.0f} (0.1st to 99.9th percentile)"
    return _window(_outward(low, 50, down=True), _outward(high, 50)), why + _no_air(scan)


def _map_window(scan: Scan) -> tuple[Tables, str]:
    """The window of a map with a physical unit, such as perfusion."""
    step = 10.0 ** math.floor(math.log10(max(scan.reach, -scan.depth, 1e-6)))
    most = max(_outward(scan.reach, step / 2), 0.0)
    least = 0.0
    if scan.depth < -NEGATIVE * most:
        least = _outward(scan.depth, step / 2, down=True)
    usual = scan.inside.at(99.9)
    why = f"{scan.unit}, the same in every scan; the largest 99.9th percentile of a case is {scan.reach:.3g} (of the median case {usual:.3g})"
    if least:
        why += f"; the lowest 0.1st percentile is {scan.depth:.3g}"
    if scan.reach > OUTLYING * usual:
        why += f"; IS {scan.farthest} IN ANOTHER UNIT? It alone sets the range"
    return _window(least, most), why


def _percentiles(scan: Scan) -> tuple[Tables, str]:
    """The percentiles of each scan in arbitrary units."""
    low = scan.inside.at(0.5)
    high = scan.inside.at(99.5)
    bright = 99.9 if scan.tail > VESSELS else 99.5
    table: Tables = {"kind": "percentile", "low": 0.5, "high": bright}
    own = f"each scan's own {bright}th percentile ({scan.inside.at(bright):.4g} in the median)"
    why = f"the unit is unknown, so images are correct up to a factor: {own}"
    if bright > 99.5:
        why += f", because the brightest 0.05 % reach {scan.tail:.1f} times the 99.5th"
    has_air = scan.least >= 0 or scan.empty
    if has_air and low >= -0.05 * (high - low):
        return {**table, "low": 0, "floor": 0}, why + "; air is 0"
    return (
        table,
        why + f"; values begin at {low:.3g}, no air of 0, so the floor is the 0.5th percentile",
    )


def _no_air(scan: Scan) -> str:
    """A warning if no voxel of any case is as dark as air."""
    if scan.least < AIR_HU[1]:
        return ""
    return f"; NO VOXEL IS BELOW {scan.least:g}: air is -1000, was an offset forgotten?"


def _window(low: float, high: float) -> Tables:
    return {"kind": "window", "low": low, "high": high}


def _outward(value: float, step: float, down: bool = False) -> float:
    """A value rounded to a multiple of step, away from the middle."""
    rounded = math.floor(value / step) if down else math.ceil(value / step)
    return float(f"{rounded * step:.6g}")


def stems(facts: Facts) -> list[int]:
    """Patch stems from the one that fits pixels of this size to the coarsest with enough features per side."""
    most_mm = max(FINEST_MM, BLURRED * facts.apart_mm)
    finest = max((stem for stem in (1, 2, 4) if stem * facts.pixel_mm <= most_mm), default=1)
    side = min(patch(facts, finest)[0][1:])
    return [
        stem for stem in (1, 2, 4) if stem == finest or (stem > finest and side >= FEWEST * stem)
    ]


def most_items(facts: Facts, samples: bool = False) -> int:
    """Largest useful number of items, beyond which a training overfits; samples take twice as many due to noise."""
    passes = max(PASSES * facts.patients, LEAST_PASSES)
    return passes * (2 if samples else 1) * facts.slices


def patch(facts: Facts, stem: int) -> tuple[list[int], bool, str]:
    """Size of a patch, whether it is smaller than slices, and the reason."""
    _, height, width = facts.shape
    _, tall, wide = facts.box
    sizes = [min(side + MARGIN, full) for side, full in ((tall, height), (wide, width))]
    if sizes[0] * sizes[1] >= WHOLE * height * width:
        sizes = [height, width]
    sizes = [min(side, LONGEST * stem) for side in sizes]
    if sizes != [height, width]:
        sizes = [
            min(8 * math.ceil(side / 8), 8 * (full // 8) or full)
            for side, full in zip(sizes, (height, width))
        ]
    part = sizes[0] < height or sizes[1] < width
    shape = f"{sizes[0]} x {sizes[1]} pixels of {facts.pixel_mm:.2g} mm"
    why = f"whole slices, {shape}"
    if part:
        why = f"{shape} hold the body ({tall} x {wide}); slices have {height} x {width}"
    if facts.pixel_ratio > LARGEST_PIXEL_RATIO:
        why += f"; PIXELS OF ONE CASE ARE {facts.pixel_ratio:.1f} TIMES THOSE OF ANOTHER: prepare with --spacing"
    return [1, *sizes], part, why


def data(facts: Facts, roles: Roles, stem: int, passes: float) -> tuple[Tables, Why]:
    """The table `data` of a recipe; passes: number of passes over the slices in the training."""
    size, part, why = patch(facts, stem)
    table: Tables = {
        "source": list(roles.source),
        "target": list(roles.target),
        "patch": size,
    }
    if roles.pairing == "unpaired":
        table["apart"] = True
    reasons = {"data.source": roles.why, "data.patch": why}
    depth = facts.shape[0]
    if depth > 1:
        table["foreground"] = 0.03 if facts.brain else 0.05
        reasons["data.foreground"] = (
            f"slices with less than {table['foreground']:.0%} of body contribute little"
        )
        stack, reasons["data.stack"] = _stack(facts, roles)
        if stack:
            table["stack"] = stack
    elif part:
        table["foreground"] = 0.05
    table["augment"], reasons["data.augment"] = augment(facts, roles, passes)
    if facts.gaps and roles.pairing == "complete":
        table["allow_missing"] = True
        lack = len(facts.training) - len(facts.with_all(list(facts.scans)))
        which = ", ".join(f"{name} in {count}" for name, count in facts.gaps.items())
        reasons["data.allow_missing"] = (
            f"{lack} of {len(facts.training)} training cases lack some ({which})"
        )
    return table, reasons


def _stack(facts: Facts, roles: Roles) -> tuple[int, str]:
    away = f"slices are {facts.spacing_mm[0]:.2g} mm apart, {facts.thickness:.1f} times the pixel"
    if roles.pairing != "pairs":
        method = "a completion" if roles.pairing == "complete" else "CycleGAN"
        return 0, f"{away}; {method} takes single slices"
    return 1, f"{away}: slice-wise, with 1 neighbour on each side"


def augment(facts: Facts, roles: Roles, passes: float) -> tuple[Tables, str]:
    """Augmentation in training, by the number of passes over the slices and by the anatomy."""
    wide_mm = facts.wide_mm
    flips = LIGHT if wide_mm < TORSO_MM else {}
    sides = f"no flips: {wide_mm:.0f} mm wide, with organs on one side"
    if flips:
        sides = f"flips: {wide_mm:.0f} mm wide, a head"
    sources = [facts.scans[name] for name in roles.source]
    grey = all(scan.unit in ("a.u.", "grey") or scan.pictures for scan in sources)
    how, spatial, intensities = next(strength for most, strength in STRENGTHS if passes < most)
    times = f"about {passes:.0f} time{'' if round(passes) == 1 else 's'}"
    patients = f"{facts.patients} patient{'' if facts.patients == 1 else 's'}"
    why = f"{sides}; {how}, because training uses each slice of {patients} {times}"
    if not grey:
        if spatial:
            why += "; intensities stay, because they have a unit"
        return {**flips, **spatial}, why
    varied = max(sources, key=lambda scan: scan.contrast)
    if varied.contrast >= SCANNER_CONTRAST:
        intensities = FULL_GREY
        why += f"; all changes of intensities, because cases differ in {varied.name} by {varied.contrast:.0%} of its range, as between scanners"
    return {**flips, **spatial, **intensities}, why


def net(facts: Facts, size: Size, sides: list[int]) -> tuple[Tables, str]:
    """The network, whose levels leave at least 8 features per side."""
    features = min(sides) / size.stem
    levels = min(max(int(math.log2(max(features / 8, 1))) + 1, 2), 4)
    table: Tables = {
        "kind": "unet",
        "width": size.width,
        "multipliers": [1, 2, 4, 4][:levels],
        "blocks": 1,
    }
    table |= {"patch": size.stem} if size.stem > 1 else {}
    table |= {"head_width": 16} if size.width * table["multipliers"][-1] % 32 else {}
    if features / 2 ** (levels - 1) > 16:
        # The cost of attention grows with the square of the number of features.
        table["middle_attention"] = False
    wide_mm = size.stem * facts.pixel_mm
    stem = f"pixels of {facts.pixel_mm:.2g} mm: a stem of {size.stem} makes features of {wide_mm:.2g} mm"
    if facts.apart_mm * BLURRED > FINEST_MM:
        stem += f", and scans are misaligned by {facts.apart_mm:.1f} mm"
    return (
        table,
        f"{levels} levels leave {features / 2 ** (levels - 1):.0f} features a side; {stem}",
    )


def training(steps: int, width: int, batch: int, draws: bool = False) -> tuple[Tables, Why]:
    """The table `train` of a stage with this number of steps; draws: the stage is a diffusion."""
    ema = round(min(max(1 - 10 / max(steps, 1), 0.9), 0.9995), 4)
    rate = 2e-3 if steps < (SHORT_DRAWS if draws else SHORT) else 1e-3 if width < 96 else 5e-4
    table: Tables = {
        "steps": steps,
        "batch": batch,
        "ema": ema,
        "save_every": max(min(steps // 4, 500), 1),
        "validate_every": steps // 4 if steps >= 4000 else 0,
        "optimiser": {
            "kind": "adamw" if draws else "muon",
            "lr": rate,
            "betas": [0.9, 0.99],
            "warm_up": min(100, max(steps // 10, 1)),
            "hold": HELD,
        },
    }
    return table, {
        "train.ema": f"an average over the last {1 / (1 - ema):.0f} of {steps:,} steps",
        "train.optimiser.kind": "muon for regressions, adamw for diffusions: measured in docs/reference/measured.md",
        "train.optimiser.lr": f"{rate:g} for {steps:,} steps at width {width}, held over {HELD:.0%}, then falling to 0",
    }


def cycle_net(size: Size) -> Tables:
    """CycleGAN's generator with the width of the plan."""
    return {"kind": "resnet", "width": size.width, "blocks": 6}


def regression(facts: Facts) -> tuple[Tables, str]:
    """The loss of a regression, and its reason: SSIM tolerates small shifts, but costs error without any."""
    table: Tables = {"kind": "regression", "loss": "l1", "leak": 0.1}
    if not facts.apart_mm:
        return table | {
            "ssim": SSIM / 4
        }, "L1 and a little SSIM, because the misalignment of scans is unknown"
    pixels = facts.apart_mm / facts.pixel_mm
    apart = f"scans are misaligned by {facts.apart_mm:.1f} mm, {pixels:.1f} times the pixel"
    if pixels < EXACT:
        return table, f"L1 alone, because {apart}"
    if pixels < ALMOST:
        why = f"L1 and a little SSIM, because {apart}, which can be an error of the estimate"
        return table | {"ssim": SSIM / 4}, why
    return table | {"ssim": SSIM}, f"L1 and SSIM, because {apart}"


def peaks(intensity: Tables, roles: Roles) -> tuple[Tables, Why]:
    """Correct the bright end of synthesised images whose scale is each scan's own percentile."""
    own = [name for name in roles.target if intensity[name]["kind"] == "percentile"]
    if not own:
        return {}, {}
    high = f"{' and '.join(own)}: the {intensity[own[0]]['high']}th percentile"
    why = f"{high} is moved near to its value in training scans"
    return {"peaks": True}, {"synth.peaks": why}
