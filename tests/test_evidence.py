"""The evidence ledger: what is measured again, what counts as worse, and whether the default set fits its time."""

from dataclasses import replace

import pytest

import evidence
import evidence_rows
import ledger
from rows import every_row


@pytest.fixture
def result():
    """A result that others are made from."""
    return ledger.Result(
        *("aaaaaaaa", "2026-01-01", "AMD EPYC, bfloat16", "heads-case37-3min"),
        steps="220+130",
        minutes=3.02,
        mae=0.07,
        ssim=0.68,
        gradient_ratio=0.6,
        bone_dice=0.8,
        coverage=0.9,
        coverages="0.910 0.890",
        interval_r=0.4,
    )


def test_a_ledger_is_read_as_it_was_written(result, tmp_path):
    path = tmp_path / "evidence.tsv"
    bare = ledger.Result("bbbbbbbb+", "2026-01-02", "Intel Xeon, float32", "starter-x")
    ledger.append(path, [result])
    ledger.append(path, [bare])
    assert ledger.read(path) == [result, bare]
    assert path.read_text().splitlines()[0].split("\t") == list(ledger.COLUMNS)


def test_a_row_is_measured_once_by_commit_and_machine(result):
    asked = (result.commit, result.machine, [result.row])
    assert ledger.is_measured([result], *asked)
    for place, other in ((0, "bbbbbbbb"), (1, "other"), (2, ["other"])):
        others = (*asked[:place], other, *asked[place + 1 :])
        assert not ledger.is_measured([result], *others)


@every_row(
    "score, within, beyond",
    [
        ("mae", 0.0720, 0.0723),
        ("ssim", 0.671, 0.669),
        ("gradient_ratio", 1.439, 1.441),
        ("bone_dice", 0.771, 0.769),
        ("coverage", 0.929, 0.931),
        ("interval_r", 0.351, 0.349),
    ],
)
def test_a_score_is_worse_beyond_its_spread(result, score, within, beyond):
    for value, count in ((within, 0), (beyond, 1)):
        later = replace(result, commit="bbbbbbbb", **{score: value})
        found = ledger.worse([result, later], "bbbbbbbb")
        assert len(found) == count
        assert all(score in sentence for sentence in found)


def test_the_best_earlier_result_counts_and_the_last_repeat_of_a_commit(result):
    last = replace(result, commit="bbbbbbbb", mae=0.09)
    now = replace(result, commit="cccccccc", mae=0.08)
    assert len(ledger.worse([result, last, now], "cccccccc")) == 1
    assert ledger.worse([result, last, now, replace(now, mae=0.07)], "cccccccc") == []


def test_other_machines_later_and_uncommitted_results_are_not_compared(result):
    worse = replace(result, commit="bbbbbbbb", mae=0.1)
    other = replace(result, machine="Intel Xeon, float32")
    dirty = replace(result, commit="aaaaaaaa+")
    assert ledger.worse([other, dirty, worse], "bbbbbbbb") == []
    assert ledger.worse([worse, result], "bbbbbbbb") == []


def test_all_rows_fit_forty_minutes_and_heads_that_report_neither_train_nor_validate():
    assert evidence_rows.planned_minutes(evidence_rows.all_rows()) <= 40  # of two cores
    for head in evidence_rows.REPORTING:
        for parts in (evidence_rows.parts_of_heads(head), evidence_rows.parts_of_intervals(head)):
            assert parts[head] == "test"
            assert sorted(parts) == sorted(evidence_rows.HEADS)
            assert [*parts.values()].count("test") == 1


def test_a_row_whose_scans_are_absent_is_skipped_and_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evidence, "kind_of_machine", lambda: "a machine")
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "evidence.tsv")
    monkeypatch.setattr(evidence, "measure_in_process", lambda *_: [{"mae": 0.07}])
    place = str(tmp_path / "absent")
    arguments = ["--rows", "heads-case41*", "phantoms-t1*", "--data", place, "--work", place]
    monkeypatch.setattr("sys.argv", ["evidence.py", *arguments])
    assert evidence.main() == 0
    assert "heads-case41-3min: skipped" in capsys.readouterr().out
    assert [one.row for one in ledger.read(evidence.RESULTS)] == ["phantoms-t1-ct-3min"]


def test_a_row_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    def measured(row, options, folder):
        if row.subject == "case37":
            raise OSError("no space")
        return [{"mae": 0.07, "steps": "3"}]

    monkeypatch.setattr(evidence, "measure_in_process", measured)
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "evidence.tsv")
    options = evidence.parser().parse_args(["--work", str(tmp_path)])
    rows = [row for row in evidence.all_rows() if row.kind == "intervals"]
    assert evidence.measure_all(rows, options, "aaaaaaaa", "a machine") == 1
    (found,) = ledger.read(tmp_path / "evidence.tsv")
    assert (found.row, found.mae) == ("intervals-case41-3min", 0.07)
    assert "intervals-case37-3min: failed" in capsys.readouterr().out
