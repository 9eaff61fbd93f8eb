"""What is measured: the name, unit and meaning of each score, and how its values are written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

UNIT = "unit of the images"  # stands for the unit of the modality that is scored


@dataclass(frozen=True)
class Metric:
    """How a score is called, in what unit it is, what is better, and how one number comes from many voxels."""

    key: str
    label: str
    unit: str
    better: Literal["lower", "higher", "one", "truth"]
    reduction: str
    digits: int = 3
    scale: float = 1.0
    pooled: bool = False  # one value for all cases together, with a standard error

    def unit_for(self, images: str) -> str:
        """The unit, where `images` is that of the voxels."""
        return images if self.unit == UNIT else self.unit


ASIDE = ("rmse_rel", "std", "std_error_r")  # in the files, not in the table
REGION_ASIDE = ("truth_mean", "truth_volume", "truth_ratio", "voxels")
POOLED = "of the slices of all cases pooled; "
BIASED = POOLED + "too high with few images"
LIMIT = POOLED + "extrapolated to infinitely many images"
KERNEL = POOLED + "squared MMD with a cubic kernel, unbiased with few images"
SSIM = "Gaussian window 11, sigma 1.5, K1 0.01, K2 0.03; "
LPIPS = "grey over the range, clipped, repeated to three channels; outside the mask the low end; mean over axial slices"
METRICS = (
    Metric("mae", "MAE", UNIT, "lower", "mean over voxels"),
    Metric("mae_rel", "MAE/range", "%", "lower", "mean over voxels, share of the range", 2, 100.0),
    Metric("rmse", "RMSE", UNIT, "lower", "root of the mean over voxels"),
    Metric("rmse_rel", "RMSE/range", "%", "lower", "root of the mean over voxels, share of the range", 2, 100.0),
    Metric("psnr", "PSNR", "dB", "higher", "20 log10(range / RMSE) of each case", 1),
    Metric("ssim_2d", "SSIM 2-D", "", "higher", SSIM + "mean over axial slices"),
    Metric("ssim_3d", "SSIM 3-D", "", "higher", SSIM + "one window in three directions"),
    Metric("lpips", "LPIPS", "", "lower", "AlexNet v0.1; " + LPIPS),
    Metric("nmi", "NMI", "", "higher", "64 bins over the range; 1 independent, 2 determined"),
    Metric("gradient_strength", "Gradient", "", "one", "mean |difference of rows| over the truth's", 2),
    Metric("gradient_z", "Gradient z", "", "one", "mean |difference of slices| over the truth's", 2),
    Metric("std", "Uncertainty", UNIT, "lower", "mean standard deviation of the samples"),
    Metric("std_error_r", "Uncertainty–error r", "", "higher", "correlation of standard deviation and |error|", 2),
    Metric("fd", "FD", "", "lower", BIASED, pooled=True),
    Metric("fd_inf", "FD∞", "", "lower", LIMIT, pooled=True),
    Metric("kd", "KD", "", "lower", KERNEL, 4, pooled=True),
    Metric("texture_distance", "Texture distance", "", "lower", BIASED, pooled=True),
    Metric("texture_distance_inf", "Texture distance ∞", "", "lower", LIMIT, pooled=True),
    Metric("texture_kd", "Texture kernel distance", "", "lower", KERNEL, 4, pooled=True),
)


def of_region(name: str) -> tuple[Metric, ...]:
    """The scores inside a named region, or of the ratio of two."""
    counted = "voxels that pass the threshold, times their size"
    ratio = "volumes of two regions divided"
    return (
        Metric(f"{name}.mae", f"{name} MAE", UNIT, "lower", "mean over the region's voxels"),
        Metric(f"{name}.mean", f"{name} mean", UNIT, "truth", "mean over the region's voxels"),
        Metric(f"{name}.dice", f"{name} Dice", "", "higher", "overlap of the same threshold on both images"),
        Metric(f"{name}.volume", f"{name} volume", "ml", "truth", counted, 1),
        Metric(f"{name}.volume_error", f"{name} volume error", "ml", "lower", "|volume − volume of truth|", 1),
        Metric(f"{name}.ratio", f"{name} ratio", "", "truth", ratio, 2),
        Metric(f"{name}.ratio_error", f"{name} ratio error", "", "lower", "|ratio − ratio of truth|", 2),
        Metric(f"{name}.truth_volume", f"{name} volume of truth", "ml", "truth", counted, 1),
        Metric(f"{name}.truth_ratio", f"{name} ratio of truth", "", "truth", ratio, 2),
        Metric(f"{name}.truth_mean", f"{name} mean of truth", UNIT, "truth", "mean over the region's voxels"),
        Metric(f"{name}.voxels", f"{name} voxels", "", "truth", "number of voxels in the region", 0),
    )


def measured(document: Mapping[str, Any]) -> tuple[Metric, ...]:
    """All metrics that a metrics.json may hold: the fixed ones and those of its regions."""
    return METRICS + tuple(metric for name in document.get("regions", {}) for metric in of_region(name))


def is_aside(metric: Metric) -> bool:
    """Whether a score is only in the files, not in the table."""
    return metric.key in ASIDE or metric.key.rpartition(".")[2] in REGION_ASIDE


def features_note(part: Mapping[str, Any]) -> str:
    """One line below the table: the features, the number of images and what that number does."""
    name = "FD, FD∞ and KD" if part["kind"] == "fd" else "Texture distances (not FD: other features, another scale)"
    text = (
        f"{name}: features: {part['name']}; {part['dimensions']} numbers a slice; "
        f"{part['images']} axial slices pooled, resize {part['resize']}; "
        f"± is the standard error ({part['errors']}). The plain distance is too high with few images, so it compares "
        "only at one number of them; ∞ extrapolates it, the kernel distance has no such bias."
    )
    if part["images"] < part["images_for_limit"]:
        text += f" ∞ needs {part['images_for_limit']} images."
    return text


def cell(value: Mapping[str, Any] | None, metric: Metric, join: str = " ", interval: bool = True) -> str:
    """One value as people read it: 0.068 ± 0.012 0.061–0.074; ± is the standard error of what is pooled."""
    if not value or value["mean"] is None:
        return "–"
    mean = value["mean"]
    text = figure(mean, metric)
    spread = value["sd"] if value["sd"] is not None else value.get("se")
    if spread is not None:
        text += f" ± {figure(spread, metric, like=mean)}"
    if interval and value["ci95"]:
        low, high = (figure(end, metric, like=mean) for end in value["ci95"])
        text += f"{join}{low}–{high}"
    return text


def figure(value: float, metric: Metric, like: float | None = None) -> str:
    """A value with the digits that its size asks for, or those of another one that it stands beside."""
    size = abs(value if like is None else like)
    digits = metric.digits if metric.unit != UNIT or size < 1 else 2 if size < 10 else 1
    return f"{value * metric.scale:.{digits}f}"
