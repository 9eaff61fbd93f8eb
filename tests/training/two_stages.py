"""A tiny recipe of two stages that tests of stopping and of going on share."""

TWO_STAGES = """
title = "tiny in two stages"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20], augment = { flip_lr = 0.5, rotate_degrees = 10 } }
intensity = { t1 = { kind = "percentile" }, t2 = { kind = "percentile" } }
task = { kind = "residual" }
method = { kind = "diffusion" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, middle_attention = false, dropout = 0.1 }
train = { steps = 12, batch = 2, workers = 0, save_every = 4, validate_every = 6, log_every = 1 }
synth = { sampler = "ddim", steps = 2 }
[[stages]]
name = "predictor"
method = { kind = "regression", ssim = 0.2 }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 6, batch = 2, workers = 0, save_every = 4, validate_every = 0, log_every = 1 }
"""
