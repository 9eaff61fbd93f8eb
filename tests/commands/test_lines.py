"""Commands print few lines."""


def test_prepare_synth_and_evaluate_of_an_ordinary_cohort_print_few_lines(typed, cohort, run):
    for line, most in (
        ("prepare cohort --out ready", 15),
        ("synth run cohort --out out", 8),
        ("evaluate out --truth cohort", 20),
    ):
        answer = typed(line)
        assert answer.code == 0, answer.err
        assert len((answer.out + answer.err).splitlines()) <= most
