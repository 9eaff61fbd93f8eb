"""A plain torch module, with or without options, as the network of a recipe."""

import pickle

import torch
from safetensors.torch import load_file
from torch import nn

from refusals import refuses
from rows import slow
from voxlate.science.nets.interface import Channels, NetworkInput, PlainNet, settings_of
from voxlate.training import recipe
from voxlate.training.weights import load_method

HERE = __name__


class TwoLayers(nn.Module):
    def __init__(self, in_channels, out_channels, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.Conv2d(width, out_channels, 1)
        )

    def forward(self, image):
        return self.layers(image)


class HeldTwice(nn.Module):
    """The decoder of nnU-Net's networks holds their encoder in this way."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.again = nn.ModuleList([self.first])

    def forward(self, image):
        return self.again[0](image)


class Halving(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layer = nn.Conv3d(in_channels, out_channels, 2, stride=2)

    def forward(self, image):
        return self.layer(image)


ONE = Channels(images={"t1": 1}, out=1)


def test_an_image_of_another_size_is_one_sentence():
    made = settings_of(Halving)().build(ONE)
    with refuses(r"of shape \(1, 1, 2, 4, 4\), found \(1, 1, 1, 2, 2\)"):
        made(NetworkInput({"t1": torch.randn(1, 1, 2, 4, 4)}))


def test_arguments_without_names_are_refused():
    class Anything(nn.Module):
        def __init__(self, *sizes):
            super().__init__()

    with refuses("arguments have names, found 'sizes'"):
        settings_of(Anything)


def test_a_recipe_names_the_class_and_its_options_and_is_written_as_it_was_read(tiny):
    def with_option(text):
        net = f'{{ kind = "{HERE}:TwoLayers", {text} }}'
        return recipe.read(str(tiny), {"net": net}, allow_code=True)

    made = with_option("width = 5")
    plain = recipe.to_dict(made)
    assert plain["net"] == {"kind": f"{HERE}:TwoLayers", "width": 5}
    assert recipe.from_dict(plain, "again", allow_code=True) == made
    assert isinstance(made.net.build(ONE), PlainNet)
    with refuses("found 'depth'"):
        with_option("depth = 5")


def test_settings_of_a_plain_module_are_the_same_after_pickle():
    made = settings_of(TwoLayers)(width=5)
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert type(again) is type(made)


@slow
def test_a_layer_that_a_module_holds_twice_is_saved_once_and_loaded_by_both_names(
    voxlate, prepared, cohort, tiny, tmp_path
):
    run = tmp_path / "run"
    line = [tiny, "--data", prepared, "--out", run, "--set", f'net={{ kind = "{HERE}:HeldTwice" }}']
    voxlate("train", *line, "--allow-code").done()
    stored = load_file(run / "weights.safetensors")
    assert sorted(stored) == ["net.module.first.bias", "net.module.first.weight"]
    net = load_method(run, allow_code=True)[0].net.module
    assert torch.equal(net.first.weight, stored["net.module.first.weight"])
    assert net.again[0].weight is net.first.weight
    voxlate("train", *line, "--allow-code").done()
    voxlate("synth", run, cohort, "--out", tmp_path / "out", "--allow-code").done()
