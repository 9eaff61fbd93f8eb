"""One frame of a dynamic scan: by its number, or by the arterial peak of a bolus of contrast and the time after it."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.scans.formats.format import DynamicScan, KeptByFile
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.misalignment import block_means

# '#frame=12' (from 1), '#peak' or '#peak+8s' after a path; '@1.5s' after these: seconds from one frame to the next
FRAME = re.compile(
    r"(?:frame=(?P<number>\d+)|peak(?:(?P<after>[+-]\d+(?:\.\d+)?)s)?)(?:@(?P<step>\d+(?:\.\d+)?)s)?"
)
# along D, H, W, in which the peak is searched: about 2 mm, less noise, little memory
MOST_BLOCKS = (32, 128, 128)
FEWEST_FRAMES = 6
BASELINE_FRAMES = 3  # before the bolus comes
BRIGHTEST = 0.001  # share of the blocks whose mean says how much vessels enhance; a single block may be a fault
# of that: far above tissue, and small arteries that fill a part of a block still count
VESSEL = 0.3
# share of the vessels that has filled by the time until which vessels count as arteries
EARLIEST = 0.05
# of a curve's height; a curve that stays above this after its top has moved, not enhanced
WASHED_OUT = 0.7
STANDS_OUT = 2.0  # times the noise of the baseline

Open = Callable[[Path], DynamicScan]


def is_frame(text: str) -> bool:
    """Whether a text after '#' names a frame: 'frame=12', 'peak' or 'peak+8s'."""
    return FRAME.fullmatch(text) is not None


def read_frame(path: Path, part: str, open_scan: Open) -> Volume:
    """A frame of a dynamic scan, with a note of which one it is, or its only volume where `part` is "".

    open_scan: opens the scan behind the path. Frames count from 1. 'peak' is the arterial peak (see `peak_frame`), 'peak+8s' the frame nearest to 8 s after it, by
    the header's times or, with '@1.5s' at the end, by frames 1.5 s apart.
    Raises BadInput for a file of one frame that is named, or of several without a name, a frame that does not exist, and a time that nothing states.
    """
    scan = open_scan(path)
    if part and scan.count == 1:
        raise BadInput(
            f"{path}: expected several frames, found one volume ({scan.grid}). Name it without '#' and what follows."
        )
    if scan.count > 1 and not part:
        raise BadInput(
            f"{path}: expected one 3-D volume, found {scan.count} frames ({scan.grid}{scan.apart}). Name one of them, {path.name}#frame=1 to #frame={scan.count}, or #peak for the arterial peak of a bolus."
        )
    number, note = _number(path, part, scan, open_scan) if part else (0, "")
    (volume,) = scan.read([number])  # to the end of the file, where its checksum is
    return replace(volume, note=note)


def _number(path: Path, part: str, scan: DynamicScan, open_scan: Open) -> tuple[int, str]:
    """Which frame is meant, from 0, and the note on it."""
    wanted = FRAME.fullmatch(part)
    assert wanted is not None
    if wanted["number"]:
        number = int(wanted["number"]) - 1
        if not 0 <= number < scan.count:
            raise BadInput(
                f"{path}: expected a frame from 1 to {scan.count}, found #{part}. Name one of these."
            )
        return number, f"frame {number + 1} of {scan.count}"
    peak = _peak(path, open_scan)
    if wanted["after"] is None:
        return peak, f"pseudo: CTP frame {peak + 1} of {scan.count}, arterial peak"
    after_s = float(wanted["after"])
    times = np.arange(scan.count) * float(wanted["step"]) if wanted["step"] else scan.times_s
    if times is None:
        raise BadInput(
            f"{path}: expected the times of its frames in the header, found none. Say how far they are apart: #peak{wanted['after']}s@1.5s, for instance."
        )
    number = _nearest(times, times[peak] + after_s, f"{path}#{part}", peak)
    apart_s = float(times[number] - times[peak])
    nearest = "" if abs(apart_s - after_s) < 0.05 else f" (nearest: {apart_s:+.1f} s)"
    sign = "+" if after_s >= 0 else "-"
    after = f"{sign} {abs(after_s):g} s{nearest}"
    return number, f"pseudo: CTP frame {number + 1} of {scan.count}, peak {after}"


def _nearest(times: np.ndarray, moment: float, where: str, peak: int) -> int:
    """The frame nearest to a time in seconds; raises BadInput where the scan ends more than half a step before it."""
    first = times[0] - (times[1] - times[0]) / 2
    last = times[-1] + (times[-1] - times[-2]) / 2
    if not first <= moment <= last:
        raise BadInput(
            f"{where}: expected frames until then, found the peak at {times[peak]:.1f} s (frame {peak + 1}) of {times[-1]:.1f} s. Leave the case out by a manifest, or name another time."
        )
    # of two that are equally near, the earlier
    return int(np.abs(times - moment).round(3).argmin())


@partial(KeptByFile, most=64)
def _peak(path: Path, open_scan: Open) -> int:
    """The peak, computed once for the three frames of a pseudo-multiphase CTA."""
    scan = open_scan(path)
    sizes = [-(-length // most) for length, most in zip(scan.grid.shape, MOST_BLOCKS)]
    blocks = [block_means(frame.data[0], sizes) for frame in scan.read(range(scan.count))]
    try:
        return peak_frame(np.stack(blocks))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def peak_frame(frames: np.ndarray) -> int:
    """The frame, from 0, of a bolus' arterial peak; frames: [T, ...] in any unit that grows with contrast.

    Large vessels are the voxels that enhance, over the mean of the first 3 frames, to at least 30 % of the brightest
    0.1 %, for two frames, and wash out again. Arteries are the vessels that reach half their height no later than the
    earliest twentieth: veins are more and brighter, but seconds later. The peak is that of the arteries' median curve.
    Raises BadInput for fewer than 6 frames, and where no enhancement exceeds the baseline's noise and washes out.
    """
    count = len(frames)
    if count < FEWEST_FRAMES:
        raise BadInput(
            f"expected at least {FEWEST_FRAMES} frames to find a peak, found {count}. Name it: #frame=N."
        )
    curves = frames.reshape(count, -1)
    curves = curves[:, np.isfinite(curves).all(axis=0)]
    vessels = _vessels(curves - curves[:BASELINE_FRAMES].mean(axis=0))
    if vessels.size == 0:
        raise BadInput(
            f"expected a bolus of contrast in {count} frames, found nothing that brightens and washes out. Name the frame you want: #frame=N."
        )
    # from there until its top a curve is above half its height; noise long before does not count
    numbers = np.arange(count)[:, None]
    before = (numbers < vessels.argmax(axis=0)) & (vessels < vessels.max(axis=0) / 2)
    arrival = np.where(before, numbers + 1, 0).max(axis=0)
    first = arrival <= np.quantile(arrival, EARLIEST, method="higher")
    return int(np.median(vessels[:, first], axis=1).argmax())


def _vessels(curves: np.ndarray) -> np.ndarray:
    """The enhancement [T, N] of the large vessels among all curves; none where they do not exceed the noise."""
    if curves.size == 0:
        return curves
    # for two frames: a single bright one is noise
    lasting = np.minimum(curves[1:], curves[:-1]).max(axis=0)
    heights = np.where(_washes_out(curves), lasting, 0)
    level = _mean_of_brightest(heights)
    noise = max(_mean_of_brightest(frame) for frame in curves[:BASELINE_FRAMES])
    if level <= STANDS_OUT * max(noise, 0.0):
        return curves[:, :0]
    return curves[:, heights >= VESSEL * level]


def _mean_of_brightest(values: np.ndarray) -> float:
    many = max(1, round(values.size * BRIGHTEST))
    return float(np.partition(values, -many)[-many:].mean(dtype=np.float64))


def _washes_out(curves: np.ndarray) -> np.ndarray:
    """Which curves fall after their top, in the mean of two frames: bool [N]; curves of moved tissue do not."""
    curves = (curves[1:] + curves[:-1]) / 2
    top = curves.argmax(axis=0)
    lowest_from = np.minimum.accumulate(curves[::-1], axis=0)[::-1]
    columns = np.arange(curves.shape[1])
    return lowest_from[top, columns] <= WASHED_OUT * curves[top, columns]
