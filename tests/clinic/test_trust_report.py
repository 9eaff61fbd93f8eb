"""The sentences of the summary of trust, by the provenance of a case."""

from voxlate.clinic.trust_report import trust_summary

CALIBRATED = {
    "voxlate": "0.7.0",
    "notice": "Research software, not a medical device.",
    "model": {"title": "MR to CT", "weights": "0123456789abcdef"},
    "seed": 3,
    "units": {"ct": "HU"},
    "inputs": {"mr": {"sha256": "b40f981e3a1da35a", "path": "/home/somebody/mr.nii.gz"}},
    "calibration": {"coverage": 0.9, "confidence": 0.95, "bound": "normal", "patients": 12},
    "bounds": {"ct": {"mae": 41.5, "bone": 96.25}},
    "warnings": [{"code": "cut-off", "grade": "caution", "text": "The scan ends inside the head."}],
}


def texts(provenance, heading):
    return [text for (value, _, _), text in trust_summary(provenance) if value == heading]


def test_a_calibrated_case_states_its_errors_with_their_probability_and_the_coverage():
    _, body, bone = texts(CALIBRATED, "ERROR")
    assert all(part in body for part in ("ct", "41.5 HU", "10%"))
    assert all(part in bone for part in ("bone", "96.25 HU", "10%"))
    (coverage,) = texts(CALIBRATED, "COVERAGE")
    assert all(part in coverage for part in ("90%", "95%", "12"))


def test_recipe_hash_warnings_and_intended_use_are_stated_and_no_path():
    (model,) = texts(CALIBRATED, "MODEL")
    assert all(part in model for part in ("MR to CT", "0123456789abcdef", "Seed 3", "0.7.0"))
    assert texts(CALIBRATED, "NOTICE") == [CALIBRATED["notice"]]
    (warning,) = texts(CALIBRATED, "WARNING")
    assert warning.startswith(CALIBRATED["warnings"][0]["text"])
    assert len(texts({**CALIBRATED, "in_training": True}, "WARNING")) == 2
    assert not any("/" in text for _, text in trust_summary(CALIBRATED))


def test_what_is_not_known_is_said():
    bare = {"model": {"title": "MR to CT"}}
    for heading in ("ERROR", "COVERAGE", "WARNING"):
        (text,) = texts(bare, heading)
        assert "%" not in text


def test_intervals_of_synthetic_heads_are_stated_with_their_widening():
    widened = {"ct": {"factor": 1.834, "heads": 7, "bone": 1, "soft": True}}
    held = {"ct": {"bone": 0.88}}
    calibration = {**CALIBRATED["calibration"], "patients": 4, "widened": widened, "held": held}
    (coverage,) = texts({**CALIBRATED, "calibration": calibration}, "COVERAGE")
    of_tissues = ("88% of bone", "7 for soft tissue", "1 for bone", "1 for air inside the body")
    assert all(part in coverage for part in ("90%", "4 synthetic heads", "1.83", *of_tissues))
