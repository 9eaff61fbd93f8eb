"""Laws are tried on twenty examples, the same in every run, with no limit on the time of one."""

from hypothesis import settings

settings.register_profile("diffusion", max_examples=20, deadline=None, derandomize=True)
settings.load_profile("diffusion")
