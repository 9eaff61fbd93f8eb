"""Regions scored by themselves, distances of pooled slices, and a paper's variants, all through `evaluate`."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.ndimage import gaussian_filter

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.evaluation.reports.page import report
from voxlate.evaluation.scoring.distances import frechet, with_error
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.features import TEXTURE
from voxlate.evaluation.scoring.metrics import ImagePair, ssim
from voxlate.evaluation.scoring.regions import region_scores
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.ranges import range_for
from voxlate.scans.images.regions import Region, regions_from


def volume(data, modality="cta", unit="HU"):
    return Volume(np.asarray(data, np.float32)[None], np.eye(4), unit, modality)


def head(number):
    """Soft tissue of 40 HU in air, with a vessel of 300 HU along z: columns 8 to 11 of rows 12 to 15."""
    data = np.full((12, 28, 24), -1000.0)
    data[1:-1, 4:24, 4:20] = 40 + gaussian_filter(
        np.random.default_rng(number).normal(0, 20, (10, 20, 16)), 1
    )
    data[1:-1, 12:16, 8:12] = 300
    return data


@pytest.fixture
def cohort(tmp_path):
    for number in range(3):
        folder = tmp_path / "cohort" / f"p{number}"
        write_volume(folder / "cta.nii.gz", volume(head(number)))
        write_volume(
            folder / "tof.nii.gz", volume(np.maximum(head(number) + 100, 0), "tof", "a.u.")
        )
    return tmp_path / "cohort"


def image_of(number, made=True):
    """The truth of a case, or its synthesis: vessels of 240 HU, two of whose four columns are soft tissue of 40 HU."""
    data = head(number)
    if made:
        data[1:-1, 12:16, 8:12] = 240
        data[1:-1, 12:16, 10:12] = 40
    return data


@pytest.fixture
def out(cohort, tmp_path):
    """Vessels 60 HU too dark and half of them missing."""
    for number in range(3):
        write_volume(tmp_path / "out" / f"p{number}" / "cta.nii.gz", volume(image_of(number)))
    return tmp_path / "out"


def of(scores, key, answer="synthesis"):
    return scores.document()["modalities"]["cta"]["answers"][answer][key]


def test_a_threshold_scores_its_structure_alone_in_the_table_the_csv_and_the_report(cohort, out):
    scores = evaluate(out, cohort, mask="whole", regions={"vessels": "cta>150"})
    assert of(scores, "vessels.mae")["mean"] == pytest.approx((60 + 260) / 2, abs=1e-3)
    assert of(scores, "vessels.mean")["mean"] == pytest.approx((240 + 40) / 2, abs=1e-3)
    assert of(scores, "vessels.truth_mean")["mean"] == pytest.approx(300, abs=1e-3)
    assert of(scores, "vessels.dice")["mean"] == pytest.approx(2 / 3), "half found, nothing false"
    assert of(scores, "vessels.voxels")["mean"] == 160
    assert scores.document()["regions"]["vessels"] == "cta > 150 HU within body"
    assert scores.rows[0].scores["mae"] < 10, "the whole image hardly notices"
    lines = {line.label: line for line in scores.table().lines["cta"]}
    assert lines["vessels MAE"].unit == "HU"
    assert lines["vessels MAE"].cells[0].text.startswith("160.0")
    assert "vessels voxels" not in lines
    assert "cta &gt; 150 HU" in report(out).read_text()


def test_the_similarity_of_a_region_is_that_of_the_whole_map_inside_it(tmp_path):
    a, b = (
        np.random.default_rng(k).normal(100, 40, (30, 40, 36)).astype(np.float32) for k in (1, 2)
    )
    inside = np.zeros(a.shape, bool)
    inside[12:18, 14:20, 13:25] = True
    scores = region_scores(
        Region("lesion", "a file"),
        inside,
        ImagePair(a, b, range_for("HU", given=(-50, 350)), None),
        None,
        (10.0, 10.0, 10.0),
    )
    whole = ssim(a + 50, b + 50, 400, dimensions=3, mask=inside)
    assert scores["lesion.ssim_3d"] == pytest.approx(whole, rel=1e-6), (
        "its box is wide enough for every window"
    )
    jumps = np.abs(np.diff(b - a, axis=0))[inside[1:] & inside[:-1]]
    assert scores["lesion.mae_z"] == pytest.approx(jumps.mean(), rel=1e-5)
    error = np.sqrt(np.mean((a - b)[inside].astype(np.float64) ** 2))
    assert scores["lesion.psnr"] == pytest.approx(20 * np.log10(400 / error))


def test_a_region_lies_within_the_mask(cohort, out, tmp_path):
    half = np.zeros((12, 28, 24))
    half[:, :, :10] = 1
    for number in range(3):
        write_volume(tmp_path / "half" / f"p{number}.nii.gz", volume(half, "mask", ""))
    mask = tmp_path / "half" / "{case}.nii.gz"
    scores = evaluate(out, cohort, mask=mask, regions={"vessels": "cta>150"})
    assert of(scores, "vessels.mae")["mean"] == pytest.approx(60, abs=1e-3), (
        "the missing half lies outside"
    )
    assert of(scores, "vessels.dice")["mean"] == 1


def test_a_region_below_a_threshold_does_not_hold_the_air_around_the_body(cohort, out):
    for folder in (cohort, out):
        data = head(0)
        data[4:7, 18:21, 9:12] = -1000
        write_volume(folder / "p0" / "cta.nii.gz", volume(data))
    scores = evaluate(
        out, cohort, mask="body", regions={"sinus": "cta<-500", "tissue": "-200<cta<150"}
    )
    assert scores.rows[0].scores["sinus.voxels"] == 27
    assert scores.rows[0].scores["sinus.dice"] == 1
    assert scores.rows[1].scores["tissue.voxels"] == 10 * (20 * 16 - 16)
    assert scores.rows[1].scores["tissue.mae"] == 0


def test_a_mask_file_is_a_region_without_dice(cohort, out, tmp_path):
    for number in range(3):
        write_volume(
            tmp_path / "masks" / f"p{number}" / "vessels.nii.gz",
            volume(head(number) == 300, "mask", ""),
        )
    scores = evaluate(
        out, cohort, regions={"vessels": str(tmp_path / "masks" / "{case}" / "vessels.nii.gz")}
    )
    assert of(scores, "vessels.mae")["mean"] == pytest.approx(160, abs=1e-3)
    assert "vessels.dice" not in scores.rows[0].scores


def test_another_modality_of_the_case_may_say_where_to_look(cohort, out):
    """The vessel is 400 in the TOF, whose own peak it is."""
    scores = evaluate(out, cohort, regions={"vessels": "tof>0.9"})
    assert of(scores, "vessels.voxels")["mean"] == 160
    assert of(scores, "vessels.mae")["mean"] == pytest.approx(160, abs=1e-3)
    assert "vessels.dice" not in scores.rows[0].scores, "the synthesis is no TOF"


def test_a_label_map_of_the_case_may_say_where_to_look(cohort, out):
    for number in range(3):
        labels = np.where(head(number) == 300, 4, np.where(head(number) > -500, 1, 0))
        write_volume(cohort / f"p{number}" / "seg.nii.gz", volume(labels, "seg", ""))
    scores = evaluate(out, cohort, regions={"vessels": "seg=4", "head": "seg>0"})
    assert of(scores, "vessels.voxels")["mean"] == 160
    assert of(scores, "vessels.mae")["mean"] == pytest.approx(160, abs=1e-3)
    assert of(scores, "head.voxels")["mean"] == 10 * 20 * 16


def test_thresholds_of_arbitrary_units_are_shares_of_the_images_own_peak(cohort, tmp_path):
    write_volume(
        tmp_path / "made" / "p0" / "tof.nii.gz",
        volume(7 * np.maximum(head(0) + 100, 0), "tof", "a.u."),
    )
    row = evaluate(tmp_path / "made", cohort, regions={"vessels": "tof>0.9"}).rows[0]
    assert row.scores["vessels.dice"] == 1
    assert row.scores["vessels.mae"] == pytest.approx(0, abs=1e-5)


def test_a_region_that_one_case_lacks_is_left_out_there(cohort, out):
    write_volume(cohort / "p1" / "cta.nii.gz", volume(np.minimum(head(1), 100)))
    scores = evaluate(out, cohort, regions={"vessels": "cta>150"})
    assert (of(scores, "vessels.mae")["n"], of(scores, "vessels.mae")["not_finite"]) == (2, 1)
    assert scores.rows[1].scores["vessels.dice"] == 0, "what is not there was made up"


@every_row("text", ["cta>900", "swi>1"])
def test_a_region_that_no_case_has_is_refused(cohort, out, text):
    with pytest.raises(BadInput, match=text.partition(">")[0]):
        evaluate(out, cohort, regions={"vessels": text})


UNREADABLE = ["cta>", ">150", "cta>>150", "150>cta>20", "600<cta<150", "cta>a lot", "cta>=3", ""]


@every_row(("name", "text"), [("a.b", "cta>1"), *(("vessels", text) for text in UNREADABLE)])
def test_a_region_that_cannot_be_read_is_refused(name, text):
    with pytest.raises(BadInput, match=name):
        regions_from({name: text})


# distances


@pytest.mark.slow
def test_texture_distances_are_those_of_the_slices_of_all_cases_in_every_evaluation(cohort, out):
    scores = evaluate(out, cohort, mask="whole", features="texture")

    def vectors(number, made):
        grey = np.clip((image_of(number, made) + 1024) / 4095, 0, 1).astype(np.float32)
        return TEXTURE(grey[:, ::-1, ::-1])

    a, b = (
        np.concatenate([vectors(number, made) for number in range(3)]) for made in (False, True)
    )
    cases = np.repeat(np.arange(3), 12)
    plain = with_error(frechet, a, b, cases)
    found = of(scores, "texture_distance")
    assert found["mean"] == pytest.approx(frechet(a, b), rel=1e-5)
    assert found["se"] == pytest.approx(plain.error, rel=1e-4)
    assert found["n"] == 36
    assert of(scores, "texture_distance_inf")["mean"] is None, (
        "36 slices are too few for 44 numbers each"
    )
    assert "fd" not in scores.document()["modalities"]["cta"]["answers"]["synthesis"]
    stated = scores.document()["modalities"]["cta"]["features"]
    assert (stated["images"], stated["dimensions"]) == (36, 44)
    assert "Texture distance" in [line.label for line in scores.table().lines["cta"]]
    assert "Texture distance" in report(out).read_text()
    assert "texture_distance" not in (out / "scores.csv").read_text(), "it is of no single case"
    again = evaluate(out, cohort, mask="whole", features="texture")
    assert of(again, "texture_distance") == found
    for name in ("p1", "p2"):
        (out / name / "cta.nii.gz").unlink()
    alone = evaluate(out, cohort, mask="whole", features="texture")
    assert of(alone, "texture_distance")["se"] is None


def test_a_mask_leaves_slices_and_surroundings_out_of_the_distances(cohort, out, tmp_path):
    inside = np.zeros((12, 28, 24))
    inside[3:7, 14:20, 12:18] = 1  # tissue that the synthesis has right
    write_volume(tmp_path / "mask.nii.gz", volume(inside, "mask", ""))
    scores = evaluate(out, cohort, mask=tmp_path / "mask.nii.gz", features="texture")
    assert of(scores, "texture_distance")["n"] == 12
    assert of(scores, "texture_distance")["mean"] == pytest.approx(0, abs=1e-9)


def test_features_of_the_users_own_take_the_place(cohort, out):
    class Mean:
        name, kind, resize, dimensions = "mean grey", "fd", "none", 1

        def __call__(self, pictures):
            return pictures.mean((1, 2))[:, None].astype(np.float64)

    def means(made):
        images = np.concatenate([image_of(number, made) for number in range(3)])
        return ((images + 1000) / 2000).mean((1, 2))

    how = {"value_range": (-1000, 1000), "mask": "whole"}
    scores = evaluate(out, cohort, features=Mean(), **how)
    truth, ours = means(False), means(True)
    expected = (truth.mean() - ours.mean()) ** 2 + (truth.std(ddof=1) - ours.std(ddof=1)) ** 2
    assert of(scores, "fd")["mean"] == pytest.approx(expected, rel=1e-4)
    assert of(scores, "fd_inf")["mean"] is not None


# the TOF-to-CTA paper's variants


def test_volumes_score_as_the_paper_scores_them(shared, tmp_path):
    folder = shared / "reference" / "xmodality" / "dev"
    arrays = load_file(folder / "pipeline_io.safetensors")
    expected = read_json(folder / "pipeline.json")
    for folder, key in (("truth", "vol3d_true"), ("out", "vol3d_pred")):
        write_volume(tmp_path / folder / "case" / "cta.nii.gz", volume(arrays[key]))
    options = {"value_range": (-50, 350), "ssim_from": "zero"}
    scores = evaluate(tmp_path / "out", tmp_path / "truth", **options)
    (row,) = scores.rows
    wanted = expected["metrics3d"]
    assert row.scores["mae"] == pytest.approx(wanted["mae"], rel=1e-6)
    assert row.scores["rmse"] ** 2 == pytest.approx(wanted["mse"], rel=1e-6)
    assert row.scores["psnr"] == pytest.approx(wanted["psnr"], abs=1e-5)
    assert row.scores["ssim_3d"] == pytest.approx(wanted["ssim"], abs=1e-6)
    low = evaluate(tmp_path / "out", tmp_path / "truth", value_range=(-50, 350)).rows[0]
    assert abs(low.scores["ssim_3d"] - wanted["ssim"]) > 5e-5, "the origin matters"
    assert scores.parts["cta"]["ssim_from"] == "zero"


def test_a_threshold_that_is_named_after_vessels_and_finds_bone_has_a_caution(cohort, out):
    def codes(**regions):
        """The codes of the messages on regions."""
        said = evaluate(out, cohort, regions=regions).header["messages"]
        return [one["code"] for one in said if one["code"] == "region-of-bone"]

    assert codes(vessels="cta>150") == []
    for number in range(3):
        data = head(number)
        data[1:-1, 4:6] = 1200
        write_volume(cohort / f"p{number}" / "cta.nii.gz", volume(data))
    assert codes(vessels="cta>150") == ["region-of-bone"]
    assert codes(vessels="150<cta<600", dense="cta>150") == []
