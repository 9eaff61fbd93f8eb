"""Every task and every method on the whole way: prepare, train, synth and evaluate, through the command line."""

import nibabel as nib
import numpy as np
import pytest

UNET = 'net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }'
BRAN_3D = (
    'net = { kind = "bran", width = 4, stages = 2, regions = 0, norm = "instance", dimensions = 3 }'
)
RESNET = 'net = { kind = "resnet", width = 4, blocks = 1 }'
REGRESSION = 'method = { kind = "regression" }'
DIFFUSION = 'method = { kind = "diffusion", clip = [-1, 1] }'
CRITIC = "critic = { widths = [4, 4] }"
RESNET_3D = RESNET.replace("blocks = 1", "blocks = 1, dimensions = 3")
PATCHES = 'critic = { widths = [4, 4], output = "patches" }'
PATCHES_3D = PATCHES.replace("]", '], norm = "instance", dimensions = 3')
VOLUMETRIC = UNET.replace("middle", "volumetric = true, middle")
T1_TO_T2 = 'data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }'
ALL = 'data = { source = ["t1", "t2", "ct"], target = ["t1", "t2", "ct"], patch = [1, 24, 20] }'
GAPS = ALL.replace("patch", "allow_missing = true, patch")
VOLUMES = T1_TO_T2.replace("[1, 24, 20]", "[4, 16, 12]")
INSIDE = 'kind = "translate", inside = true, strip = true'
INCOMPLETE = 'kind = "complete", incomplete = true'
PIX2PIX_3D = f'gan_loss = "least_squares", critic_turns = 1, penalty = 0, {PATCHES_3D}'
CYCLE_3D = f'kind = "cycle", identity = 5, {PATCHES_3D}'

# What is asked of a recipe, its lines, and the modalities that synth is not given. What other tests take the whole way
# is not here: plain regressions and diffusions, residuals, neighbouring slices, latents, and volumetric layers that are added to slices.
WAYS = {
    "regression_with_opponent": ([T1_TO_T2, REGRESSION, UNET, f"opponent = {{ {CRITIC} }}"], []),
    "cycle": ([T1_TO_T2, f'method = {{ kind = "cycle", {PATCHES} }}', RESNET], []),
    "inside_the_mask": ([T1_TO_T2, f"task = {{ {INSIDE} }}", DIFFUSION, UNET], []),
    "volumes_by_diffusion": ([VOLUMES.replace("16, 12", "12, 12"), DIFFUSION, VOLUMETRIC], []),
    "volumes_by_pix2pix": ([VOLUMES, REGRESSION, BRAN_3D, f"opponent = {{ {PIX2PIX_3D} }}"], []),
    "volumes_by_cycle": ([VOLUMES, f"method = {{ {CYCLE_3D} }}", RESNET_3D], []),
    "completion": ([ALL, 'task = { kind = "complete" }', DIFFUSION, UNET], ["t2", "ct"]),
    "completion_of_cohorts_with_gaps": (
        [GAPS, f"task = {{ {INCOMPLETE} }}", DIFFUSION, UNET],
        ["t2"],
    ),
}
MAPS = "critic = { widths = [4, 4], output = 'patches', maps = 3, separate = true }"
LEAST_SQUARES = (
    f"opponent = {{ gan_loss = 'least_squares', penalty = 0, critic_turns = 1, {MAPS} }}"
)
COMPLETION = 'task = { kind = "complete", curriculum = [[0.5, 0.5]] }'
BASELINES = [  # of paper 003: the network, and the losses of what it gives besides its image
    ("mm_gan", "widths = [4, 8]", ""),
    (
        "mm_syn",
        "widths = [4, 8], latent = 4, decoder = 4",
        "reconstructions = 1, images_by_latent = 1, latent_variance = 0.5",
    ),
    ("hi_net", "width = 4", "reconstructions = 0.6"),
    (
        "coca_gan",
        "widths = [4, 8], classes = 2",
        "modality_logits = 0.001, segmentation = 0.01",
    ),
    ("ucd_gan", "width = 4, blocks = 1", "reconstructions = 0.1, codes = 0.01"),
]
for name, net, extras in BASELINES:
    lines = [
        ALL.replace("patch", "labels = ['seg'], patch") if name == "coca_gan" else ALL,
        COMPLETION,
        f'method = {{ kind = "regression", extras = {{ {extras} }} }}',
        f'net = {{ kind = "{name}", {net} }}',
        LEAST_SQUARES if "gan" in name else "",
    ]
    WAYS[f"completion_by_{name}"] = (lines, ["t2"])
TOP = [
    'title = "tiny"',
    "train = { steps = 2, batch = 2, validate_every = 0, validation_items = 2 }",
    'synth = { sampler = "ddim", steps = 2 }',
]
BELOW = [
    "[intensity]",
    't1 = { kind = "percentile", low = 0, high = 99.5 }',
    't2 = { kind = "percentile", low = 0, high = 99.5 }',
    'ct = { kind = "window", low = -1000, high = 200 }',
    "",
]


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory, small_head):
    """Six small cases with all modalities, and six of which some lack one; each as scans, a label map, and prepared."""
    from preparing import prepare

    folder = tmp_path_factory.mktemp("cohorts")
    for name in ("full", "gaps"):
        for number in range(6):
            case = folder / name / f"case{number}"
            small_head(case, number, modalities=("t1", "t2", "ct"))
            t1 = nib.load(case / "t1.nii.gz")
            bright = (t1.get_fdata() > 650).astype(np.uint8)
            nib.save(nib.Nifti1Image(bright, t1.affine), case / "seg.nii.gz")
            if name == "gaps" and number % 2:
                (case / ("t2.nii.gz" if number == 1 else "ct.nii.gz")).unlink()
        prepare(folder / name, folder / f"{name}_prepared", workers=1, audit=False)
    return folder


# the others are slow tests
QUICK = ("completion_by_mm_gan",)
SLOW = [pytest.param(way, marks=pytest.mark.slow) for way in WAYS if way not in QUICK]


@pytest.mark.parametrize("way", [*QUICK, *SLOW])
def test_a_task_and_a_method_go_the_whole_way(way, cohorts, typed, tmp_path):
    lines, missing = WAYS[way]
    cohort = "gaps" if "gaps" in way else "full"
    (tmp_path / "own.toml").write_text("\n".join([*TOP, *lines, *BELOW]))
    left_out = " ".join(f"--missing={name}" for name in missing)
    typed(f"train own.toml --data {cohorts}/{cohort}_prepared --out run").done()
    typed(f"synth run {cohorts}/{cohort}/case0 --out out {left_out}").done()
    scored = typed(f"evaluate out --truth {cohorts}/{cohort} --json").done()
    scores = scored.json["modalities"]
    assert sorted(scores) == sorted(missing or ["t2"])
    for name, part in scores.items():
        assert part["answers"]["synthesis"]["mae"]["mean"] >= 0
        (file,) = tmp_path.glob(f"out/case0/*{name}.nii.gz")
        image = nib.load(file)
        assert np.isfinite(image.get_fdata()).all()
        assert np.allclose(image.affine, np.diag([-2.0, -2.0, 3.0, 1.0]))  # the scan's own grid
        assert image.shape == (20, 24, 6)
