"""LPIPS against the published network's values, against its formula written out, and through `evaluate`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume
from voxlate.science.methods.feature_loss import FeatureLoss
from voxlate.science.nets.lpips import SCALE, SHIFT, SMALLEST, Lpips, load_lpips, mean_lpips, shapes


def made_up(seed=0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes().items():
        values = torch.randn(shape, generator=draw) / max(1, np.prod(shape[1:])) ** 0.5
        found[name] = values.abs() if name.startswith("lin") else values
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "alex.safetensors"
    save_file(made_up(), path)
    return path


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).random((2, 3, 48, 40)).astype(np.float32)


def test_lpips_gives_the_published_networks_distances(shared):
    folder = shared / "data" / "weights"
    if not (folder / "lpips_alex.safetensors").is_file():
        pytest.skip("the weights of LPIPS are not here")
    score, known = (
        load_lpips(folder / "lpips_alex.safetensors"),
        np.load(folder / "lpips_alex_reference.npz"),
    )
    found = score.layers(torch.from_numpy(known["x"]), torch.from_numpy(known["y"])).cpu().numpy()
    np.testing.assert_allclose(found, known["per_layer_float64"], rtol=1e-4)
    np.testing.assert_allclose(found.sum(1), known["lpips_float64"], rtol=1e-5)


def test_lpips_is_its_formula():
    """The first layer looks at the middle of its window and gives (v, 1) for the colour value v; the others pass on.

    Two constant pictures: unit vectors (v, 1) / |(v, 1)|, of which the heads weigh both channels.
    """
    layers = []
    for number, size in enumerate((11, 5, 3, 3, 3)):
        layer = torch.nn.Conv2d(2 if number else 3, 2, size, padding=size // 2 if number else 0)
        torch.nn.init.zeros_(layer.weight)
        with torch.no_grad():
            layer.weight[0, 0, size // 2, size // 2] = 1
            layer.weight[1, 1, size // 2, size // 2] = float(number > 0)
            layer.bias[:] = torch.tensor([0.0, 0.0 if number else 1.0])
        layers += [layer, torch.nn.ReLU()]
    heads = [torch.tensor([1.0, 2.0]) * (number + 1) for number in range(5)]
    score = Lpips(torch.nn.Sequential(*layers), tuple(heads), "made up")
    grey = (0.6, 0.9)
    values = [(2 * g - 1 - SHIFT[0]) / SCALE[0] for g in grey]
    unit = [np.array([v, 1.0]) / np.hypot(v, 1) for v in values]
    expected = 15 * float(
        (np.array([1.0, 2.0]) * (unit[0] - unit[1]) ** 2).sum()
    )  # 15 = 1 + 2 + 3 + 4 + 5
    a, b = (np.full((1, 64, 64), g, np.float32) for g in grey)
    assert score(a, b)[0] == pytest.approx(expected, rel=1e-5)


def test_lpips_says_how_large_a_slice_must_be(weights):
    score = load_lpips(weights)
    enough, small = (
        np.zeros((1, SMALLEST, SMALLEST), np.float32),
        np.zeros((1, SMALLEST, SMALLEST - 1), np.float32),
    )
    assert np.isfinite(score(enough, enough + 0.5)).all()
    with pytest.raises(BadInput, match="found 30×31"):
        score(small, small)


def test_weights_that_are_absent_or_of_another_network_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"expected LPIPS weights .* found no file"):
        load_lpips(tmp_path / "nowhere.safetensors")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(BadInput, match="expected LPIPS weights as a safetensors file"):
        load_lpips(tmp_path / "text")
    state = made_up()
    save_file({name: value for name, value in state.items() if name != "lin3"}, tmp_path / "fewer")
    with pytest.raises(BadInput, match=r"expected lin3 of shape 1×256×1×1 .* found none"):
        load_lpips(tmp_path / "fewer")
    save_file({**state, "features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg")
    with pytest.raises(
        BadInput, match=r"expected features.0.weight of shape 64×3×11×11 .* found 64×3×3×3"
    ):
        load_lpips(tmp_path / "vgg")


def test_evaluate_scores_lpips_slice_by_slice_and_says_by_which_weights(voxlate, weights, tmp_path):
    draw = np.random.default_rng(2)
    truth, made = draw.uniform(0, 200, (2, 4, 36, 36)).astype(np.float32)
    made[1] = truth[1]
    for folder, data in (("truth", truth), ("out", made)):
        affine = np.diag([2.0, 2.0, 5.0, 1.0])
        write_volume(
            tmp_path / folder / "p0" / "cbf.nii.gz",
            Volume(data[None], affine, "ml/100g/min", "cbf"),
        )
    voxlate(
        "evaluate", tmp_path / "out", "--truth", tmp_path / "truth", "--lpips", weights, "--all"
    ).done()
    part = read_json(tmp_path / "out" / "metrics.json")["modalities"]["cbf"]
    seen = [image[:, ::-1, ::-1] / 200 for image in (truth, made)]  # as radiologists look at it
    expected = load_lpips(weights)(*seen)
    assert expected[1] == 0
    assert part["answers"]["synthesis"]["lpips"]["mean"] == pytest.approx(expected.mean(), rel=1e-4)
    assert part["lpips"].startswith("AlexNet v0.1 (weights ")
    assert "lpips" not in evaluate(tmp_path / "out", tmp_path / "truth").rows[0].scores


def test_the_losses_of_autoencoders_and_of_features_are_the_score_and_have_gradients(
    weights, pictures
):
    true, made = (
        torch.from_numpy(one)[:, None, None] for one in pictures
    )  # [N, 1, 1, H, W] in [0, 1]
    made.requires_grad_()
    loss = mean_lpips(f"{weights}", true * 2 - 1, made * 2 - 1)
    assert loss.item() == pytest.approx(load_lpips(weights)(*pictures).mean(), rel=1e-5)
    assert loss == FeatureLoss(network=f"{weights}").distance(made * 2 - 1, true * 2 - 1)
    (gradient,) = torch.autograd.grad(loss, made)
    assert gradient.abs().sum() > 0


def test_published_files_become_weights_by_the_documented_lines(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = made_up()
    named = {key: value for key, value in state.items() if key.startswith("features.")}
    torch.save(named | {"classifier.1.bias": torch.ones(2)}, "alexnet-owt-7be5be79.pth")
    heads = {f"{key}.model.1.weight": state[key] for key in state.keys() - named.keys()}
    torch.save(heads, "alex.pth")
    torch.save({"state_dict": named}, "model.ckpt")
    page = (Path(__file__).parents[2] / "docs" / "guides" / "importing.md").read_text()
    exec(page.split("```python\n")[-1].partition("```")[0], {})
    assert load_lpips("ALEXNET").name == load_lpips(weights).name
    assert load_file("KL_F4").keys() == named.keys()
    save_file(named, "bare")
    with pytest.raises(BadInput, match=r"expected lin0 .* found none"):
        load_lpips("bare")
