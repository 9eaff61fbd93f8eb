"""The command line: what its options reach."""

from voxlate.base.files import read_json


def test_an_option_of_synthesis_may_be_named_as_in_a_recipe(typed, run, cohort, tmp_path):
    stated = []
    for name in ("mirror", "synth.mirror"):
        typed(f"synth run cohort/case0 --out {name} --set batch=2 --set {name}=true").done()
        stated.append(read_json(tmp_path / name / "case0" / "provenance.json")["synth"])
    assert stated[0] == stated[1]
    assert stated[0]["mirror"] is True
