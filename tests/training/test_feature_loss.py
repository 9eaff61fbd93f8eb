"""Losses on features of frozen networks: known distances, and trainings that take a run as their network."""

import pytest
import torch
from torch import nn

from refusals import refuses
from rows import slow
from trainings import log_lines, same_weights, weights_of
from vits import save_vit
from voxlate.science.methods.feature_loss import FeatureLoss, FrozenFeatures
from voxlate.science.nets.interface import Output
from voxlate.science.nets.vit import VitFeatures


class Pyramid(nn.Module):
    """Two convolutions on the way down, of which the second sums 2 x 2 pixels, and one on the way up."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 1, 1, bias=False)
        self.second = nn.Conv2d(1, 1, 2, stride=2, bias=False)
        self.up = nn.Conv2d(1, 1, 1, bias=False)
        for layer in (self.first, self.second, self.up):
            nn.init.ones_(layer.weight)

    def forward(self, inputs):
        h = self.second(self.first(inputs.joined[:, :, 0]))
        return Output(self.up(h.repeat_interleave(2, -1).repeat_interleave(2, -2)))


def test_the_features_are_those_of_each_size_on_the_way_down_or_of_the_named_layers():
    image = torch.arange(16.0).reshape(1, 1, 1, 4, 4)
    net, ran = Pyramid(), []
    features = FrozenFeatures(net, ["ct"], ())
    net.up.register_forward_hook(lambda *_: ran.append("up"))
    for _ in range(2):  # the first pass finds the layers, the second ends with them
        finest, coarsest = features(image)
    assert ran == ["up"]
    assert torch.equal(finest, image[:, :, 0])
    assert coarsest.flatten().tolist() == [10, 18, 42, 50]
    (only,) = FrozenFeatures(Pyramid(), ["ct"], ["up"])(image)
    assert only.shape == (1, 1, 4, 4)
    with refuses():
        FrozenFeatures(Pyramid(), ["ct"], ["third"])


@pytest.fixture
def inverse(read_tiny, fit):
    """A run from t2 to t1, whose source is the target of the tiny recipe."""
    return fit(read_tiny({"data.source": '["t2"]', "data.target": '["t1"]'}), "inverse")


@pytest.fixture
def with_features(read_tiny):
    """with_features(network): the tiny recipe with a loss on features of a run."""
    text = "[{{ network = '{}', weight = 0.5 }}]"
    return lambda network, **changes: read_tiny(
        {"method.features": text.format(network), **changes}, log_every=1
    )


@slow
def test_a_training_compares_features_of_a_run_and_leaves_them_out_of_its_weights(
    inverse, with_features, read_tiny, fit
):
    run, plain = fit(with_features(inverse.folder)), fit(read_tiny(), "plain")
    first = log_lines(run, "loss")[0]["loss"]
    assert first["features.0"] > 0
    assert first["total"] == pytest.approx(first["l1"] + first["features.0"], abs=2e-4)
    assert weights_of(run).keys() == weights_of(plain).keys()
    assert not same_weights(run, plain)


@slow
def test_a_network_of_another_source_or_intensity_map_is_refused(with_features, read_tiny, fit):
    forward = fit(read_tiny(), "forward")
    with refuses(r"method\.features"):
        fit(with_features(forward.folder))


def test_features_are_refused_where_the_state_is_no_image_as_the_network_knows_it(with_features):
    with refuses(r"method\.features"):
        with_features("run", task="{ kind = 'translate', range = [0, 1] }")


def test_a_vits_features_are_its_tokens_of_each_slice_and_have_gradients(tmp_path):
    """Against `transformers` on one picture of whole patches; layers without a number are refused."""
    model = save_vit(tmp_path, 4)
    image = torch.randn(1, 1, 2, 48, 48).clamp(-1, 1).requires_grad_()
    found = VitFeatures(str(tmp_path), (), image.device)(image)
    assert [layer.shape for layer in found] == [(2, 10, 24)] * 4
    picture = image[:, :, 1].expand(-1, 3, -1, -1)
    wanted = model(picture, output_hidden_states=True).hidden_states[2]
    assert torch.allclose(found[1][1:], wanted, atol=1e-5)
    assert VitFeatures(str(tmp_path), ("2",), image.device)(image[..., :33])[0].shape == (2, 7, 24)
    term = FeatureLoss(network=str(tmp_path))
    assert term.distance(image, image) == 0
    (gradient,) = torch.autograd.grad(term.distance(image, -image.detach()), image)
    assert gradient.abs().sum() > 0
    with refuses():
        VitFeatures(str(tmp_path), ("5",), image.device)
