"""What voxlate-run does without torch, SciPy and pydantic equals what voxlate does with them."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch

from refusals import refuses
from rows import every_row
from voxlate.base import plain_schema
from voxlate.base.records import Name, Number
from voxlate.base.streams import ArrayNoise, NormalStream, Tile
from voxlate.checks.head_checks import sides_of
from voxlate.exchange.widths import ArrayWidths
from voxlate.scans.images import numpy_filters
from voxlate.scans.images.grid import Volume
from voxlate.science.diffusion.noise import Noise
from voxlate.training.widths import Widths

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "scipy", "pydantic", "pydantic_core", "safetensors", "PIL", "rich", "typer")
HEAVY += ("filelock", "psutil", "accelerate", "matplotlib", "jinja2", "pydicom", "SimpleITK")
IMPORT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import voxlate.exchange.command, voxlate.exchange.run
print(*sorted({{name.split(".")[1] for name in sys.modules if name.startswith("voxlate.")}}))
"""


def test_the_runner_imports_no_heavy_package_and_only_folders_of_its_distribution():
    answer = subprocess.run(
        [sys.executable, "-c", IMPORT.format(heavy=HEAVY)], capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    stated = tomllib.loads((ROOT / "run" / "pyproject.toml").read_text())
    kept = stated["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].values()
    folders = {Path(name).parts[1].removesuffix(".py") for name in kept}
    assert set(answer.stdout.split()) <= folders
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert stated["project"]["version"] == whole["project"]["version"]


@every_row("seed", [0, 7, 2**32 - 1])
def test_the_stream_of_normal_numbers_is_that_of_torch(seed):
    generator, stream = torch.Generator().manual_seed(seed), NormalStream(seed)
    for count in (16, 100, 31, 4096):
        drawn = torch.empty(count).normal_(generator=generator).numpy()
        np.testing.assert_allclose(stream(count), drawn, atol=2e-6)


def test_the_noise_of_mixed_streams_and_tiles_is_that_of_torch():
    items = [[{3: 0.6, 4: 0.8}, 5], [{4: 1.0}, {5: 0.6, 6: 0.8}]]
    tiles = [Tile((0, 0), (6, 5), (9, 8)), Tile((3, 3), (6, 5), (9, 8))]
    both = [kind(11, items, 2, tiles) for kind in (Noise, ArrayNoise)]
    for _ in range(2):
        expected, found = (np.asarray(noise.normal((3, 2, 6, 5))) for noise in both)
        np.testing.assert_allclose(found, expected, atol=3e-6)


FILTERS = [
    ("gaussian_filter", ((0, 1.5, 3),), {"truncate": 3, "mode": "nearest"}),
    ("uniform_filter", ((1, 5, 5),), {}),
    ("convolve", (np.array([[[1, -2, 1], [0, 4, -1], [3, 0, 2]]], np.float32),), {}),
    ("zoom", ((0.4, 1.7, 0.5),), {"order": 1, "mode": "nearest", "grid_mode": True}),
    ("zoom", ((1, 1.7, 0.6),), {"order": 3, "mode": "mirror"}),
]


@every_row("name, arguments, options", FILTERS)
def test_a_filter_is_that_of_scipy(name, arguments, options):
    image = np.random.default_rng(1).normal(size=(9, 20, 17)).astype(np.float32)
    expected, found = (
        getattr(module, name)(image, *arguments, **options)
        for module in (scipy.ndimage, numpy_filters)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


TURNED = np.array([[0.9, 0.2, 0], [-0.1, 1.1, 0.3], [0, 0.2, 0.8]])


@every_row("matrix, order", [(np.diag([0.8, 1.3, 1]), 1), (np.diag([0.8, 1.3, 1]), 0), (TURNED, 1)])
def test_resampling_is_that_of_scipy(matrix, order):
    image = np.random.default_rng(2).normal(size=(9, 20, 17)).astype(np.float32)
    images = []
    for module in (scipy.ndimage, numpy_filters):
        images.append(out := np.empty((11, 12, 13), np.float32))
        given = {"output": out, "output_shape": out.shape, "mode": "nearest", "prefilter": False}
        module.affine_transform(image, matrix, np.array([0.3, -1.2, 2.4]), order=order, **given)
    np.testing.assert_allclose(*images, atol=1e-5)


def test_components_their_numbers_and_distances_are_those_of_scipy():
    noise = np.random.default_rng(3).normal(size=(14, 30, 26))
    mask = scipy.ndimage.gaussian_filter(noise, 1.2) > 0.05
    labels, counts, distances = [], [], []
    for module in (scipy.ndimage, numpy_filters):
        labels.append(np.empty(mask.shape, np.int32))
        counts.append(module.label(mask, output=labels[-1]))
        distances.append(module.distance_transform_edt(mask, sampling=(3.0, 1.0, 1.5)))
    assert counts[0] == counts[1] > 5
    np.testing.assert_array_equal(*labels)
    np.testing.assert_allclose(*distances, atol=1e-5)
    places = numpy_filters.distance_transform_edt(mask, return_distances=False, return_indices=True)
    away = np.sqrt(np.square(places - np.indices(mask.shape)).sum(axis=0))
    np.testing.assert_allclose(away, scipy.ndimage.distance_transform_edt(mask), atol=1e-5)
    assert not mask[tuple(places)].any()


def test_a_filter_that_only_scipy_has_is_refused_in_one_sentence():
    with refuses("expected SciPy, found none"):
        numpy_filters.map_coordinates(np.zeros((2, 2)), [[0], [0]])


def test_the_sides_of_a_brain_are_not_compared_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.spatial.transform", None)
    brain = np.pad(np.ones((1, 20, 30, 24), np.float32), [(0, 0), *[(5, 5)] * 3])
    assert sides_of(Volume(brain, np.diag([4.0, 4.0, 4.0, 1.0]), "a.u.", "flair")) == {}


def test_widths_of_intervals_are_those_of_torch():
    torch.manual_seed(0)
    network = Widths("learned", 6)
    features = np.random.default_rng(4).normal(size=(2, 3, 5, 6)).astype(np.float32)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        expected = network.predict(features)
    np.testing.assert_allclose(ArrayWidths(tensors).predict(features), expected, rtol=1e-5)


@every_row(
    "kind, value",
    [
        (dict[Name, Number], {"a": "b"}),
        (tuple[int, int], [1]),
        (list[float], [True]),
        (int | None, 1.5),
    ],
)
def test_a_value_of_another_type_is_refused_without_pydantic(kind, value):
    with pytest.raises(plain_schema.ValidationError):
        plain_schema.TypeAdapter(kind).validate_python(value)
