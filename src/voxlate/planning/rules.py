"""The rules: from facts of a cohort to settings, each with a sentence that holds its number."""

import math
from dataclasses import dataclass
from typing import Any

from voxlate.planning.facts import AIR_HU, Facts, Scan
from voxlate.planning.roles import Roles

Why = dict[str, str]  # a key of the recipe, and why it is what it is
Tables = dict[str, Any]

FINEST_MM = 2.1  # features of a patch stem are at most so wide, else small structures are lost
EXACT, ALMOST = 0.2, 0.5  # times the pixel: scans that lie nearer to each other fit exactly, or may do so
SSIM = 0.4  # weight in a loss
BLURRED = 2.5  # times the distance of a case's scans: a regression blurs what is finer anyhow
LONGEST, FEWEST = 160, 32  # features along a side of a patch, after the stem
MARGIN = 8  # voxels around the body
WHOLE = 0.7  # share of a slice that the body's box covers, from which whole slices are taken
VESSELS = 1.5  # tail of a modality (see facts.Scan), from which its brightest voxels are what matters
TORSO_MM = 300  # a body that is wider has organs on one side
FEW, MANY = 5, 30  # times that each slice is seen: below, changes of it at random teach nothing; above, all of them do
UNLIKE = 0.05  # standard deviation of the contrast of cases (see facts.Scan): one scanner's have 0.03, several 0.1
SHORT, SHORT_DRAWS = 1500, 800  # steps of a regression and of a diffusion, below which the rate is twice as high
RESIDUAL = 4.0  # one over the usual spread of what a regression leaves, in network units
BATCH = 4  # of diffusions, and of synthesis
HELD = 0.2  # share of the steps with the highest rate: the length may still change there (see pace)
PASSES, LEAST_PASSES = 5, 25  # times that each slice is seen, a patient; more learns few patients by heart

UNLIKE_PIXELS = 1.3  # times as large as another case's
NEGATIVE = 0.02  # of the range of a map: values below 0 that are more than noise
OUTLYING = 6.0  # times the median case's range, from which a case is suspected of another unit (strokes reach 4)
REACH = 1.5  # quartile ranges above the upper quartile, Tukey's fence: where vessels end and bone begins

LIGHT: Tables = {"flip_lr": 0.5}
MEDIUM: Tables = {"rotate_degrees": 7, "scale": 0.08, "translate": 0.03, "elastic_mm": 2}
FULL: Tables = {"rotate_degrees": 12, "scale": 0.12, "stretch": 0.06, "shear": 0.08, "translate": 0.05}
FULL |= {"elastic_mm": 5, "elastic_points": 8}
MEDIUM_GREY: Tables = {"gamma": 0.2, "contrast": 0.1, "bias": 0.1, "noise": 0.01}
FULL_GREY: Tables = {"gamma": 0.4, "contrast": 0.15, "remap": 0.8, "bias": 0.1, "blur_mm": 0.4, "noise": 0.03}
STRENGTHS: list[tuple[float, tuple[str, Tables, Tables]]] = [  # below so many times that each slice is seen
    (FEW, ("no other change", {}, {})),
    (MANY, ("moderate changes", MEDIUM, MEDIUM_GREY)),
    (math.inf, ("all changes", FULL, FULL_GREY)),
]


@dataclass(frozen=True)
class Size:
    """How large a step is: channels at full resolution, pixels a side that the stem takes as one, items a step."""

    width: int
    stem: int
    batch: int

    def __str__(self) -> str:
        stem = f"{self.stem} x {self.stem} stem, " if self.stem > 1 else ""
        return f"width {self.width}, {stem}batch {self.batch}"


def intensity(scan: Scan, made: bool) -> tuple[Tables, str]:
    """The intensity map of a modality that is made, or only given, and why."""
    low, high = scan.inside.at(0.5), scan.inside.at(99.5)
    if scan.unit == "grey" or (scan.pictures and scan.unit == "HU"):
        named = f", not the {scan.unit} that its name promises" if scan.unit == "HU" else ""
        return _window(0, 255), f"values lie in {scan.least:g} to {scan.most:g}: pictures of 8 bits{named}"
    if scan.unit == "HU" and not made:
        quarter, third = scan.inside.at(25), scan.inside.at(75)
        least = _outward(scan.inside.at(5), 10, down=True)
        most = _outward(min(third + REACH * (third - quarter), scan.inside.at(99.9)), 10)
        return {**_window(least, most), "clips": 1.0}, (
            f"HU that is only given: soft tissue, vessels, from the 5th percentile to {REACH:g} quartile ranges over "
            f"the 75th, {least:g} to {most:g}; bone beyond is clipped{_no_air(scan)}"
        )
    if scan.unit == "HU":
        least, most = _outward(scan.inside.at(0.1), 50, down=True), _outward(scan.inside.at(99.9), 50)
        return _window(least, most), (
            f"HU; bodies span {scan.inside.at(0.1):.0f} to {scan.inside.at(99.9):.0f} (0.1st to 99.9th percentile)"
            f"{_no_air(scan)}"
        )
    if scan.unit != "a.u.":
        step = 10.0 ** math.floor(math.log10(max(scan.reach, -scan.depth, 1e-6)))
        most = max(_outward(scan.reach, step / 2), 0.0)
        least = _outward(scan.depth, step / 2, down=True) if scan.depth < -NEGATIVE * most else 0.0
        below = f"; the lowest 0.1st percentile is {scan.depth:.3g}" if least else ""
        alone = scan.reach > OUTLYING * scan.inside.at(99.9)
        return _window(least, most), (
            f"{scan.unit}, the same in every scan; the largest 99.9th percentile of a case is {scan.reach:.3g} (of the "
            f"median case {scan.inside.at(99.9):.3g}){below}"
            + (f"; IS {scan.farthest} IN ANOTHER UNIT? It alone sets the range" if alone else "")
        )
    bright = 99.9 if scan.tail > VESSELS else 99.5
    table: Tables = {"kind": "percentile", "low": 0.5, "high": bright}
    own = f"each scan's own {bright}th percentile ({scan.inside.at(bright):.4g} in the median)"
    why = f"no unit that is known, so images are right up to a factor: {own}"
    if bright > 99.5:
        why += f", for the brightest 0.05 % reach {scan.tail:.1f} times the 99.5th"
    if low >= -0.05 * (high - low) and (scan.least >= 0 or scan.empty):
        return {**table, "low": 0, "floor": 0}, why + "; air is 0"
    return table, why + f"; values begin at {low:.3g}, no air of 0, so the floor is the 0.5th percentile"


def _no_air(scan: Scan) -> str:
    """A warning where nothing is as dark as air, in any case."""
    return (
        "" if scan.least < AIR_HU[1] else f"; NO VOXEL IS BELOW {scan.least:g}: air is -1000, was an offset forgotten?"
    )


def _window(low: float, high: float) -> Tables:
    return {"kind": "window", "low": low, "high": high}


def _outward(value: float, step: float, down: bool = False) -> float:
    """A value rounded to a multiple of step, away from the middle."""
    number = (math.floor if down else math.ceil)(value / step) * step
    return float(f"{number:.6g}")


def stems(facts: Facts) -> list[int]:
    """Patch stems from the one that pixels of this size want to the coarsest that leaves enough features a side."""
    most_mm = max(FINEST_MM, BLURRED * facts.apart_mm)
    finest = max((stem for stem in (1, 2, 4) if stem * facts.pixel_mm <= most_mm), default=1)
    side = min(patch(facts, finest)[0][1:])
    return [stem for stem in (1, 2, 4) if stem == finest or (stem > finest and side >= FEWEST * stem)]


def most_items(facts: Facts, samples: bool = False) -> int:
    """Items beyond which a cohort's few patients are learned by heart; noise lets samples take twice as many."""
    return max(PASSES * facts.patients, LEAST_PASSES) * (2 if samples else 1) * facts.slices


def patch(facts: Facts, stem: int) -> tuple[list[int], bool, str]:
    """Size of a patch, whether it is smaller than slices, and why."""
    (_, height, width), (_, tall, wide) = facts.shape, facts.box
    sizes = [min(side + MARGIN, full) for side, full in ((tall, height), (wide, width))]
    if sizes[0] * sizes[1] >= WHOLE * height * width:
        sizes = [height, width]
    sizes = [min(side, LONGEST * stem) for side in sizes]
    if sizes != [height, width]:
        sizes = [min(8 * math.ceil(side / 8), 8 * (full // 8) or full) for side, full in zip(sizes, (height, width))]
    part = sizes[0] < height or sizes[1] < width
    shape = f"{sizes[0]} x {sizes[1]} pixels of {facts.pixel_mm:.2g} mm"
    differ = f"; PIXELS OF ONE CASE ARE {facts.unlike:.1f} TIMES THOSE OF ANOTHER: prepare with --spacing"
    why = (
        f"{shape} hold the body ({tall} x {wide}); slices have {height} x {width}" if part else f"whole slices, {shape}"
    )
    return [1, *sizes], part, why + (differ if facts.unlike > UNLIKE_PIXELS else "")


def data(facts: Facts, roles: Roles, stem: int, passes: float) -> tuple[Tables, Why]:
    """The table of what is read; passes: times that each slice is seen in the training."""
    size, part, why = patch(facts, stem)
    table: Tables = {"source": list(roles.source), "target": list(roles.target), "patch": size}
    table |= {"apart": True} if roles.way == "unpaired" else {}
    reasons = {"data.source": roles.why, "data.patch": why}
    depth = facts.shape[0]
    if depth > 1:
        table["foreground"] = 0.03 if facts.brain else 0.05
        reasons["data.foreground"] = f"slices with less than {table['foreground']:.0%} of body teach little"
        stack, reasons["data.stack"] = _stack(facts, roles)
        table |= {"stack": stack} if stack else {}
    elif part:
        table["foreground"] = 0.05
    table["augment"], reasons["data.augment"] = augment(facts, roles, passes)
    if facts.gaps and roles.way == "complete":
        table["allow_missing"] = True
        lack = len(facts.training) - len(facts.with_all(list(facts.scans)))
        which = ", ".join(f"{name} in {count}" for name, count in facts.gaps.items())
        reasons["data.allow_missing"] = f"{lack} of {len(facts.training)} training cases lack some ({which})"
    return table, reasons


def _stack(facts: Facts, roles: Roles) -> tuple[int, str]:
    away = f"slices are {facts.spacing_mm[0]:.2g} mm apart, {facts.thickness:.1f} times the pixel"
    if roles.way != "pairs":
        return 0, f"{away}; {'a completion' if roles.way == 'complete' else 'CycleGAN'} takes slices alone"
    return 1, f"{away}: slice-wise, with 1 neighbour on each side"


def augment(facts: Facts, roles: Roles, passes: float) -> tuple[Tables, str]:
    """Random changes in training, by how often each slice is seen and by what the anatomy allows."""
    wide_mm = facts.wide_mm
    flips = LIGHT if wide_mm < TORSO_MM else {}
    sides = (
        f"flips: {wide_mm:.0f} mm wide, a head"
        if flips
        else f"no flips: {wide_mm:.0f} mm wide, with organs on one side"
    )
    grey = all(facts.scans[name].unit in ("a.u.", "grey") or facts.scans[name].pictures for name in roles.source)
    seen = f"each slice is seen about {passes:.0f} times, of {facts.patients} patients"
    how, spatial, intensities = next(strength for most, strength in STRENGTHS if passes < most)
    why = f"{sides}; {how}, for {seen}"
    if not grey:
        return {**flips, **spatial}, why + ("; intensities stay, for they have a unit" if spatial else "")
    unlike = max(roles.source, key=lambda name: facts.scans[name].contrast)
    if (contrast := facts.scans[unlike].contrast) >= UNLIKE:
        intensities = FULL_GREY
        why += (
            f"; all changes of intensities, for cases differ in {unlike} by {contrast:.0%} of its range, as scanners do"
        )
    return {**flips, **spatial, **intensities}, why


def net(facts: Facts, size: Size, sides: list[int]) -> tuple[Tables, str]:
    """The network: as many levels as leave 8 features a side."""
    features = min(sides) / size.stem
    levels = min(max(int(math.log2(max(features / 8, 1))) + 1, 2), 4)
    table: Tables = {"kind": "unet", "width": size.width, "multipliers": [1, 2, 4, 4][:levels], "blocks": 1}
    table |= {"patch": size.stem} if size.stem > 1 else {}
    table |= {"head_width": 16} if size.width * table["multipliers"][-1] % 32 else {}
    if features / 2 ** (levels - 1) > 16:
        table["middle_attention"] = False  # its cost grows with the square of the features there
    wide_mm = size.stem * facts.pixel_mm
    stem = f"pixels of {facts.pixel_mm:.2g} mm: a stem of {size.stem} makes features of {wide_mm:.2g} mm"
    if facts.apart_mm * BLURRED > FINEST_MM:
        stem += f", and scans lie {facts.apart_mm:.1f} mm from each other"
    return table, f"{levels} levels leave {features / 2 ** (levels - 1):.0f} features a side; {stem}"


def training(steps: int, width: int, batch: int, draws: bool = False) -> tuple[Tables, Why]:
    """How a stage of so many steps is trained; draws: a diffusion."""
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
        "train.optimiser.kind": "muon for regressions, adamw for diffusions: measured in docs/ingredients.md",
        "train.optimiser.lr": f"{rate:g} for {steps:,} steps at width {width}, held over {HELD:.0%}, then falling to 0",
    }


CYCLE: Tables = {
    "kind": "cycle",
    "critic": {"widths": [32, 64, 128], "norm": "instance", "output": "patches"},
    "distance": {"kind": "regression", "loss": "l1"},
}
CYCLE_TRAINING: Tables = {
    "ema": 0,
    "clip_norm": 0,
    "optimiser": {
        "kind": "adam",
        "lr": 5e-4,
        "betas": [0.5, 0.999],
        "weight_decay": 0,
        "warm_up": 0,
        "decay": "linear",
        "hold": 0.5,
    },
}


def cycle_net(size: Size) -> Tables:
    """CycleGAN's generator, whose width is the plan's."""
    return {"kind": "resnet", "width": size.width, "blocks": 6}


def regression(facts: Facts) -> tuple[Tables, str]:
    """What a regression minimises, and why: SSIM forgives small shifts, and costs error where there are none."""
    table: Tables = {"kind": "regression", "loss": "l1", "leak": 0.1}
    if not facts.apart_mm:
        return table | {"ssim": SSIM / 4}, "L1 and a little SSIM, for how far scans lie apart is not known"
    pixels = facts.apart_mm / facts.pixel_mm
    apart = f"scans lie {facts.apart_mm:.1f} mm from each other, {pixels:.1f} times the pixel"
    if pixels < EXACT:
        return table, f"L1 alone, for {apart}"
    if pixels < ALMOST:
        return table | {"ssim": SSIM / 4}, f"L1 and a little SSIM, for {apart}: that can be an estimate's own error"
    return table | {"ssim": SSIM}, f"L1 and SSIM, for {apart}"


def peaks(intensity: Tables, roles: Roles) -> tuple[Tables, Why]:
    """Whether the bright end of what is made is corrected: where each scan's own is 1, the model's must be."""
    own = [name for name in roles.target if intensity[name]["kind"] == "percentile"]
    if not own:
        return {}, {}
    high = f"{' and '.join(own)}: the {intensity[own[0]]['high']}th percentile"
    why = f"{high} is moved near to where every training scan has it"
    return {"peaks": True}, {"synth.peaks": why}


DIFFUSION: Tables = {
    "kind": "diffusion",
    "prediction": "x0",
    "schedule": {"kind": "cosine"},
    "weight": {
        "kind": "table",
        "of": "x0",
        "log_snr": [-4, -2, -1, 0, 1, 1.61, 6],
        "weight": [1.02, 1.14, 1.37, 2, 3.72, 6, 6],
    },
}
OF_RESIDUAL: Tables = {**DIFFUSION, "times": {"kind": "uniform_log_snr", "low": -3.5, "high": 5.5}}
OF_IMAGE: Tables = {**DIFFUSION, "times": {"kind": "uniform_log_snr", "low": -6, "high": 5.5}}
SAMPLING: Tables = {"sampler": "ddim", "steps": 8, "eta": 1.0, "grid": "log_snr", "end": 0.0518}
FROM_REGRESSION: Tables = {**SAMPLING, "start": 0.8605}  # log-SNR -3: the regression is known to be near
