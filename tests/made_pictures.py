"""Pictures of slices of heads with 8 bits, of which the CTs show windows of Hounsfield units."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64  # pixels
BRAIN_HU, FLUID_HU, BONE_HU = 35.0, 5.0, 900.0


def slice_of_head(radius=26.0):
    """The distance from the middle in shares of the radius of a head, [H, W]."""
    places = np.linspace(-SIDE / 2, SIDE / 2, SIDE)
    return np.hypot(places[:, None], places[None]) / radius


def ct_of_head(away):
    """A CT in HU: air, a skull, brain with a waving texture, and fluid in its middle."""
    texture = 4 * np.sin(12 * away) * np.cos(np.arange(SIDE) / 3)
    hu = np.where(away < 0.9, BRAIN_HU + texture, BONE_HU)
    hu = np.where(away < 0.2, FLUID_HU, hu)
    return np.where(away < 1, hu, -1000.0)


def mr_of_head(away):
    """An MR of the same head: dark bone and fluid, bright brain."""
    signal = np.where(away < 0.9, 150 + 30 * np.cos(9 * away), 20.0)
    signal = np.where(away < 0.2, 60.0, signal)
    return np.where(away < 1, signal, 0.0)


def as_picture(values, low, high):
    """Values [H, W] as bytes: low is black, high is white."""
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def write_pictures(root: Path, windows, slices=2) -> Path:
    """Cases of a patient for each window in HU, with an MR and a CT that shows the window, as PNG; a table of patients."""
    rows = ["case,patient,mr,ct"]
    for number, window in enumerate(windows):
        for place in range(slices):
            case = f"p{number}s{place}"
            away = slice_of_head(25.0 + place + number / 4)
            folder = root / case
            folder.mkdir(parents=True)
            Image.fromarray(as_picture(ct_of_head(away), *window)).save(folder / "ct.png")
            Image.fromarray(as_picture(mr_of_head(away), 0, 255)).save(folder / "mr.png")
            rows.append(f"{case},p{number},{case}/mr.png,{case}/ct.png")
    (root / "cases.csv").write_text("\n".join([*rows, ""]))
    return root
