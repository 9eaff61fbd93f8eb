"""The page of a comparison: one offline file with the table and the pictures of every method, case by case."""

import itertools
import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from test_report import Page

from made_volumes import save
from rows import slow
from voxlate.base.files import read_json, write_json
from voxlate.base.messages import message
from voxlate.evaluation.compare import compare
from voxlate.evaluation.reports.page import MOST_COMPARED, write_comparison
from voxlate.evaluation.scoring.evaluate import evaluate

SHAPE = (9, 40, 32)
GRID = np.diag([1.0, 1.0, 3.0, 1.0])


METHODS = ("unet", "ddpm_m", "oracle")


def make(folder, cases=2, methods=METHODS):
    """Scored syntheses of made-up heads: one blurs, one adds noise and has a spread, one is the truth itself."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    for number in range(cases):
        draw = np.random.default_rng(number)
        inside = z**2 + (y / 0.9) ** 2 + (x / 0.8) ** 2 < 0.8
        tissue = 40 + 200 * gaussian_filter(draw.normal(0, 1, SHAPE), 1)
        noise = draw.normal(0, 20, SHAPE)
        images = {"unet": gaussian_filter(tissue, 1), "ddpm_m": tissue + noise, "oracle": tissue}
        source = folder / f"cohort/head{number}/t1.nii.gz"
        save(source, np.sqrt(np.abs(tissue) + 300) * inside, "t1", "a.u.", GRID)
        save(source.with_name("ct.nii.gz"), np.where(inside, tissue, -1000), affine=GRID)
        for method in methods:
            made, samples = folder / method / f"head{number}", 10 if method == "ddpm_m" else 1
            image = images.get(method, tissue + 0.5 * noise)
            save(made / "ct.nii.gz", np.where(inside, image, -1000), affine=GRID)
            if samples > 1:
                save(made / "ct_std.nii.gz", 20.0 * inside, affine=GRID)
            stated = {
                "seconds_per_slice": 0.2 * samples**2,
                "network_calls": 5 * samples,
                "device": "cpu",
                "inputs": {"t1": {"path": str(source)}},
                "synth": {"samples": samples},
                "warnings": [
                    message("starter", "A starter.").table,
                    message("guess", method).table,
                ],
            }
            write_json(made / "provenance.json", stated)
    for method in methods:
        evaluate(folder / method, folder / "cohort", mask="body")
    return [folder / method for method in methods]


@pytest.fixture(scope="module")
def outs(tmp_path_factory):
    return make(tmp_path_factory.mktemp("side"))


@pytest.fixture(scope="module")
def page(outs):
    write_comparison(compare(outs).document, outs[0].parent / "methods.html")
    return (outs[0].parent / "methods.html").read_text(encoding="utf-8")


@slow
def test_each_case_shows_source_truth_and_every_methods_image_error_and_spread_once_in_three_planes(
    page,
):
    alts = [image["alt"] for image in Page(page).images if image["alt"]]
    for case, plane in itertools.product(("head0", "head1"), ("axial", "coronal", "sagittal")):
        mine = [alt for alt in alts if alt.endswith(f"{plane} slice of {case}")]
        expected = ["source", "truth", *["unet"] * 2, *["ddpm_m"] * 3, *["oracle"] * 2]
        assert [re.split(r",| \(", alt)[0] for alt in mine] == expected
    # only one method has a spread, in two cases
    assert sum("sd" in alt for alt in alts) == 2 * 3


def test_the_page_has_the_table_with_uncertainty_time_and_network_calls(page, outs):
    text = Page(page).text
    scores = read_json(outs[1] / "metrics.json")["modalities"]["ct"]["answers"]["synthesis"]
    assert f"{scores['mae']['mean']:.1f} ± {scores['mae']['sd']:.1f}" in text
    # the mean of the standard deviations inside the body, in HU
    assert "20.0 ± 0.0" in text
    for part in (
        "Uncertainty HU",
        "Time s/slice",
        "Network calls 5 ± 0 50",
        "Not a medical device",
    ):
        assert part in text


def test_the_same_window_serves_all_methods_and_the_truth(page):
    truth, ours, noisy = (
        Page(page).picture(f"{name} (ct), axial slice of head0")
        for name in ("truth", "oracle, image", "ddpm_m, image")
    )
    assert ours == truth != noisy


@slow
def test_of_many_cases_a_few_are_shown_from_the_lowest_to_the_highest_error(tmp_path):
    outs = make(tmp_path, cases=MOST_COMPARED + 1, methods=METHODS[:2])
    write_comparison(compare(outs).document, tmp_path / "methods.html")
    text = Page((tmp_path / "methods.html").read_text(encoding="utf-8")).text
    assert f"{MOST_COMPARED} of {MOST_COMPARED + 1} cases" in text
    assert "error rank 1 of 5 (lowest)" in text
    assert "error rank 5 of 5 (highest)" in text
