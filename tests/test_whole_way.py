"""Every task and every method on the whole way: prepare, train, synth and evaluate, through the command line."""

import json

import nibabel as nib
import numpy as np
import pytest

from voxlate.system.files import read_json

UNET = 'net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }'
UNET_3D = UNET.replace("blocks = 1", 'blocks = 1, kernel = "3x3x3"')
BRAN_3D = (
    'net = { kind = "bran", width = 4, stages = 2, regions = 0, norm = "instance", dimensions = 3 }'
)
RESNET = 'net = { kind = "resnet", width = 4, blocks = 1 }'
REGRESSION = 'method = { kind = "regression" }'
DIFFUSION = 'method = { kind = "diffusion", clip = [-1, 1] }'
CRITIC = "critic = { widths = [4, 4] }"
RESNET_3D = RESNET.replace("blocks = 1", "blocks = 1, dimensions = 3")
PATCHES = 'critic = { widths = [4, 4], output = "patches" }'
SLICES = f'[[stages]]\nname = "slices"\n{DIFFUSION}\n{UNET}\ntrain = {{ steps = 2, batch = 2 }}'
PATCHES_3D = PATCHES.replace("]", '], norm = "instance", dimensions = 3')
PREDICTOR = (
    f'[[stages]]\nname = "predictor"\n{REGRESSION}\n{UNET}\ntrain = {{ steps = 2, batch = 2 }}'
)
AUTOENCODER = (
    '[[stages]]\nname = "autoencoder"\nmethod = { kind = "autoencoding" }\n'
    'net = { kind = "kl_autoencoder", width = 8, multipliers = [1, 2], blocks = 1, groups = 4 }\n'
    "train = { steps = 2, batch = 2 }"
)
VOLUMETRIC = UNET.replace("middle", "volumetric = true, middle")
AUTOENCODER_3D = AUTOENCODER.replace("groups = 4", 'groups = 4, kernel = "3x3x3"')
T1_TO_T2 = 'data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }'
ALL = 'data = { source = ["t1", "t2", "ct"], target = ["t1", "t2", "ct"], patch = [1, 24, 20] }'
GAPS = ALL.replace("patch", "allow_missing = true, patch")

# what is asked of a recipe, its lines, and the modalities that synth is not given
WAYS = {
    "regression": ([T1_TO_T2, REGRESSION, UNET], []),
    "diffusion": ([T1_TO_T2, DIFFUSION, UNET], []),
    "regression_with_opponent": ([T1_TO_T2, REGRESSION, UNET, f"opponent = {{ {CRITIC} }}"], []),
    "cycle": ([T1_TO_T2, f'method = {{ kind = "cycle", {PATCHES} }}', RESNET], []),
    "inside_the_mask": (
        [T1_TO_T2, 'task = { kind = "translate", inside = true, strip = true }', DIFFUSION, UNET],
        [],
    ),
    "neighbouring_slices": ([T1_TO_T2.replace("patch", "stack = 1, patch"), REGRESSION, UNET], []),
    "volumes": ([T1_TO_T2.replace("[1, 24, 20]", "[4, 12, 12]"), REGRESSION, UNET_3D], []),
    "volumes_by_diffusion": (
        [T1_TO_T2.replace("[1, 24, 20]", "[4, 12, 12]"), DIFFUSION, UNET_3D],
        [],
    ),
    "volumes_by_pix2pix": (
        [
            T1_TO_T2.replace("[1, 24, 20]", "[4, 16, 12]"),
            REGRESSION,
            BRAN_3D,
            f'opponent = {{ gan_loss = "least_squares", critic_turns = 1, penalty = 0, {PATCHES_3D} }}',
        ],
        [],
    ),
    "volumes_by_cycle": (
        [
            T1_TO_T2.replace("[1, 24, 20]", "[4, 16, 12]"),
            f'method = {{ kind = "cycle", identity = 5, {PATCHES_3D} }}',
            RESNET_3D,
        ],
        [],
    ),
    "completion": ([ALL, 'task = { kind = "complete" }', DIFFUSION, UNET], ["t2"]),
    "completion_by_regression": (
        [ALL, 'task = { kind = "complete" }', REGRESSION, UNET],
        ["t2", "ct"],
    ),
    "completion_with_opponent": (
        [ALL, 'task = { kind = "complete" }', REGRESSION, UNET, f"opponent = {{ {PATCHES} }}"],
        ["t1"],
    ),
    "completion_of_cohorts_with_gaps": (
        [GAPS, 'task = { kind = "complete", incomplete = true }', DIFFUSION, UNET],
        ["t2"],
    ),
    "residual": (
        [T1_TO_T2, 'task = { kind = "residual", scale = 2.0 }', DIFFUSION, UNET, PREDICTOR],
        [],
    ),
    "latent": ([T1_TO_T2, 'task = { kind = "latent" }', DIFFUSION, UNET, AUTOENCODER], []),
    "latent_of_volumes": (
        [
            T1_TO_T2.replace("[1,", "[4,"),
            'task = { kind = "latent" }',
            DIFFUSION,
            VOLUMETRIC,
            AUTOENCODER_3D,
        ],
        [],
    ),
    "volumetric_layers_on_slices": (
        [
            T1_TO_T2.replace("[1,", "[4,"),
            'start_from = "slices"',
            DIFFUSION,
            VOLUMETRIC,
            f"{SLICES}\n{T1_TO_T2}",
        ],
        [],
    ),
}
MAPS = "critic = { widths = [4, 4], output = 'patches', maps = 3, separate = true }"
LEAST_SQUARES = (
    f"opponent = {{ gan_loss = 'least_squares', penalty = 0, critic_turns = 1, {MAPS} }}"
)
COMPLETION = 'task = { kind = "complete", curriculum = [[0.5, 0.5]] }'
BASELINES = {  # of paper 003: the network, and the losses of what it gives besides its image
    "mm_gan": ("widths = [4, 8]", ""),
    "mm_syn": (
        "widths = [4, 8], latent = 4, decoder = 4",
        "reconstructions = 1, images_by_latent = 1, latent_variance = 0.5",
    ),
    "hi_net": ("width = 4", "reconstructions = 0.6"),
    "coca_gan": ("widths = [4, 8], classes = 2", "modality_logits = 0.001, segmentation = 0.01"),
    "ucd_gan": ("width = 4, blocks = 1", "reconstructions = 0.1, codes = 0.01"),
}
for name, (net, extras) in BASELINES.items():
    WAYS[f"completion_by_{name}"] = (
        [
            ALL.replace("patch", "labels = ['seg'], patch") if name == "coca_gan" else ALL,
            COMPLETION,
            f'method = {{ kind = "regression", extras = {{ {extras} }} }}',
            f'net = {{ kind = "{name}", {net} }}',
            LEAST_SQUARES if "gan" in name else "",
        ],
        ["t2"],
    )
TOP = [
    'title = "tiny"',
    "train = { steps = 2, batch = 2, validate_every = 1, validation_items = 2 }",
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
    from voxlate.cases.prepare import prepare

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
        prepare(folder / name, folder / f"{name}_prepared", workers=1)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_a_task_and_a_method_go_the_whole_way(way, cohorts, voxlate, tmp_path):
    lines, missing = WAYS[way]
    cohort = cohorts / ("gaps" if "gaps" in way else "full")
    (tmp_path / "own.toml").write_text(
        "\n".join([*TOP, *(line for line in lines if not line.startswith("[[")), *BELOW])
    )
    with (tmp_path / "own.toml").open("a") as file:
        file.write("\n".join(line for line in lines if line.startswith("[[")))
    run, out = tmp_path / "run", tmp_path / "out"
    ran = [
        voxlate(
            "train",
            tmp_path / "own.toml",
            "--data",
            f"{cohort}_prepared",
            "--out",
            run,
            "--device",
            "cpu",
        )
    ]
    left_out = [word for name in missing for word in ("--missing", name)]
    ran.append(voxlate("synth", run, cohort / "case0", "--out", out, *left_out, "--device", "cpu"))
    ran.append(voxlate("evaluate", out, "--truth", cohort, "--json"))
    assert [one.code for one in ran] == [0, 0, 0], "\n".join(one.err for one in ran)
    scores = json.loads(ran[-1].out)["modalities"]
    assert sorted(scores) == sorted(missing or ["t2"])
    for name, part in scores.items():
        assert part["answers"]["synthesis"]["mae"]["mean"] >= 0
        (file,) = out.glob(f"case0/*{name}.nii.gz")
        image = nib.load(file)
        assert np.isfinite(image.get_fdata()).all()
        assert np.allclose(image.affine, np.diag([-2.0, -2.0, 3.0, 1.0]))  # the scan's own grid
        assert image.shape == (20, 24, 6)


def test_an_autoencoder_alone_reconstructs_the_truth_and_says_that_it_is_a_bound(
    cohorts, voxlate, tmp_path
):
    lines = [T1_TO_T2, 'method = { kind = "autoencoding" }', AUTOENCODER.splitlines()[3]]
    (tmp_path / "own.toml").write_text("\n".join([*TOP, *lines, *BELOW]))
    trained = voxlate(
        "train",
        tmp_path / "own.toml",
        "--data",
        cohorts / "full_prepared",
        "--out",
        tmp_path / "run",
    )
    assert trained.code == 0, trained.err
    made = voxlate("synth", tmp_path / "run", cohorts / "full" / "case0", "--out", tmp_path / "out")
    assert made.code == 0, made.err
    stated = read_json(tmp_path / "out" / "case0" / "provenance.json")
    assert list(stated["inputs"]) == ["t2"]
    assert "reconstructed from itself" in " ".join(one["text"] for one in stated["warnings"])
    assert "reconstructed from itself" in made.err
