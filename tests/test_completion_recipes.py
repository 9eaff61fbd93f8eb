"""The recipes of paper 003's baselines: alike where the paper compares them; the small ones train and synthesise."""

import nibabel as nib
import numpy as np
import pytest

from voxlate.training import recipe as recipes

MODALITIES = ("flair", "t1", "t1c", "t2")
HI_NETS = {f"hi_net_{name}": name for name in MODALITIES}
ANY = ("mm_gan", "mm_syn", "coca_gan", "ucd_gan")


@pytest.fixture(scope="module")
def tumours(tmp_path_factory, small_head):
    """Five small cases with four modalities and a label map of lesions as BraTS has; prepared, too."""
    from voxlate.checks.prepare import prepare

    folder = tmp_path_factory.mktemp("tumours")
    for number in range(5):
        case = folder / "scans" / f"case{number}"
        small_head(case, number, modalities=("t1", "t2"))
        t1 = nib.load(case / "t1.nii.gz")
        values = t1.get_fdata(dtype=np.float32)
        lesion = values > 650
        for name, more in (("t1c", 300.0), ("flair", 500.0)):
            nib.save(nib.Nifti1Image(values + more * lesion, t1.affine), case / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(4 * lesion.astype(np.uint8), t1.affine), case / "seg.nii.gz")
    prepare(folder / "scans", folder / "prepared", workers=1, audit=False)
    return folder


# Each network goes the whole way in test_whole_way.py, and takes a step in test_recipes.py.
@pytest.mark.slow
@pytest.mark.parametrize("name", [*ANY, *HI_NETS])
def test_a_small_recipe_trains_and_synthesises_what_is_missing(name, tumours, voxlate, tmp_path):
    run, out, target = tmp_path / "run", tmp_path / "out", HI_NETS.get(name, "t1c")
    small = ["data.patch=[1,24,20]", *(f"train.{key}" for key in ("epochs=1", "batch=12"))]
    sets = [f"--set={key}" for key in (*small, "train.validation_items=2")]
    left_out = ("--missing", target) if name in ANY else ()
    voxlate("train", f"{name}_small", "--data", tumours / "prepared", "--out", run, *sets).done()
    voxlate("synth", run, tumours / "scans" / "case0", "--out", out, *left_out).done()
    (made,) = (out / "case0").glob("*.nii.gz")
    assert made.name == f"{'desc-synthetic_' if name in ANY else ''}{target}.nii.gz"
    assert np.isfinite(nib.load(made).get_fdata()).all()


def test_all_baselines_see_the_same_contrasts_on_the_same_scale():
    first = recipes.read("mm_gan")
    assert tuple(first.data.target) == MODALITIES
    for name in (*ANY, *HI_NETS):
        for size in ("", "_small"):
            made = recipes.read(f"{name}{size}")
            assert made.intensity == first.intensity
            assert made.data.foreground == first.data.foreground
            assert {*made.data.source, *made.data.target} == set(MODALITIES)
    for name, target in HI_NETS.items():
        data = recipes.read(name).data
        others = [name for name in MODALITIES if name != target]
        assert (data.target, data.source) == ([target], others)


@pytest.mark.parametrize(
    ("name", "gan", "extras"),
    [
        ("mm_gan", 0.1 / 0.9, {}),
        ("mm_syn", None, {"reconstructions": 1, "images_by_latent": 1, "latent_variance": 0.5}),
        ("hi_net_t1", 1 / 100, {"reconstructions": 3 * 20 / 100}),
        ("coca_gan", 1 / 100, {"modality_logits": 0.1 / 100, "segmentation": 1 / 100}),
        ("ucd_gan", 1 / 100, {"reconstructions": 10 / 100, "codes": 1 / 100}),
    ],
)
def test_losses_have_the_weights_of_the_specification_relative_to_the_l1(name, gan, extras):
    for size in ("", "_small"):
        made = recipes.read(f"{name}{size}")
        assert made.method.loss == "l1"
        assert made.method.extras == pytest.approx(extras)
        opponent = made.opponent
        assert (opponent is None) == (gan is None)
        if opponent is not None:
            assert opponent.weight == pytest.approx(gan, rel=1e-3)
            game = (opponent.gan_loss, opponent.critic_turns, opponent.penalty)
            assert game == ("least_squares", 1, 0)
        assert made.train.clip_norm == 0
        assert made.train.optimiser.kind == "adam"
    optimiser = recipes.read(name).train.optimiser
    wanted = (1e-4, (0.9, 0.999)) if name == "mm_syn" else (2e-4, (0.5, 0.999))
    assert (optimiser.lr, optimiser.betas) == wanted
