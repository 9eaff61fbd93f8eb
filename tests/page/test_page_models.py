"""What the page says of models: their settings that have an effect, their limits, and those that cannot be used."""

import re
from dataclasses import replace

import numpy as np
import pytest
from paging import Here

import voxlate as package
from rows import every_row, slow
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.ranges import top_of, window_of

JSON = {"accept": "application/json"}
RESIDUAL = """
title = "both"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
task = { kind = "residual", predictor = "first" }
method = { kind = "diffusion" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0 }
synth = { sampler = "ddim", steps = 2 }

[[stages]]
name = "first"
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0 }
"""


@pytest.fixture
def scan(cohort):
    """A scan that the models take."""
    return cohort / "case1" / "t1.nii.gz"


@slow
def test_wrong_fields_are_refused(page, diffusion, scan):
    made = page({"alone": str(diffusion)}, start=Here)
    place, _ = made.checked(scan)
    for label, fields in WRONG:
        asked = {"run": label, **fields}
        answer = made.post(f"{place}/synthesise", data=asked, headers=JSON)
        assert answer.status_code in (400, 422), fields
    assert len(made.jobs.all()) == 1


# A value of another type, no option of the page, and no model.
WRONG = [
    ("alone", {"anyway": "perhaps"}),
    ("alone", {"Seed": "3"}),
    ("alone", {"answer": "mean"}),
    ("another", {}),
]


@slow
def test_of_a_mean_and_a_sample_the_calibrated_one_is_taken_and_shows_its_map(
    at_work, typed, trained, scan, small_head, quick_widths, tmp_path
):
    both = trained("both", RESIDUAL)
    for number in range(4):
        small_head(tmp_path / "others" / f"new{number}", 100 + number)
    package.calibrate(both, tmp_path / "others", progress=False, answer="mean")
    made = at_work(both)
    place, text = made.checked(scan)
    assert "with prediction intervals" in text
    address, text = made.synthesised(place)
    roles = re.findall(r'data-role="(\w+)"', text)
    assert roles == ["source", "synthesis", "lower", "upper", "width"]
    assert re.search(r"Expected error of t2: .*body [\d.]+", text)
    typed("synth both cohort/case1/t1.nii.gz --answer mean --out mean --device cpu").done()
    (image,) = (tmp_path / "mean").glob("*/t2.nii.gz")
    assert made.get(f"{address}/images/t2.nii.gz").content == image.read_bytes()


def test_a_model_that_cannot_be_used_is_listed_with_its_sentence_and_the_others_are_checked(
    page, run, scan, tmp_path, monkeypatch
):
    from voxlate.page import model_check as check

    faults = {
        "large": MemoryError(),
        "locked": PermissionError(13, "Permission denied"),
        "odd": ZeroDivisionError("secret"),
    }
    whole = check.load

    def load(place, *options, **more):
        if place in faults:
            raise faults[place]
        return whole(place, *options, **more)

    monkeypatch.setattr(check, "load", load)
    runs = {name: name for name in faults} | {"run": str(run), "gone": str(tmp_path / "gone")}
    made = page(runs, start=Here)
    place, text = made.checked(scan, scan.with_name("t2.nii.gz"))
    assert text.count("<strong>Does not fit.</strong>") == 4
    assert "secret" not in text
    assert str(tmp_path) not in text
    assert text.count("<strong>Fits.</strong>") == 1
    assert made.post(f"{place}/synthesise", data={"run": "gone"}).status_code == 400


@every_row("widest, top", [(735.0, 800.0), (0.0042, 0.005), (0.0, 1.0)])
def test_a_map_ends_at_a_round_value_and_a_ct_has_the_window_of_heads_or_trunks(widest, top):
    ball = sum(np.square(axis) for axis in np.ogrid[-1:1:20j, -1:1:20j, -1:1:20j]) < 0.5
    data = np.where(ball, 40.0, -1000.0)[None].astype(np.float32)
    # wider in the air, which does not count
    width = np.where(ball, widest, 2 * widest).astype(np.float32)
    for side_mm, window in ((10, (-50, 200)), (20, (-160, 240))):
        image = Volume(data, np.diag([side_mm] * 3 + [1]), "HU", "ct")
        assert window_of(image) == window
        assert top_of(replace(image, data=width[None]), image) == pytest.approx(top)
