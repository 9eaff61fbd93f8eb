"""What `prepare` says of patients that are held out."""

from rows import every_row
from voxlate.base.files import read_json


def test_the_patients_held_out_are_named(typed, cohort):
    command = "prepare cohort --shares 4 1 1 --out out --no-audit"
    said = typed(command).out
    held_out = typed(f"{command} --json").json["held_out"]
    ((val,), (test,)) = held_out["val"], held_out["test"]
    assert f"held out from training: val {val} (1); test {test} (1)" in said


@every_row("patients", ["each", "^(case.)"])
def test_patients_by_a_rule_are_kept_as_they_were_typed(typed, cohort, tmp_path, patients):
    out = tmp_path / "prepared"
    assert typed(f"prepare {cohort} --no-audit --patients {patients} --out {out}").code == 0
    assert read_json(out / "cohort.json")["provenance"]["patients"] == patients
