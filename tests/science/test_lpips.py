"""LPIPS against the published network's values, against its formula written out, and through `evaluate`."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from made_volumes import save_pair
from refusals import refuses
from rows import every_row
from voxlate.base.files import read_json
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.science.nets.lpips import SCALE, SHIFT, Lpips, load_lpips


def made_up() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    found = {}
    for name, weight in Lpips().state_dict().items():
        values = torch.randn(weight.shape, generator=draw)
        values /= max(1, np.prod(weight.shape[1:])) ** 0.5
        found[name] = values.abs() if name.startswith("lin") else values
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "alex.safetensors"
    save_file(made_up(), path)
    return path


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


def test_lpips_is_its_formula(weights):
    score = load_lpips(weights).cpu()
    a, b = np.random.default_rng(1).random((2, 1, 64, 64), np.float32)
    expected = 0.0
    x, y = ((torch.from_numpy(one).expand(1, 3, -1, -1) * 2 - 1) for one in (a, b))
    for number, end in enumerate((2, 5, 8, 10, 12)):  # the convolutions and their ReLUs
        shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        units = [F.normalize(score.features[:end]((one - shift) / scale)) for one in (x, y)]
        apart = (units[0] - units[1]) ** 2 * score.get_buffer(f"lin{number}")
        expected += float(apart.sum(1).mean())
    assert score(a, b)[0] == pytest.approx(expected, rel=1e-5)


@every_row("change", [{}, {"lin3": None}, {"features.0.weight": torch.zeros(64, 3, 3, 3)}])
def test_weights_that_are_absent_or_of_another_network_are_refused(change, tmp_path):
    path = tmp_path / "file"
    if change:
        state = made_up() | change
        save_file({name: one for name, one in state.items() if one is not None}, path)
    with refuses(next(iter(change), "No such file")):
        load_lpips(path)


def test_evaluate_scores_lpips_slice_by_slice_and_says_by_which_weights(voxlate, weights, tmp_path):
    draw = np.random.default_rng(2)
    truth, made = draw.uniform(0, 200, (2, 4, 36, 36)).astype(np.float32)
    made[1] = truth[1]
    grid = np.diag([2.0, 2.0, 5.0, 1.0])
    folders = save_pair(tmp_path, truth, made, "cbf", "ml/100g/min", grid)
    voxlate("evaluate", folders[0], "--truth", folders[1], "--lpips", weights).done()
    part = read_json(folders[0] / "metrics.json")["modalities"]["cbf"]
    seen = [image[:, ::-1, ::-1] / 200 for image in (truth, made)]  # as radiologists look at it
    expected = load_lpips(weights)(*seen)
    assert expected[1] == 0
    assert part["answers"]["synthesis"]["lpips"]["mean"] == pytest.approx(expected.mean(), rel=1e-4)
    assert part["lpips"].startswith("AlexNet v0.1 (weights ")
    assert "lpips" not in evaluate(*folders).rows[0].scores


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
    with refuses("lin0"):
        load_lpips("bare")
