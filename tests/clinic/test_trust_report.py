"""The sentences of the summary of trust, by the provenance of a case."""

from voxlate.clinic.trust_report import COVERAGE, ERROR, MODEL, NOTICE, WARNING, trust_summary

CALIBRATED = {
    "voxlate": "0.7.0",
    "notice": "Research software, not a medical device.",
    "model": {"title": "MR to CT", "weights": "0123456789abcdef"},
    "seed": 3,
    "units": {"ct": "HU"},
    "inputs": {"mr": {"sha256": "b40f981e3a1da35a", "path": "/home/somebody/mr.nii.gz"}},
    "calibration": {"coverage": 0.9, "confidence": 0.95, "bound": "normal", "patients": 12},
    "bounds": {"ct": {"mae": 41.5, "bone": 96.25}},
    "warnings": ["The scan ends inside the head."],
}


def texts(provenance, heading):
    return [text for own, text in trust_summary(provenance) if own == heading]


def test_a_calibrated_case_states_its_errors_with_their_probability_and_the_coverage():
    assert texts(CALIBRATED, ERROR) == [
        "The mean absolute error of ct inside the body exceeds 41.5 HU with a probability of at most 10%.",
        "The error of the mean of ct in bone exceeds 96.25 HU with a probability of at most 10%.",
    ]
    (coverage,) = texts(CALIBRATED, COVERAGE)
    assert coverage.startswith("Prediction intervals hold 90% of a new patient's voxels")
    assert "fitted on 12 held-out patients" in coverage


def test_recipe_hash_warnings_and_intended_use_are_stated_and_no_path():
    (model,) = texts(CALIBRATED, MODEL)
    assert model == (
        "Recipe: MR to CT. Hash of the weights: 0123456789abcdef. Seed 3, voxlate 0.7.0."
    )
    assert texts(CALIBRATED, NOTICE) == ["Research software, not a medical device."]
    assert texts(CALIBRATED, WARNING) == ["The scan ends inside the head."]
    assert not any("/" in text for _, text in trust_summary(CALIBRATED))


def test_what_is_not_known_is_said():
    bare = {"model": {"title": "MR to CT"}}
    assert texts(bare, ERROR)[0].startswith("Not known")
    assert texts(bare, COVERAGE) == ["No prediction intervals: the model is not calibrated."]
    assert texts(bare, WARNING) == ["None."]


def test_a_case_of_the_training_is_named_as_one():
    assert "trained on this case" in texts({**CALIBRATED, "in_training": True}, WARNING)[1]


def test_intervals_of_synthetic_heads_are_stated_with_their_widening():
    widened = {"ct": {"factor": 1.834, "heads": 7}}
    stated = {**CALIBRATED["calibration"], "patients": 4, "widened": widened}
    (coverage,) = texts({**CALIBRATED, "calibration": stated}, COVERAGE)
    assert "without a guarantee for patients" in coverage
    assert "fitted on 4 synthetic heads, and widened by a factor of 1.83 from 7 real heads" in (
        coverage
    )
