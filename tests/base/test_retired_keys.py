"""Tables of earlier versions: retired keys are left out where they change nothing."""

from rows import every_row
from voxlate.base.files import ANY, without_retired

STORED = {"synth": {"steps": 2, "gone": {}}, "maps": {"t1": {"low": 0, "gone": 3}, "t2": {}}}


@every_row(
    "retired, kept",
    [
        ({"synth.gone": {}}, STORED | {"synth": {"steps": 2}}),
        ({"maps.*.gone": 0}, STORED),
        ({"maps.*.gone": ANY}, STORED | {"maps": {"t1": {"low": 0}, "t2": {}}}),
        ({"other.gone": ANY, "synth.steps.gone": ANY}, STORED),
    ],
)
def test_a_retired_key_is_left_out_at_the_value_that_changes_nothing(retired, kept):
    before = repr(STORED)
    assert without_retired(STORED, retired) == kept
    assert repr(STORED) == before
