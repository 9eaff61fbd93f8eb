"""Methods compared: a hand-made example, Holm's and Wilcoxon's own numbers, and what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas import read_csv

from made_scores import made_scores
from refusals import refuses
from rows import every_row
from voxlate.base.statistics import holm
from voxlate.evaluation.compare import compare

FEATURES = {"name": "texture", "kind": "texture", "dimensions": 44, "resize": "none"}
FEATURES |= {"images": 80, "images_for_limit": 176}


def write(folder, values, patients=None, distances=None, baselines=None, header=None, **changes):
    """Scores with the MAE, SSIM and gradient strength of each case, and the MAE of naive baselines."""
    naive = {name: {"mae": own} for name, own in (baselines or {}).items()}
    pooled = {key: {"sd": None, "ci95": None, **own} for key, own in (distances or {}).items()}
    part = {"features": FEATURES, "distances": {"synthesis": pooled}, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    made_scores({"ct": {"synthesis": values, **naive}}, patients, part, **header or {}).write(
        folder
    )
    return folder


def results(comparison):
    """The rows of each method by score."""
    found = {}
    for row in comparison.document["results"]:
        found.setdefault(row["score"], {})[row["method"]] = row
    return found


EIGHT = np.arange(8.0)


@pytest.fixture
def folders(tmp_path):
    """b is always 1 HU below a, c lies around a: by hand, p of a against b is 2 / 2⁸, that of c against b is larger."""
    c = 100 + EIGHT + np.array([3, -3, 2, -2.5, 4, -4, 1, -1.5])
    write(tmp_path / "a", {"mae": list(100 + EIGHT), "ssim_2d": list(0.8 + EIGHT / 100)})
    write(tmp_path / "b", {"mae": list(99 + EIGHT), "ssim_2d": list(0.8 + EIGHT / 100)})
    write(tmp_path / "c", {"mae": list(c), "ssim_2d": list(0.9 + EIGHT / 100)})
    return [tmp_path / name for name in "abc"]


def test_the_best_method_is_the_reference_and_the_others_are_tested_against_it(folders):
    found = compare(folders)
    a, b, c = results(found)["mae"].values()
    assert a["best"] == a["reference"] == "b"
    assert (a["mean"], a["sd"]) == pytest.approx((103.5, np.std(EIGHT, ddof=1)))
    assert a["difference"] == pytest.approx(1)
    # always 1 HU above
    assert (a["difference_ci95_low"], a["difference_ci95_high"]) == pytest.approx((1, 1))
    # all eight differences have one sign
    assert a["p"] == pytest.approx(2 / 2**8)
    # the smaller of two p counts twice
    assert a["p_holm"] == pytest.approx(4 / 2**8)
    assert c["p_holm"] == c["p"] > 0.05
    assert c["difference_ci95_low"] < c["difference"] < c["difference_ci95_high"]
    assert "p" not in b
    assert found.table().lines["ct"][0].cells[0].below == "+1.0 (1.0…1.0)\np 0.016*"
    frame = found.frame
    assert list(zip(frame["modality"], frame["score"], frame["method"])) == [
        ("ct", score, method) for score in ("mae", "ssim_2d") for method in "abc"
    ]
    of_a, of_b, _ = (one for one in frame.itertuples() if one.score == "mae")
    assert (of_a.mean, of_a.n, of_a.p) == pytest.approx((103.5, 8, 2 / 2**8))
    # the reference is not tested against itself
    assert np.isnan(of_b.p)
    assert (of_a.reference, of_b.reference) == ("b", "b")
    a, _, _ = results(compare(folders, reference="c"))["mae"].values()
    assert (a["best"], a["reference"]) == ("b", "c")


def test_the_table_is_written_as_csv_and_latex_by_its_ending(folders, tmp_path):
    found = compare(folders)
    for name in ("table.csv", "table.tex"):
        found.write(tmp_path / name)
    read = read_csv(tmp_path / "table.csv")
    assert [*read["method"]] == [*"abcabc"]
    assert [*read["mean"]] == pytest.approx([*found.frame["mean"]])
    assert {*read_csv(tmp_path / "table.csv", dtype=str)["n"]} == {"8"}
    lines = (tmp_path / "table.tex").read_text().splitlines()
    mae = next(line for line in lines if line.startswith("MAE [HU]")).removesuffix(r" \\")
    # the best is bold, a significant difference has a star
    assert [("textbf" in cell, "*" in cell) for cell in mae.split(" & ")[1:]] == [
        (False, True),
        (True, False),
        (False, False),
    ]


def test_slices_of_a_patient_are_one_value(tmp_path):
    patients = [f"p{number // 10}" for number in range(60)]
    values = np.random.default_rng(0).normal(50, 5, 60)
    write(tmp_path / "a", {"mae": list(values + 1)}, patients)
    write(tmp_path / "b", {"mae": list(values)}, patients)
    found = compare([tmp_path / "a", tmp_path / "b"])
    part = found.scores.parts["ct"]
    assert (part["cases"], part["patients"]) == (60, 6)
    a, b = results(found)["mae"].values()
    assert a["n"] == 6
    # sixty slices are not sixty heads
    assert a["p"] == pytest.approx(2 / 2**6)
    assert b["sd"] == pytest.approx(values.reshape(6, 10).mean(1).std(ddof=1))


def test_a_case_without_a_value_is_left_out_of_all_methods(tmp_path):
    write(tmp_path / "a", {"mae": [1, 2, 3, 4], "psnr": [30, None, 32, 33]})
    write(tmp_path / "b", {"mae": [2, 3, 4, 5], "psnr": [29, 35, 31, 32]})
    psnr = results(compare([tmp_path / "a", tmp_path / "b"]))["psnr"]["b"]
    assert psnr["cases"] == 3
    assert psnr["mean"] == pytest.approx(92 / 3)


def test_pooled_distances_are_in_the_table_without_a_test_where_they_compare(tmp_path):
    folders = []
    for name, mean in (("a", 0.5), ("b", 0.7)):
        distances = {"texture_distance": {"mean": mean, "n": 80}}
        folders.append(write(tmp_path / name, {"mae": [1, 2]}, distances=distances))
    found = results(compare(folders))["texture_distance"]["b"]
    assert (found["best"], found["mean"], found["n"]) == ("a", 0.7, 80)
    assert "p" not in found


def of_rule(name):
    """The header of scores in a region."""
    return {"regions": {"vessels": f"rule {name}"}}


TRUTH = {"truths": {"c0/ct": "1"}, "shown": {"c0/ct": 0.99}}


@every_row(
    "first, second, named",
    [
        ({}, {"range": [-50, 350]}, "range"),
        ({}, {"mask": "whole image"}, "mask"),
        ({}, {"ssim_from": "zero"}, "ssim_from"),
        ({}, {"unit": "a.u."}, "unit"),
        ({}, {"lpips": "other weights"}, "lpips"),
        ({}, {"features": FEATURES | {"name": "ours"}}, "features"),
        ({"header": TRUTH}, {"header": TRUTH | {"truths": {"c0/ct": "2"}}}, "c0/ct"),
        ({"header": TRUTH}, {"header": TRUTH | {"shown": {"c0/ct": 0.22}}}, "c0/ct"),
        ({"header": of_rule("0")}, {"header": of_rule("1")}, "vessels.*rule 0.*rule 1"),
        ({"header": of_rule("0")}, {}, "vessels"),
    ],
)
def test_scores_made_in_another_way_or_against_other_truths_are_refused(
    tmp_path, first, second, named
):
    folders = tmp_path / "a", tmp_path / "b"
    for folder, changes in zip(folders, (first, second)):
        write(folder, {"mae": list(EIGHT)}, **changes)
    with refuses(named):
        compare(folders)


def test_what_cannot_be_compared_is_refused(folders, tmp_path):
    more = write(tmp_path / "more", {"mae": list(range(9)), "ssim_2d": [0] * 9})
    for others, named, options in (
        ([tmp_path], "metrics.json", {}),
        ([folders[1]], "'d'", {"reference": "d"}),
        ([folders[0]], "twice", {}),
        ([more], "c8", {}),
    ):
        with refuses(named):
            compare([folders[0], *others], **options)
    with refuses("found none"):
        compare([])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_no_correction_and_bonferronis(p_values):
    corrected = holm(p_values)
    for before, after in zip(p_values, corrected):
        assert before <= after <= min(1, before * len(p_values)) + 1e-12
    ranked = [corrected[number] for number in np.argsort(p_values, kind="stable")]
    assert all(earlier <= later for earlier, later in itertools.pairwise(ranked))


def test_the_best_naive_baseline_of_all_cases_is_a_column_of_its_own(folders):
    mae = {"mae": list(100 + EIGHT)}
    write(folders[0], mae, baselines={"copy of t1": [130.0] * 8, "of few cases": [1.0] * 3})
    trained = {"trained_on": ["c0", "c3"]}
    write(folders[1], mae, baselines={"intensity table": [120.0] * 7 + [128.0]}, header=trained)
    found = compare(folders)
    assert found.table().caption[0].startswith("b: 2 of 8 cases")
    naive = results(found)["mae"]["best naive"]
    assert naive["baseline"] == "intensity table"
    assert (naive["mean"], naive["sd"]) == (121, pytest.approx(8 / 8**0.5))
    assert found.table().methods == {"ct": ["a", "b", "c", "best naive"]}
    assert "121.0 ± 2.8" in found.table()._repr_html_()
    assert results(compare(folders[::2]))["mae"]["best naive"]["baseline"] == "copy of t1"
