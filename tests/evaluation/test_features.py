"""Feature vectors of pictures: what the built-in ones see, and the ViT's against its own parts."""

import itertools
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, zoom

from refusals import refuses
from rows import every_row, slow
from vits import save_vit
from voxlate.evaluation.scoring.distances import frechet
from voxlate.evaluation.scoring.features import (
    REACH,
    SIDE,
    TEXTURE,
    digest,
    features_for,
    load_vit,
    responses,
    stretch_positions,
)


def scenes(seed, count=40, size=48):
    """Made-up slices: an ellipse with sharp-edged organs, and a little noise."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    found = []
    for _ in range(count):
        image = np.where((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1, 0.35, 0.0)
        for _ in range(8):
            at, width = draw.uniform(-0.6, 0.6, 2), draw.uniform(0.05, 0.3, 2)
            inside = ((x - at[0]) / width[0]) ** 2 + ((y - at[1]) / width[1]) ** 2 < 1
            image = np.where(inside, image + draw.uniform(-0.2, 0.35), image)
        found.append(gaussian_filter(image, 0.7) + draw.normal(0, 0.01, image.shape))
    return np.clip(found, 0, 1).astype(np.float32)


NOISE = np.random.default_rng(2).normal(size=(40, 48, 48))
OTHERS = scenes(1)  # not the truth's own scenes: a distance between sets knows no pairs


@slow
@every_row(
    ("change", "amounts"),
    [
        (lambda width: gaussian_filter(OTHERS, (0, width, width)), (0, 1, 2, 4)),
        (lambda level: OTHERS + level * NOISE, (0, 0.04, 0.08, 0.16)),
        (lambda gain: OTHERS * gain, (1, 0.8, 0.6, 0.4)),
        (lambda gain: OTHERS * gain, (1, 1.15, 1.3, 1.5)),
        (lambda offset: OTHERS + offset, (0, 0.05, 0.1, 0.2)),
    ],
)
def test_the_more_a_picture_is_spoilt_the_larger_is_the_texture_distance(change, amounts):
    truth = TEXTURE(scenes(0))
    spoilt = [np.clip(change(amount), 0, 1).astype(np.float32) for amount in amounts]
    values = [frechet(truth, TEXTURE(pictures)) for pictures in spoilt]
    assert all(later > 1.2 * earlier for earlier, later in itertools.pairwise(values)), values


def test_an_empty_picture_has_no_texture():
    (vector,) = TEXTURE(np.zeros((1, 20, 20), np.float32))
    # all of it is black
    assert vector[0] == 1
    assert np.all(vector[1:] == 0)


def test_the_filters_are_exact_on_ramps_and_parabolas():
    y, x = np.mgrid[:24, :20].astype(float)
    middle = (slice(REACH, -REACH), slice(REACH, -REACH))
    edges = responses(0.5 * x - 2 * y)[::2]
    # along 0, 45, 90 and 135 degrees
    for edge, slope in zip(edges, (0.5, -1.5 / 2**0.5, -2.0, -2.5 / 2**0.5)):
        assert np.allclose(edge[middle], slope, atol=1e-9)
    lines = responses(x**2 + 3 * x * y)[1::2]
    assert np.allclose(lines[0][middle], 2.0, atol=1e-8)
    # (1, 1) / √2: f_xx/2 + f_xy
    assert np.allclose(lines[1][middle], 1.0 + 3.0, atol=1e-8)


def test_texture_features_are_the_same_numbers_everywhere():
    """Golden: a change of any filter, scale or statistic must change the features' name, too."""
    y, x = np.mgrid[0:16, 0:12]
    (vector,) = TEXTURE(((x * y) % 7 / 6).astype(np.float32)[None])
    assert len(vector) == TEXTURE.dimensions == 44
    golden = [0.5683, 0.3090, 3.0252, 3.0500, 3.6182, 3.1980, 2.6550]
    assert vector[[0, 3, 8, 9, 16, 25, 43]] == pytest.approx(golden, abs=1e-4)


def test_pictures_of_any_size_and_batch_give_the_same_vectors():
    pictures = scenes(4, count=20, size=21)
    assert TEXTURE(pictures)[17] == pytest.approx(TEXTURE(pictures[17:18])[0], abs=1e-5)
    assert np.isfinite(TEXTURE(np.ones((1, 1, 3), np.float32))).all()


# ViT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny ViT with random weights, those of its positions, too."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vit")
    model = save_vit(path, 2)
    torch.nn.init.normal_(model.embeddings.position_embeddings)
    model.save_pretrained(path)
    return path


def test_position_embeddings_are_stretched_as_scipy_zooms_to_first_order():
    stored = torch.randn(1, 1 + 14 * 14, 5, generator=torch.Generator().manual_seed(0))
    found = stretch_positions(stored, 16)
    grid = stored[0, 1:].reshape(14, 14, 5).numpy()
    expected = zoom(grid, (16 / 14, 16 / 14, 1), order=1).reshape(-1, 5)
    assert found.shape == (1, 1 + 16 * 16, 5)
    assert torch.equal(found[:, 0], stored[:, 0])
    assert np.abs(found[0, 1:].numpy() - expected).max() < 1e-5


def test_the_vit_gives_its_class_token_after_the_last_norm(folder):
    """By hand from the encoder's parts: grey thrice, no normalisation, no pooling layer."""
    vit = load_vit(str(folder))
    picture = np.random.default_rng(0).random((1, SIDE, SIDE)).astype(np.float32)
    model, seen = vit.compute.args[0], {}
    parts = model.embeddings
    pixels = torch.from_numpy(picture)[:, None].repeat(1, 3, 1, 1)
    for module in (parts, model.layernorm):
        module.register_forward_hook(lambda module, _, output: seen.update({module: output}))
    with torch.no_grad():
        patches = parts.patch_embeddings.projection(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([parts.cls_token, patches], 1) + parts.position_embeddings
        vector = vit(picture)
    assert torch.allclose(seen[parts], tokens, atol=1e-5)
    assert vector == pytest.approx(seen[model.layernorm][:, 0].double().numpy(), abs=1e-6)
    assert vector.shape == (1, vit.dimensions) == (1, 24)
    # normed
    assert vector.mean() == pytest.approx(0, abs=1e-5)


def test_a_vits_name_tells_its_weights_apart(folder):
    vit = load_vit(str(folder))
    before = digest(vit.compute.args[0])
    assert vit.kind == "fd"
    assert len(before) == 12
    with torch.no_grad():
        vit.compute.args[0].layernorm.bias[0] += 1e-3
    assert digest(vit.compute.args[0]) != before
    assert load_vit(str(folder)).name == vit.name


def test_a_folder_without_safetensors_is_refused_even_with_a_pickle(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with refuses(r"safetensors"):
        features_for(tmp_path)


def test_weights_that_lack_a_layer_are_refused_instead_of_made_up(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    dropped = next(key for key in tensors if "layernorm" in key.split("."))
    del tensors[dropped]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    shutil.copy(folder / "config.json", tmp_path)
    with refuses(dropped):
        features_for(tmp_path)


def test_another_kind_of_model_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with refuses("bert"):
        features_for(tmp_path)


def test_the_hubs_vit_without_network_or_cache_is_one_sentence(monkeypatch, tmp_path):
    transformers = pytest.importorskip(
        "transformers", reason="the extra 'features' is not installed"
    )

    def offline(*arguments, **options):
        assert options["use_safetensors"] is True
        raise OSError("We couldn't connect to the hub\nand a long explanation")

    monkeypatch.setattr(transformers.ViTModel, "from_pretrained", offline)
    with refuses("OSError"):
        features_for("vit")


def test_a_missing_package_is_named_with_the_extra_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with refuses(r"\.\[features\]"):
        features_for("vit")
