"""The radially averaged power of images against that of the truth, which shows speckle and the grid of a patch stem."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from voxlate.scans.formats.io import read_volume

# Frequencies in cycles per pixel: of structures below 16 pixels, up to half the Nyquist frequency.
LOW, HIGH = 1 / 16, 1 / 4
BINS = 8


def power(slices: np.ndarray) -> np.ndarray:
    """Mean power of slices [N, H, W] in BINS rings of equal width from LOW to HIGH."""
    window = np.hanning(slices.shape[1])[:, None] * np.hanning(slices.shape[2])
    around = slices - slices.mean(axis=(1, 2), keepdims=True)
    found = (np.abs(np.fft.fft2(window * around)) ** 2).mean(axis=0)
    rows, columns = (np.fft.fftfreq(side) for side in slices.shape[1:])
    ring = np.floor((np.hypot(rows[:, None], columns) - LOW) / (HIGH - LOW) * BINS)
    return np.array([found[ring == one].mean() for one in range(BINS)])


def power_db(pairs: Iterable[tuple[Path, Path]]) -> np.ndarray:
    """10 log10 of an image's power over its truth's in each ring, both over all slices of all files (image, truth)."""
    totals = np.zeros((2, BINS))
    for pair in pairs:
        volumes = [read_volume(file, "image").data[0] for file in pair]
        totals += [len(volume) * power(volume.astype(np.float64)) for volume in volumes]
    image, truth = totals
    return 10 * np.log10(image / truth)
