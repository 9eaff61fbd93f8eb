"""The verdict on syntheses: made-up errors whose answer is known by hand."""

import numpy as np
import pytest

from made_scores import made_scores
from rows import every_row
from voxlate.base.messages import UNOWNED
from voxlate.training.verdict import verdict_lines, verdict_on


def on(patients="", not_held_out="", **errors):
    """The verdict on errors of cases c0, c1, …, each of a patient unless letters name their patients."""
    answers = {
        name.replace("_", " "): {f"c{number}": error for number, error in enumerate(own)}
        for name, own in errors.items()
    }
    owners = dict(zip(answers["synthesis"], patients or "abcdefghij"))
    return verdict_on("ct", answers, owners, "HU", "", not_held_out)


def test_a_lower_error_of_all_patients_beats_the_best_baseline_by_its_share():
    ours = [60, 61, 62, 63, 61, 62]
    found = on(synthesis=ours, mean_image=[200] * 6, intensity_table=[89] * 6)
    assert found.outcome == "better"
    assert found.p == pytest.approx(2 / 2**6)
    assert found.baseline == "intensity table"
    assert all(part in found.sentence for part in ("89.0 HU", "6 of 6", "61.5 HU"))
    assert found.share == pytest.approx(1 - 61.5 / 89)
    assert found.difference_ci95
    assert found.difference_ci95[0] < 61.5 - 89 < found.difference_ci95[1] < 0


@pytest.mark.parametrize("count", [1, 5, 6, 10])
def test_without_a_difference_at_most_one_comparison_in_twenty_is_called_better(count):
    generator = np.random.default_rng(count)
    outcomes = []
    for _ in range(100):
        ours, theirs = 60 * np.exp(generator.normal(0, 0.3, (2, count)))
        outcomes.append(on(synthesis=ours, copy=theirs).outcome)
    assert {"unclear", "worse"} <= set(outcomes)
    assert outcomes.count("better") <= 0.05 * 100


CLAUSE = "4 of 4 cases in the training"


@every_row(
    "errors, expected, said",
    [
        (
            {"synthesis": [70, 71, 70, 71], "copy_of_t1": [68] * 4},
            {"outcome": "worse", "lower_on": 0},
            "4 of 4",
        ),
        # one patient makes the mean lower
        (
            {"synthesis": [10, *[69] * 5], "copy_of_t1": [68] * 6},
            {"outcome": "unclear", "lower_on": 1},
            "",
        ),
        # patients weigh the same whatever their cases: not 30, the mean over cases
        (
            {"patients": "aaab", "synthesis": [10, 10, 10, 90], "copy": [60] * 4},
            {"patients": 2, "synthesis": 50},
            "",
        ),
        ({"synthesis": [1, 2, 3, 4]}, {"outcome": "unknown", "baseline": None}, ""),
        # a baseline that some cases lack counts only where none has more cases, and on its own
        (
            {"synthesis": [50] * 4, "copy": [40, 40], "table": [60] * 4},
            {"baseline": "table"},
            "",
        ),
        (
            {"synthesis": [50, 50, 90, 90], "copy": [60, 60]},
            {"outcome": "unclear", "synthesis": 50},
            "2 of 4 cases",
        ),
        # a baseline without error is worse to lose to and a tie to reach
        ({"synthesis": [1] * 4, "copy": [0] * 4}, {"outcome": "worse", "share": None}, ""),
        ({"synthesis": [0] * 4, "copy": [0] * 4}, {"outcome": "unclear", "share": 0}, ""),
        # training cases are never a clear success but may be a failure
        (
            {"not_held_out": CLAUSE, "synthesis": [1] * 6, "copy": [9] * 6},
            {"outcome": "unclear"},
            CLAUSE,
        ),
        (
            {"not_held_out": CLAUSE, "synthesis": [9] * 4, "copy": [1] * 4},
            {"outcome": "worse"},
            "",
        ),
    ],
)
def test_the_verdict_on_a_few_errors_is_the_one_known_by_hand(errors, expected, said):
    found = on(**errors)
    assert {name: getattr(found, name) for name in expected} == expected
    assert said in found.sentence


def verdicts(scores=None, **header):
    """The verdicts on six cases of a good CT and a bad T2, or on other scores."""
    good_and_bad = {"ct": both(mae=(5, 9)), "t2": both(mae=(9, 5))}
    return made_scores(scores or good_and_bad, **header).verdicts


def test_each_target_has_a_line_and_is_no_success_where_truths_were_given_trained_on_or_copied():
    ct, t2 = verdict_lines(verdicts())
    assert ct.startswith("ct: ")
    assert t2.startswith("t2: ")
    given = verdicts(given_truth=["ct"])
    assert [target.outcome for target in given] == ["unknown", "worse"]
    trained, _ = verdicts(trained_on=["c1"])
    assert trained.outcome == "unclear"
    assert "1 of 6 cases" in trained.sentence
    unowned = {"code": UNOWNED, "grade": "caution", "text": ""}
    assert verdicts(messages=[unowned])[0].outcome == "unclear"
    copy = {"code": "truth-image", "grade": "do not trust", "text": "", "case": "c1/ct"}
    assert verdicts(messages=[copy])[0].outcome == "unclear"
    away = [{**copy, "grade": "caution", "case": f"c{number}/ct"} for number in range(6)]
    assert verdicts(messages=away[:2])[0].outcome == "better"
    assert verdicts(messages=away)[0].outcome == "unclear"
    alone = {"ct": {"synthesis": {"mae": [5] * 6}}}
    doubted, plain = (verdicts(alone, messages=said)[0].sentence for said in (away, []))
    assert doubted != plain
    assert "6 of 6 cases" in doubted


def test_a_better_model_names_the_tissues_in_which_the_baseline_is_better():
    scores = {
        "mae": (5, 9),
        "fat.mae": (93.0, 47.0),
        "air.mae": (20.0, 37.0),
        "bone.mae": (60.0, 50.0),
    }
    regions = dict.fromkeys(("fat", "air", "bone"), "")
    (ct,) = verdicts({"ct": both(**scores)}, regions=regions)
    assert (ct.outcome, ct.worse_in) == ("better", ("fat", "bone"))
    assert all(text in ct.sentence for text in ("93.0", "47.0", "60.0", "50.0"))


def both(**scores):
    """Scores of six equal cases by method: key=(of the synthesis, of its copy)."""
    return {
        method: {key: [pair[number]] * 6 for key, pair in scores.items()}
        for number, method in enumerate(("synthesis", "copy"))
    }


def test_where_most_truths_are_at_fault_there_is_no_verdict_on_the_rest():
    def of(wrong, scored=1):
        faults = {f"c{number}/ct": {} for number in range(1, 1 + wrong)} | {"c0/t1": {}}
        values = {"synthesis": {"mae": [90.0] * scored}, "copy": {"mae": [60.0] * scored}}
        (found,) = verdicts({"ct": values}, wrong_truths=faults)
        return found

    assert of(1).outcome == "worse"
    assert of(2).outcome == "unknown"
    assert "2 of 3" in of(2).sentence
    assert of(2, scored=3).outcome == "worse"
