"""The signal of tissue-parameter maps in any sequence, at any field and through drawn scalps, against known answers."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng
from numpy.testing import assert_allclose

from rows import every_row
from voxlate.anatomy import contrast as mr
from voxlate.anatomy import scalp
from voxlate.anatomy.contrast import PROTOCOLS, Protocol, magnitude
from voxlate.anatomy.mapped_head import make_head
from voxlate.anatomy.signal import MAPS, Head, signal, tissue_map
from voxlate.anatomy.tissue import Label

FIELDS_T = (0.5, 1.5, 3.0, 7.0)
NULL_MS = mr.null_time_ms(mr.FREE_WATER_T1_MS, 9000)


@pytest.fixture(scope="module")
def head():
    return make_head(3, 0, (40, 48, 24), "tumour")


def _pure(head: Head, label: Label) -> np.ndarray:
    """The voxels of one tissue alone."""
    return (head.labels == label) & (head.share == 1)


@pytest.fixture(scope="module")
def maps(head):
    return {name: tissue_map(head, name) for name in MAPS}


def _one(**values: float) -> dict[str, np.ndarray]:
    """Maps of one voxel: water of 1 s and 100 ms unless the values say otherwise."""
    usual = dict.fromkeys(MAPS, 0.0)
    usual |= {"pd_map": 1.0, "t1_map": 1000.0, "t2_map": 100.0, "t2star_map": 50.0}
    return {name: np.array([value], np.float32) for name, value in {**usual, **values}.items()}


@every_row("t1_ms, power", [(1331.0, 0.376), (832.0, 0.382)])
@every_row("field_t", FIELDS_T)
def test_t1_changes_with_the_field_as_measured_in_grey_and_white_matter(t1_ms, power, field_t):
    measured = (field_t / 3) ** power
    assert mr.t1_at_field(t1_ms, field_t) / t1_ms == pytest.approx(measured, rel=0.06)


def test_t2_of_grey_matter_halves_at_seven_tesla_and_dephasing_is_proportional_to_the_field():
    assert mr.t2_at_field(110.0, 7.0) == pytest.approx(55)
    rates = [1 / mr.t2star_at_field(47.0, 80.0, b) - 1 / mr.t2_at_field(80.0, b) for b in (1.5, 6)]
    assert rates[1] / rates[0] == pytest.approx(4)


def test_mprage_is_the_steady_state_of_its_pulses():
    t1_ms, tr_ms, ti_ms, flip_deg, pulses, spacing_ms = 900.0, 2300.0, 950.0, 9.0, 160, 6.0
    magnetisation = 1.0
    for _ in range(30):  # cycles
        magnetisation = _relaxed(-magnetisation, ti_ms - pulses * spacing_ms / 2, t1_ms)
        for pulse in range(pulses):
            if pulse == pulses // 2:
                at_centre = abs(magnetisation) * np.sin(np.radians(flip_deg))
            magnetisation *= np.cos(np.radians(flip_deg))
            magnetisation = _relaxed(magnetisation, spacing_ms, t1_ms)
        magnetisation = _relaxed(magnetisation, tr_ms - ti_ms - pulses * spacing_ms / 2, t1_ms)
    closed = mr.mprage(1.0, t1_ms, 1e9, tr_ms, 3.0, ti_ms, flip_deg)
    assert closed == pytest.approx(at_centre, rel=1e-6)


def _relaxed(magnetisation: float, ms: float, t1_ms: float) -> float:
    return 1 - (1 - magnetisation) * np.exp(-ms / t1_ms)


@every_row("field_t", (0.5, 7.0))
def test_csf_is_null_in_flair_at_its_nulling_time_at_every_field(head, maps, field_t):
    image = magnitude(Protocol("flair", 9000, 110, NULL_MS, 0, field_t), maps)
    assert image[_pure(head, Label.CSF)].max() < 1e-3 * image[_pure(head, Label.WHITE)].mean()


ECHO, GRADIENT = Protocol("spin_echo", 500, 15, 0, 0), Protocol("gradient_echo", 20, 3, 0, 25)
TOF, SWI = Protocol("tof", 22, 3.5, 0, 20), Protocol("swi", 28, 20, 0, 15)
FAST = {"flow_map": 40.0, "inflow_map": 8.0}
WITH_AGENT = mr.gradient_echo(1.0, 1 / (1 / 1000 + 4.5e-3 * 2 * 0.5), 50.0, 20, 3, 25)


@every_row(
    "protocol, b1, voxel, least, most",
    [
        (replace(ECHO, fat_removed=0.8), 1.0, {"fat_map": 0.9}, 0.28, 0.28),
        (ECHO, 2 / 3, {}, 0.6495, 0.6496),  # the cube of the sine of 60 degrees
        (replace(ECHO, te_ms=90), 1.0, FAST, 0.04999, 0.05001),
        (TOF, 1.0, FAST, 2, 20),
        (SWI, 1.0, {"chi_map": 0.64}, 0, 0.05),  # a vein
        (TOF, 1.0, {"pd_map": 0.7}, 0.49, 0.491),  # transfer takes 0.3 of tissue, nothing of fluid
    ],
)
def test_fat_weak_pulses_flow_iron_and_transfer_change_a_signal_by_their_shares(
    protocol, b1, voxel, least, most
):
    plain = replace(protocol, fat_removed=0.0)
    ratio = magnitude(protocol, _one(**voxel), b1) / magnitude(plain, _one())
    assert least - 1e-6 <= ratio <= most + 1e-6


def test_contrast_agent_shortens_t1_by_its_relaxivity():
    agent = magnitude(replace(GRADIENT, dose=2.0), _one(gd_map=0.5))
    assert agent == pytest.approx(WITH_AGENT, rel=1e-5)


@every_row("name", ["t2", "pd"])
def test_a_phantom_s_image_is_the_sum_of_the_spin_echoes_of_tissue_and_fluid(head, name):
    """Means of rates would make a voxel of both another one than the sum of its parts."""
    protocol, tissue = PROTOCOLS[name], head.tissue
    own = signal(replace(head, texture=np.zeros_like(head.texture)), name) / mr.FULL_SCALE

    def echo(label: Label) -> float:
        times = (protocol.tr_ms, protocol.te_ms)
        return mr.spin_echo(tissue.pd[label], tissue.t1_ms[label], tissue.t2_ms[label], *times)

    for label in (Label.WHITE, Label.GREY, Label.MUSCLE):
        assert_allclose(own[_pure(head, label)], echo(label), rtol=5e-3)
    parts = np.stack([head.labels, head.second])
    mixed = ((parts == Label.GREY).sum(0) == 1) & ((parts == Label.CSF).sum(0) == 1)
    assert mixed.sum() > 100
    grey = np.where(head.labels == Label.GREY, head.share, 1 - head.share)[mixed]
    assert_allclose(own[mixed], grey * echo(Label.GREY) + (1 - grey) * echo(Label.CSF), rtol=0.01)


def test_a_voxel_of_two_tissues_has_the_rates_of_its_protons(head, maps):
    mixed = (head.labels == Label.WHITE) & (head.second == Label.GREY) & (head.share < 0.8)
    voxel = tuple(np.argwhere(mixed)[0])
    share = head.share[voxel]
    pd, t1 = head.tissue.pd, head.tissue.t1_ms
    parts = [share * pd[Label.WHITE], (1 - share) * pd[Label.GREY]]
    rate = (parts[0] / t1[Label.WHITE] + parts[1] / t1[Label.GREY]) / sum(parts)
    assert maps["pd_map"][voxel] == pytest.approx(sum(parts), rel=0.03)  # texture
    assert maps["t1_map"][voxel] == pytest.approx(1 / rate, rel=0.08)


def test_the_values_of_labels_are_those_of_written_cohorts():
    assert " ".join(label.name for label in Label).startswith(
        "AIR SKIN FAT MUSCLE BONE DIPLOE CSF GREY WHITE VENTRICLE DEEP_GREY EYE SINUS ARTERY VEIN "
        "ARTERY_BEYOND_CLOT CLOT NECROSIS ENHANCING OEDEMA "
    )
    assert [*Label] == [*range(len(Label))]


AIR, SKULL = 40, 58  # where skin and skull begin on the line, in half millimetres
ENDS = {Label.SKIN: 44, Label.FAT: 56, Label.MUSCLE: SKULL, Label.BONE: 62, Label.GREY: 100}
T1_WEIGHTED = Protocol("mprage", 2200, 3, 900, 9)
# Of a whole head at 1 mm, medians over twenty places of the vault, relative to white matter: skin, the darkest millimetre
# below it, fat, and the darkest millimetre below that.
MEASURED = (1.0, 0.66, 0.93, 0.13)


@pytest.fixture(scope="module")
def line():
    place = np.arange(100, dtype=np.float32)[None, None]
    labels = np.select([place < AIR, *(place < end for end in ENDS.values())], [0, *ENDS])
    return labels.astype(np.uint8), (place - AIR + 0.5) / 2, np.maximum(SKULL - place, 0) / 2


def _signal(line, drawn) -> np.ndarray:
    """The signal of a scalp on grey matter, and none in the skull; relative to grey matter."""
    labels, depth, vault = line
    grey = {"pd_map": 0.8, "t1_map": 1331, "t2_map": 110, "t2star_map": 47}
    maps = {name: np.float32(grey.get(name, 0)) * (labels == Label.GREY) for name in MAPS}
    signal = magnitude(T1_WEIGHTED, scalp.layers(drawn, labels, depth, vault).maps(maps))[0, 0]
    return signal / signal[-1]


def test_drawn_scalps_have_the_bright_and_dark_layers_of_a_real_head(line):
    layers = []
    for seed in range(20):
        own = replace(scalp.draw(default_rng(seed)), grown_mm=0.0)
        signal = _signal(line, own)
        septum = round(AIR + 2 * own.skin_mm)
        fat = round(septum + 2 * own.septum_mm)
        above = signal[septum - 1 : fat + 2].min()
        layers.append((signal[:septum].max(), above, signal[fat:54].max(), signal[54:60].min()))
    found = np.argsort(np.median(layers, axis=0))
    assert found[:2].tolist() == np.argsort(MEASURED)[:2].tolist()
    assert np.ptp([fat for *_, fat, _ in layers]) > 0.3  # of any brightness
