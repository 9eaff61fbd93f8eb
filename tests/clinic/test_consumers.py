"""Conversions of HU into the units of planning, protons, ultrasound and PET, against known answers."""

import math

import numpy as np
import pytest

from made_volumes import made_volume
from refusals import refuses
from rows import every_row
from voxlate.clinic.consumers.beams import read_beam
from voxlate.clinic.consumers.pet import CARNEY, add_couch, mu_511, on_pet_grid
from voxlate.clinic.consumers.proton import ray_totals, wepl_map
from voxlate.clinic.consumers.tables import read_table
from voxlate.clinic.consumers.tissues import TISSUES, default_table
from voxlate.clinic.consumers.ultrasound import CONVERSIONS, acoustic_maps, skull_of, skull_rays
from voxlate.scans.images.grid import Grid

# H of Schneider et al. 1996, where water has 1000.
PUBLISHED_H = {
    "adipose": 930, "brain": 1037, "muscle": 1042, "blood": 1055, "skin": 1075, "cartilage": 1098, "yellow marrow": 958,
    "red marrow": 1014, "spongiosa": 1260, "humerus": 1683, "cranium": 1903, "mandible": 2006, "cortical bone": 2376,
    "lung": 259,
}  # fmt: skip
# Mean excitation energies of ICRU 44's tissues, as in EGSnrc's density corrections.
EXCITATION_EV = {
    "adipose": 64.78, "brain": 73.853, "blood": 75.203, "skin": 73.66, "cartilage": 78.021, "cortical bone": 111.972,
}  # fmt: skip


def filled(value, shape, unit="1/cm", affine=None):
    """A volume of one value."""
    return made_volume(np.full(shape, value), "any", unit, affine)


def placed(spacing, origin):
    """An affine of one spacing, or of three along (x, y, z), whose first voxel lies at the origin in mm."""
    affine = np.diag([*np.broadcast_to(np.float64(spacing), 3), 1.0])
    affine[:3, 3] = origin
    return affine


DOWN = np.array([0.0, 0, -1])


@every_row("tissue", sorted(PUBLISHED_H))
def test_the_formula_gives_the_published_ct_number_of_a_tissue(tissue):
    assert sum(TISSUES[tissue].percent.values()) == pytest.approx(100, abs=0.11)
    assert TISSUES[tissue].hu == pytest.approx(PUBLISHED_H[tissue] - 1000, abs=1)


@every_row(("tissue", "excitation"), [*EXCITATION_EV.items()])
def test_a_tissue_has_the_stopping_power_of_bethe_with_its_published_excitation_energy(
    tissue, excitation
):
    # protons of 100 MeV: beta squared is 0.183341
    log_energy = math.log(2 * 510998.95 * 0.183341 / 0.816659) - 0.183341
    number = (log_energy - math.log(excitation)) / (log_energy - math.log(75.3))
    found = TISSUES[tissue]
    assert found.stopping_power == pytest.approx(found.electron_density * number, rel=1e-4)


def test_the_default_tables_have_water_at_one_and_grow():
    rsp = default_table("rsp")
    assert rsp(np.zeros((1, 1, 1), np.float32))[0, 0, 0] == pytest.approx(1, abs=1e-6)
    density = default_table("electron_density")
    assert density.values[3] == 1
    assert TISSUES["cortical bone"].electron_density == pytest.approx(1.781, abs=0.002)
    for table in (rsp, density):
        assert (np.diff(table.hu) > 0).all()
        assert (np.diff(table.values) > 0).all()


@every_row(
    ("text", "direction"),
    [
        ("0", (0, -1, 0)),
        ("90", (1, 0, 0)),
        ("180", (0, 1, 0)),
        ("0,0,-2", (0, 0, -1)),
        ("1e300,0,0", (1, 0, 0)),
    ],
)
def test_a_beam_is_a_gantry_angle_or_a_direction(text, direction):
    np.testing.assert_allclose(read_beam(text), direction, atol=1e-12)


def test_slabs_add_up_and_each_voxel_has_the_depth_of_its_centre():
    grid, left = Grid((8, 8, 40), np.eye(4)), np.array([1.0, 0, 0])
    rsp = np.zeros(grid.shape, np.float32)
    rsp[..., 5:15], rsp[..., 15:20], rsp[..., 20:35] = 1.0, 1.6, 0.25
    depth = wepl_map(rsp, rsp > 0, grid, left)
    np.testing.assert_allclose(depth, rsp.cumsum(-1) - rsp / 2, atol=1e-5)
    totals = ray_totals({"rsp": rsp}, rsp > 0, grid, left, 1.0)
    np.testing.assert_allclose(totals.wepl_mm["rsp"], 10 + 5 * 1.6 + 15 * 0.25, rtol=1e-6)
    np.testing.assert_allclose(totals.entry_mm[:, 0], 4.5)


def test_along_an_axis_of_anisotropic_voxels_depths_are_exact_also_between_unlike_columns():
    rsp = np.random.default_rng(3).uniform(0, 2, (5, 7, 6)).astype(np.float32)
    grid = Grid(rsp.shape, np.diag([1.7, 2.3, 1.1, 1.0]))
    # from the front, the last row
    depth = wepl_map(rsp, rsp >= 0, grid, np.array([0.0, -1, 0]))
    steps = 2.3 * rsp[:, ::-1]
    expected = (steps.cumsum(axis=1) - steps / 2)[:, ::-1]
    np.testing.assert_allclose(depth, expected, atol=1e-4)


def test_a_beam_that_meets_no_body_is_refused():
    ones = np.ones((8, 8, 8))
    with refuses("--beam"):
        ray_totals({"rsp": ones}, ones > 1, Grid(ones.shape, np.eye(4)), DOWN)


def test_a_table_is_written_as_it_is_read(tmp_path):
    table = default_table("rsp")
    table.write(tmp_path / "table.csv")
    again = read_table(tmp_path / "table.csv", "rsp")
    np.testing.assert_allclose(again.values, table.values, rtol=1e-5)
    with refuses("electron_density"):
        read_table(tmp_path / "table.csv", "electron_density")


@every_row("kvp", sorted(CARNEY))
def test_water_has_its_attenuation_and_the_map_is_continuous_at_its_break(kvp):
    a, b, break_point = CARNEY[kvp]
    hu = np.array([[[-1000, 0, break_point - 1000.001, break_point - 999.999]]], np.float64)
    air, water, below, above = mu_511(hu, kvp)[0, 0]
    assert air == 0
    assert water == pytest.approx(0.096)
    assert above == pytest.approx(below, rel=0.01)
    assert above == pytest.approx(a * break_point + b, rel=1e-4)
    if kvp == 120:
        # bone
        assert mu_511(np.full((1, 1, 1), 1000.0))[0, 0, 0] == pytest.approx(0.1491)


def test_attenuation_keeps_its_sum_on_the_wider_grid_of_a_pet():
    mu = made_volume(np.pad(np.full((20, 20, 20), 0.096), 10), "mu", "1/cm")  # water in air
    found, share = on_pet_grid(mu, Grid((10, 10, 10), placed(4, 1.5)), "pet")
    assert share == 1
    assert found.data.sum() * 64 == pytest.approx(mu.data.sum(), rel=0.01)
    assert found.data[0, 5, 5, 5] == pytest.approx(0.096, rel=0.01)


@every_row("side_mm", [2.5, 4.0, 7.3])
def test_thin_plates_of_a_couch_keep_their_sum_wherever_they_lie_between_wider_voxels(side_mm):
    couch = filled(0, (60, 8, 8))
    couch.data[:, [20, 21, 34, 35]] = 0.2
    for shift in np.linspace(0, side_mm, 6):
        affine = placed([1, 1, side_mm], [0, 0, shift])
        empty = filled(0, (int(55 / side_mm), 8, 8), affine=affine)
        line = add_couch(empty, couch).data[0, :, 4, 4].sum() * side_mm
        assert line == pytest.approx(0.8, rel=0.06)


def test_a_pet_elsewhere_is_refused_and_one_that_reaches_further_is_zero_there():
    mu = filled(0.1, (8, 8, 8))
    with refuses("--like pet"):
        on_pet_grid(mu, Grid((8, 8, 8), placed(1, 500)), "pet")
    found, share = on_pet_grid(mu, Grid((8, 8, 16), np.eye(4)), "pet")
    assert share < 0.6
    assert found.data[0, 4, 4, 12] == 0
    assert add_couch(found, filled(0.02, (8, 8, 16))).data[0, 4, 4, [2, 12]] == pytest.approx(
        [0.12, 0.02]
    )


def test_a_thin_ct_within_a_long_pet_is_found_and_its_share_is_counted():
    grid = Grid((400, 40, 40), placed([4, 4, 2], [-78, -78, -301]))
    found, share = on_pet_grid(filled(0.1, (4, 40, 40)), grid, "pet")
    assert share == (found.data > 0).mean() == 2 * 10 * 10 / (400 * 40 * 40)


def layered_skull():
    """A plate across z: 2 mm of cortical bone of 1500 HU, 3 mm of marrow of 600, 2 mm of cortical bone."""
    ct = filled(40, (40, 40, 40), "HU")
    hu = ct.data[0]
    hu[32:] = -1000
    hu[20:22], hu[22:25], hu[25:27] = 1500, 600, 1500
    return hu, ct


def test_a_plate_has_its_thickness_and_the_ratio_of_its_layers():
    hu, ct = layered_skull()
    skull = skull_of(ct)
    assert skull.sum() == 7 * 1600
    rays = skull_rays(hu, skull, ct.grid, DOWN, 20)
    assert rays.summary["thickness_mm"] == pytest.approx(7)
    assert rays.summary["skull_density_ratio"] == pytest.approx(600 / 1500)
    assert rays.summary["rays_with_marrow"] == rays.summary["rays"]
    assert rays.entry_mm[:, 2] == pytest.approx(26.5)
    oblique = np.array([math.sin(0.5), 0, -math.cos(0.5)])
    thickness = skull_rays(hu, skull, ct.grid, oblique, 10).summary["thickness_mm"]
    assert thickness == pytest.approx(7 / math.cos(0.5), rel=1e-6)
    hu[skull] = 1500  # without marrow
    solid = skull_rays(hu, skull, ct.grid, DOWN, 10).summary
    assert "skull_density_ratio" not in solid
    assert solid["rays_with_marrow"] == 0


@every_row(("aperture_mm", "rays"), [(2.0, 1), (4.0, 5), (60.0, 709)])
def test_an_aperture_has_a_ray_at_its_centre_and_others_2_mm_apart(aperture_mm, rays):
    hu, ct = layered_skull()
    found = skull_rays(hu, skull_of(ct), ct.grid, DOWN, aperture_mm)
    assert len(found.thickness_mm) == rays


def test_without_bone_there_is_no_skull_and_beside_it_no_ray():
    with refuses("300 HU"):
        skull_of(filled(0, (8, 8, 8), "HU"))
    hu, ct = layered_skull()
    along = np.array([1.0, 0, 0])  # within the plate, 40 mm
    with refuses("--beam"):
        assert skull_rays(hu, skull_of(ct), ct.grid, along, 4).summary


def test_a_scan_that_is_cut_off_below_the_vertex_has_no_skull_there():
    """A ray from above would meet the base first, and give its thickness."""
    ct = filled(30, (40, 40, 40), "HU")
    ct.data[0, 2:6] = 1200
    rays = skull_rays(ct.data[0], skull_of(ct), ct.grid, DOWN, 20)
    assert np.isnan(rays.thickness_mm).all()


@every_row(
    ("name", "density", "speed", "attenuation"),
    [
        ("kplan", 1673.93, 1.33 * 1673.93 + 167, 13.3),
        ("marsac2017", 1850.0, 2250.0, None),
        ("aubry2003", 2100.0, 2900.0, 0.2),
        ("mcdannold2020", 2026.04, 2891, 21.9),
    ],
)
def test_bone_of_1000_hu_has_the_properties_of_the_named_source(name, density, speed, attenuation):
    hu = np.full((1, 1, 2), 1000, np.float32)
    maps = acoustic_maps(hu, np.array([[[True, False]]]), name, 2000)
    assert maps["density"][0, 0] == pytest.approx([density, 1000], rel=1e-4)
    assert maps["sound_speed"][0, 0] == pytest.approx([speed, 1500], rel=2e-3)
    assert ("alpha_coeff" in maps) == (attenuation is not None)
    if attenuation is not None:
        assert maps["alpha_coeff"][0, 0] == pytest.approx([attenuation, 0], rel=5e-3)
    assert CONVERSIONS[name].source
