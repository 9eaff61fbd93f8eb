"""The model and naive baselines on validation items: hand-made items, and the verdict that a training ends with."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from voxlate.evaluation.reports.page import report
from voxlate.scans.images.grid import Grid, Volume
from voxlate.scans.images.intensity import Window
from voxlate.scans.images.ranges import range_for
from voxlate.science.batch import Batch
from voxlate.synthesis.scan_checks import KnownScans
from voxlate.training.batches.data_settings import DataSettings
from voxlate.training.naive import fit
from voxlate.training.run import Run
from voxlate.training.validate import ItemErrors

SHAPE = (1, 24, 20)
WINDOW = Window(low=-1000.0, high=1000.0)


def items(sources, targets, present=None, target_present=None):
    """A batch of one item from images [D, H, W] in network units by name."""
    stack = lambda images: torch.from_numpy(np.stack(list(images.values())))[None].float()  # noqa: E731
    return Batch(
        source=stack(sources),
        target=stack(targets),
        mask=torch.ones(1, 1, *SHAPE),
        present=torch.tensor([present or [True] * len(sources)]),
        target_present=torch.tensor([target_present or [True] * len(targets)]),
        item=torch.zeros(1, 1, dtype=torch.int64),
        source_names=tuple(sources),
        target_names=tuple(targets),
    )


def image(seed):
    return np.random.default_rng(seed).uniform(-1, 1, SHAPE).astype(np.float32)


class Site:
    """A cohort of one case of one slice, whose body is its upper half in every scan; images: in network units."""

    def __init__(self, unit, images):
        self.units = dict.fromkeys(images, unit)
        self.images = images
        self.cases = ()
        self.splits = {"train": ["p0"], "val": ["p0"]}
        self.body = np.zeros(SHAPE, bool)
        self.body[:, :12] = True

    def case(self, case):
        header = SimpleNamespace(grid=Grid(SHAPE, np.eye(4)))
        return SimpleNamespace(header=header, outline=lambda _: self.body, volume=self.volume)

    def volume(self, name):
        return Volume(self.images[name][None] * 1000, np.eye(4), self.units[name], name)


def errors_of(
    training, sources, targets, batch, prediction, given=None, unit="HU", start=(0, 0, 0)
):
    """The errors of an item by target and answer, after a fit to training items of sources and targets."""
    ranges = {name: range_for(unit, given=(-1000, 1000)) for name in (*sources, *targets)}
    scans = [Site(unit, images) for images in training]
    cases = [({name: one.volume(name) for name in one.images}, None) for one in scans]
    images = dict(zip(batch.source_names, batch.source[0].numpy()))
    measured = ItemErrors(
        fit(cases, sources, targets, ranges),
        KnownScans({}, {}),
        SimpleNamespace(
            cohort=Site(unit, {**training[0], **images}),
            data=DataSettings(source=sources, target=targets, patch=SHAPE, apart=True),
            intensity=dict.fromkeys(ranges, WINDOW),
        ),
        [("p0", start)],
        {name: WINDOW.scale(None) for name in targets},
    )
    measured.add(batch, given or batch, prediction)
    return {
        target: {answer: of["0"] for answer, of in answers.items()}
        for target, answers in measured.errors.items()
    }


def test_the_table_of_an_item_recovers_a_function_of_its_source_in_hu():
    training = [{"a": image(seed), "ct": image(seed) ** 2} for seed in range(4)]
    held_out = image(9)
    batch = items({"a": held_out}, {"ct": held_out**2})
    errors = errors_of(training, ["a"], ["ct"], batch, torch.zeros(1, 1, *SHAPE))["ct"]
    body = held_out[:, :12]
    assert errors["synthesis"] == pytest.approx(1000 * np.mean(body**2), rel=1e-4)
    assert errors["copy of a"] == pytest.approx(1000 * np.mean(np.abs(body - body**2)), rel=1e-4)
    assert errors["intensity table"] < 10, "1024 bins of 2 HU, of which some have no voxel"
    assert set(errors) == {"synthesis", "copy of a", "intensity table", "mean image"}


def test_what_lies_outside_of_the_body_is_background_as_in_a_synthesis():
    source, target = image(0), image(1)
    source[:, 12:] = 0  # in its unit, too: no signal
    target[:, 12:] = -1
    batch = items({"a": source}, {"ct": target})
    noise = torch.ones(1, 1, *SHAPE)
    errors = errors_of([{"a": source, "ct": target}], ["a"], ["ct"], batch, noise, unit="a.u.")
    whole = np.mean(np.abs(1 - target[:, :12])) / 2  # half of the slice is body
    assert errors["ct"]["synthesis"] == pytest.approx(1000 * whole, rel=1e-4)


def test_what_was_hidden_from_the_model_and_is_there_is_measured_where_an_item_shows_body():
    images = {name: image(seed) for seed, name in enumerate(("a", "b", "ct"))}
    sources, targets = (
        {name: images[name] for name in names} for names in (["a", "b"], ["b", "ct"])
    )
    for present, there, start, measured in (
        ([True, False], None, 0, {"b", "ct"}),
        ([True, True], None, 0, {"ct"}),
        ([True, False], [True, False], 0, {"b"}),
        ([True, False], None, 12, set()),
    ):
        batch = items(sources, targets, target_present=there)
        given = items(sources, targets, present=present)
        asked = (batch, batch.target, given)
        errors = errors_of([images], [*sources], [*targets], *asked, start=(0, start, 0))
        assert set(errors) == measured
        if "b" in errors:
            answers = {"synthesis", "copy of a", "intensity table", "mean image"}
            assert set(errors["b"]) == answers


def test_a_training_ends_with_its_verdict_and_so_does_its_page(voxlate, run, prepared, tiny):
    answer = voxlate("train", tiny, "--data", prepared, "--out", run).done()
    (verdict,) = Run(run).verdicts
    assert verdict.outcome == "worse", "six steps teach nothing"
    assert verdict.sentence in answer.out.splitlines()
    head = report(run).read_text(encoding="utf-8").partition("<nav")[0]
    assert '<p class="verdict worse">MAE' in head
