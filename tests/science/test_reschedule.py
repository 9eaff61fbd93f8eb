"""A model may be sampled under another schedule than it was trained with: its network goes by the log-SNR."""

import torch
from exact import SCHEDULES, for_every

from voxlate.science.diffusion.prediction import diffuse, reschedule

SWAPPED = ("cosine", "sigmoid", "betas_of_002", "exponential_ve", "flow")


@for_every(trained=["betas_of_000", "flow", "exponential_ve"], schedule=SWAPPED)
def test_a_network_sees_states_as_in_training_under_another_schedule(trained, schedule):
    """alpha·x0 + sigma·eps at the same log-SNR, where training reached it; else a state of the size at the end."""
    trained, schedule = SCHEDULES[trained], SCHEDULES[schedule]
    t, end = torch.linspace(0.02, 1, 30, dtype=torch.float64), torch.tensor(1.0)
    draw = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 30, 1, 1, 2, 2, generator=draw, dtype=torch.float64)
    seen = []
    reschedule(lambda *given: seen.extend(given), trained, schedule)(
        diffuse(x0, eps, *schedule(t)), t
    )
    x, seen_t = seen
    reached = schedule.log_snr(t) >= trained.log_snr(end)
    assert reached.any()
    for found, expected in (
        (trained.log_snr(seen_t), schedule.log_snr(t)),
        (x, diffuse(x0, eps, *trained(seen_t))),
    ):
        torch.testing.assert_close(found[reached], expected[reached], rtol=0, atol=1e-8)
    if not reached.all():
        size = x[~reached].square().mean() / eps[~reached].square().mean()
        assert 0.8 < float(size / trained.start_std(end) ** 2) < 1.25


# The whole method, with a network that knows two tissues by the log-SNR alone
