"""Where the body and the brain are, by thresholds and morphology."""

import numpy as np

from voxlate.errors import BadInput
from voxlate.images.morphology import Spacing, closed, dilate, erode, fill_slices, largest, opened
from voxlate.images.volume import Volume

SAMPLES = 1_000_000  # voxels that thresholds are estimated from
BODY_HU = -300.0  # between lung or foam (below -400) and fat (-100)
BONE_HU = 180.0  # above enhanced vessels at their edges, below the thin bone of the temple
BRAIN_HU = (0.0, 80.0)  # cerebrospinal fluid to fresh blood
TABLE_MM = 3.0  # table tops and head holders are thinner than twice this
SCALP_MM = 4.0  # gaps in the scalp's signal that are closed before the head is filled
SCALP_DEPTH_MM = 6.0  # skin and fat, which are as bright as the brain or brighter
SUTURE_MM = 3.0  # gaps in the bone that are closed
FORAMEN_MM = 2.0  # half the width of the bridges (nerves, vessels) that are cut
SULCUS_MM = 5.0  # half the width of the furrows that are filled
NOISE_HU = 20.0
STRIPPED = 0.8  # of the body; more is a volume that holds nothing but the brain
LEAST_BODY = 0.01  # of the image; less is no body
LEAST_BRAIN = 0.05  # of the body; less is no brain


def foreground(volume: Volume) -> np.ndarray:
    """The body or head of a volume, without table and noise: bool [D, H, W].

    Hounsfield units are thresholded between foam and fat. Other units: above the background, which is estimated from
    the in-plane border (a constant, also a negative one, or noise); where there is none, everything is body.
    """
    image, spacing = volume.data[0], volume.grid.spacing_mm
    if volume.unit == "HU":
        return _body(image > BODY_HU, spacing, gap_mm=0.0)
    background, threshold, clean = _background(image)
    if threshold is None:
        return np.ones(image.shape, dtype=bool)
    if clean and volume.unit != "grey":  # a windowed picture has clean air beside a whole head
        found = fill_slices(largest(np.abs(image - background) > threshold - background))
    else:
        found = _body(image > threshold, spacing, gap_mm=SCALP_MM)
    # a few vessels above a threshold (some MRA files) draw no outline
    return found if found.mean() > LEAST_BODY else np.ones(image.shape, dtype=bool)


def _body(tissue: np.ndarray, spacing: Spacing, gap_mm: float) -> np.ndarray:
    """The filled outline of the body: gaps in its skin closed (MR, where bone is as dark as air), thin things gone.

    Of what is left the part with the most tissue is the body: a table top is large too, but hollow.
    """
    shut = fill_slices(closed(tissue, gap_mm, spacing))
    core = opened(shut, TABLE_MM, spacing)
    core = largest(core if core.any() else shut, tissue)
    outline = shut & dilate(core, TABLE_MM, spacing)
    return fill_slices(largest(outline & (tissue | erode(shut, gap_mm, spacing))))


def _background(image: np.ndarray) -> tuple[float, float | None, bool]:
    """Background value, threshold above it (None: no background), and whether it is one clean constant."""
    values = _sample(image)
    border = _sample(np.concatenate([image[:, [0, -1]].reshape(-1), image[:, :, [0, -1]].reshape(-1)]))
    # A head may touch most of the border (neck, nose, a tight crop): the lower quarter still is air.
    lowest, background = (float(v) for v in np.percentile(border, [5, 25]))
    spread = (background - lowest) / 0.97  # standard deviation, from two quantiles of the normal law
    floor, bright = (float(v) for v in np.percentile(values, [0.1, 90]))
    constant = float((border == background).mean()) > 0.25
    if not constant and background - floor > 0.5 * (bright - floor):
        return background, None, False
    signal = float(values[values > _otsu(values)].mean()) if values.max() > values.min() else background
    if constant and _is_clean(values, background, signal):
        return background, background + 1e-3 * (signal - background), True
    return background, background + max(6 * spread, 0.1 * (signal - background)), False


def _is_clean(values: np.ndarray, background: float, signal: float) -> bool:
    """Whether next to no voxel is just above the background: skull-stripped or masked, not noise cut at zero."""
    away = np.abs(values - background)
    faint = (away > 0) & (away < 0.05 * (signal - background))
    return bool(faint.sum() < 0.05 * (away > 0).sum())


def _sample(array: np.ndarray) -> np.ndarray:
    """Evenly spread values, at most about SAMPLES of them."""
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // SAMPLES)]


def _otsu(values: np.ndarray) -> float:
    """The threshold between two classes of least variance within. Source: Otsu 1979, eq. 18."""
    low, high = np.percentile(values, [0.5, 99.5])
    counts, edges = np.histogram(values.clip(low, high), bins=256)
    middle = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum().astype(np.float64)
    above = below[-1] - below
    sum_below = (counts * middle).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sum_below / below - (sum_below[-1] - sum_below) / above) ** 2
    return float(edges[1 + int(np.nan_to_num(between).argmax())])


def brain(volume: Volume) -> np.ndarray:
    """The brain by morphology: bool [D, H, W].

    Hounsfield units: soft tissue inside the bone. Others (T1-like): the tissue that erosion sets free from the scalp;
    a skull-stripped volume is its own answer. Raises BadInput where no brain is found.
    """
    body = foreground(volume)
    found = _brain_in_ct(volume, body) if volume.unit == "HU" else _brain_in_mr(volume, body)
    if found.sum() < LEAST_BRAIN * max(1, body.sum()):
        raise BadInput(
            f"{volume.origin or volume.modality}: expected a head, found no brain in it. "
            "Use the body mask, or give a mask file."
        )
    return found


def _brain_in_ct(volume: Volume, body: np.ndarray) -> np.ndarray:
    """Soft tissue that bone encloses slice by slice; erosion parts it from what hangs on through the foramina."""
    image, spacing = volume.data[0], volume.grid.spacing_mm
    bone = (image > BONE_HU) & body
    vault = fill_slices(closed(bone, SUTURE_MM, spacing)) & ~bone
    soft = vault & (image > BRAIN_HU[0] - NOISE_HU) & (image < BRAIN_HU[1] + NOISE_HU)
    core = largest(erode(soft, FORAMEN_MM, spacing))
    grown = dilate(core, FORAMEN_MM + max(spacing), spacing) & soft
    return fill_slices(closed(grown, SUTURE_MM, spacing) & vault)


def _brain_in_mr(volume: Volume, body: np.ndarray) -> np.ndarray:
    """The largest tissue below the scalp that erosion leaves in one piece."""
    image, spacing = volume.data[0], volume.grid.spacing_mm
    tissue = body & (image > _otsu(_sample(image[body])))
    below_scalp = erode(np.pad(body, 1), SCALP_DEPTH_MM, spacing)[1:-1, 1:-1, 1:-1] if len(body) > 2 else body
    core = largest(erode(tissue & below_scalp, FORAMEN_MM, spacing))
    grown = dilate(core, FORAMEN_MM + max(spacing), spacing) & tissue
    found = fill_slices(closed(grown, SULCUS_MM, spacing) & body)
    # a whole head is at least a third scalp, bone and face
    return body if found.sum() > STRIPPED * body.sum() else found
