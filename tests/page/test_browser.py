"""The viewer and the upload form in a real browser, against images whose every voxel is known."""

import re
from contextlib import ExitStack

import nibabel as nib
import numpy as np
import pytest
from browsing import after_drawing, open_page, pixels, render, small_server
from PIL import Image
from scipy.spatial.transform import Rotation

expect = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
).expect
pytestmark = pytest.mark.browser

SHAPE = (20, 24, 16)
SPACING_MM = (2.0, 2.0, 3.0)
STATED = {  # of each role: label, unit, and the window
    "source": ("T1", "", 0.0, 255.0),
    "synthesis": ("Synthesised CT", "HU", -1000.0, 1000.0),
    "lower": ("Lower bound", "HU", -1000.0, 1000.0),
    "upper": ("Upper bound", "HU", -1000.0, 1000.0),
    "width": ("Interval width", "HU", 0.0, 200.0),
}
AXES = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}


@pytest.fixture(scope="module")
def volumes():
    """Random voxels, so that no two slices and no two orientations look alike."""
    generator = np.random.default_rng(7)
    synthesis = np.round(generator.uniform(-1000, 1000, SHAPE)).astype(np.float32)
    width = np.round(generator.uniform(0, 200, SHAPE)).astype(np.float32)
    return {
        "source": generator.integers(0, 256, SHAPE).astype(np.float32),
        "synthesis": synthesis,
        "lower": synthesis - width / 2,
        "upper": synthesis + width / 2,
        "width": width,
    }


def _images(prefix="", **others):
    """What the viewer is told; others: images of some roles that have another file."""
    return [
        {
            "name": "t1" if role == "source" else "ct",
            "file": f"/{others.get(role, f'{prefix}{role}')}.nii.gz",
            "role": role,
            **dict(zip(("label", "unit", "low", "high"), stated)),
        }
        for role, stated in STATED.items()
    ]


@pytest.fixture(scope="module")
def base(volumes, tmp_path_factory):
    """The server: /viewer shows the images, /turned the same ones stored with other axes, /several two of a role, /gone none."""
    folder = tmp_path_factory.mktemp("served")
    for role, voxels in volumes.items():
        image = nib.Nifti1Image(voxels, np.diag([*SPACING_MM, 1.0]))
        nib.save(image, folder / f"{role}.nii.gz")
        stored = nib.orientations.axcodes2ornt(("I", "L", "P"))
        turned = image.as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(image.affine), stored)
        )
        nib.save(turned, folder / f"turned-{role}.nii.gz")
    second = [
        {**image, "name": "pet", "label": f"Second {image['role']}"}
        for image in _images(source="width", synthesis="width")[:2]
    ]
    about = nib.affines.from_matvec(Rotation.from_euler("z", 30, degrees=True).as_matrix())
    nib.save(
        nib.Nifti1Image(volumes["source"], about @ np.diag([*SPACING_MM, 1.0])),
        folder / "rotated-source.nii.gz",
    )
    images = {
        "viewer": _images(),
        "several": _images() + second,
        "rotated": _images(source="rotated-source"),
        "turned": _images("turned-"),
        "gone": _images(synthesis="missing")[1:2],
    }
    pages = {
        f"/{name}": render('{% include "viewer.html" %}', images=shown)
        for name, shown in images.items()
    }

    def answer(method, path, body):
        return (200, "text/html; charset=utf-8", pages[path].encode()) if path in pages else None

    with small_server(answer, folder) as address:
        yield address


@pytest.fixture
def viewer(browser, base):
    """Opens the viewer with sharp voxels, without crosshair and drawings, so that a pixel shows one voxel."""
    with ExitStack() as opened:

        def show(path="viewer", drawings=False, **options):
            page = opened.enter_context(open_page(browser, base, **options)).page
            page.goto(base + path)
            page.wait_for_selector("[data-viewer][data-ready]")
            page.locator("#viewer-keys summary").click()
            page.uncheck("[data-smooth]")
            page.uncheck("[data-crosshair]")
            page.locator("#viewer-keys summary").click()
            if not drawings:
                page.evaluate(
                    "document.querySelectorAll('[data-drawn]').forEach(c => c.hidden = true)"
                )
            after_drawing(page)
            return page

        yield show


def _scale(width, height, view):
    """Pixels a millimetre of the slice of a view, which fills a pane."""
    _, *axes = AXES[view]
    return min(size / (SHAPE[axis] * SPACING_MM[axis]) for size, axis in zip((width, height), axes))


def _point(page, across, down, canvas="[data-canvas]"):
    """The point of the screen at a voxel (x, y), which may be fractional, of an axial slice that is not zoomed."""
    page.locator(canvas).scroll_into_view_if_needed()
    box = page.locator(canvas).bounding_box()
    scale = _scale(box["width"], box["height"], "axial")
    away = [(SHAPE[k] / 2 - place - 0.5) * SPACING_MM[k] for k, place in ((0, across), (1, down))]
    return (
        box["x"] + box["width"] / 2 + away[0] * scale,
        box["y"] + box["height"] / 2 + away[1] * scale,
    )


def _drag(page, start, end, **options):
    page.mouse.move(*start)
    page.mouse.down(**options)
    page.mouse.move(*end, steps=4)
    page.mouse.up(**options)
    after_drawing(page)


def _shown(page, view, canvas="[data-canvas]"):
    """Colours at the centres of the voxels of the shown slice, as [voxels across, voxels down, 3]."""
    _, across, down = AXES[view]
    screen = pixels(page.locator(canvas))
    height, width, _ = screen.shape
    scale = _scale(width, height, view)
    centres = [
        (SHAPE[axis] / 2 - np.arange(SHAPE[axis]) - 0.5) * SPACING_MM[axis] * scale
        for axis in (across, down)
    ]
    columns = np.round(width / 2 + centres[0] - 0.5).astype(int)
    rows = np.round(height / 2 + centres[1] - 0.5).astype(int)
    return screen[rows[None, :], columns[:, None]]


def _grey(role, voxels):
    low, high = STATED[role][2:]
    return 255 * np.clip((voxels - low) / (high - low), 0, 1)


def _assert_shown(page, expected, view="axial", canvas="[data-canvas]"):
    """Compares the interior, because letters for the sides stand at the middle of each edge."""
    after_drawing(page)
    difference = np.abs(_shown(page, view, canvas) - expected[..., None])
    assert difference[3:-3, 3:-3].max() <= 2


def _values(page):
    rows = page.locator("[data-values] tr").all()
    return {
        row.locator("th").inner_text(): row.locator("td").inner_text().replace("−", "-")
        for row in rows
    }


def _text(value, unit):
    return (
        f"{round(value, 1):g} {unit}".strip()
    )  # the values of the test are halves of whole numbers


@pytest.mark.parametrize("path", ["viewer", "turned"])
def test_every_view_has_right_and_left_where_radiologists_expect_them_and_values_are_of_the_voxel(
    viewer, volumes, path
):
    page = viewer(path)
    for view, (axis, _, _) in AXES.items():
        page.check(f'[name="view"][value="{view}"]')
        middle = np.take(volumes["synthesis"], SHAPE[axis] // 2, axis)
        _assert_shown(page, _grey("synthesis", middle), view)
    page.check('[name="view"][value="axial"]')
    page.click("[data-map-button]")
    page.locator("[data-values] tr").nth(3).wait_for()
    after_drawing(page)
    voxel = (6, 15, 8)
    page.mouse.move(*_point(page, *voxel[:2]))
    at = {role: float(voxels[voxel]) for role, voxels in volumes.items()}
    assert _values(page) == {
        "T1": _text(at["source"], ""),
        "Synthesised CT": _text(at["synthesis"], "HU"),
        "Interval": f"{_text(at['lower'], '')} to {_text(at['upper'], 'HU')}",
        "Interval width": _text(at["width"], "HU"),
    }
    assert page.inner_text("[data-place]") == "Values under the pointer"


def _coloured(page, voxels, low, high):
    """The colours of the legend for values in a window."""
    bar = "document.querySelector('[data-legend-bar]').getContext('2d').getImageData(0, 0, 256, 1).data"
    legend = np.array(page.evaluate(f"() => Array.from({bar})")).reshape(256, 4)[:, :3]
    return legend[np.clip(np.round((voxels - low) / (high - low) * 255), 0, 255).astype(int)]


def test_the_first_view_is_the_image_and_a_button_shows_the_map_in_the_colours_of_its_legend(
    viewer, volumes
):
    page, middle = viewer(), SHAPE[2] // 2
    button = page.locator("[data-map-button]")
    _assert_shown(page, _grey("synthesis", volumes["synthesis"][:, :, middle]))
    expect(page.locator("[data-legend]")).to_be_hidden()
    page.focus("[data-canvas]")
    for shown in ("true", "false"):
        page.keyboard.press("m")
        expect(button).to_have_attribute("aria-pressed", shown)
    button.click()
    page.locator("[data-values] tr").nth(3).wait_for()
    page.fill("[data-strength]", "100")
    after_drawing(page)
    difference = _shown(page, "axial") - _coloured(page, volumes["width"][:, :, middle], 0, 200)
    assert np.abs(difference)[3:-3, 3:-3].max() <= 8
    ends = page.inner_text("[data-legend-text]").split("\n")
    assert ends == ["0 HU", "100 HU", "200 HU or more"]


def test_a_fusion_leaves_the_source_grey_and_colours_the_bone_of_the_synthesis(viewer, volumes):
    middle = SHAPE[2] // 2
    source = _grey("source", volumes["source"][:, :, middle])
    synthesis = volumes["synthesis"][:, :, middle]
    page = viewer()
    page.check('[name="mode"][value="fusion"]')
    page.wait_for_selector("[data-legend]")
    page.fill("[data-strength]", "100")
    after_drawing(page)
    shown = _shown(page, "axial")
    inside = np.zeros(synthesis.shape, bool)
    inside[3:-3, 3:-3] = True  # letters at the edges
    bone = inside & (synthesis >= 150 + 850 * 96 / 255)
    assert np.abs(shown - source[..., None])[inside & (synthesis <= 150)].max() <= 2
    assert np.abs(shown - _coloured(page, synthesis, 150, 1000))[bone].max() <= 8
    page.fill("[data-strength]", "0")
    _assert_shown(page, source)


def test_presets_own_values_and_dragging_change_the_window(viewer, volumes):
    page = viewer()
    black, white = page.get_by_label("Black (HU)"), page.get_by_label("White")

    def assert_window(low, high):
        voxels = volumes["synthesis"][:, :, SHAPE[2] // 2]
        _assert_shown(page, 255 * np.clip((voxels - low) / (high - low), 0, 1))

    page.get_by_label("Window by name").select_option(label="Bone: −450 to 1050")
    assert_window(-450, 1050)
    black.fill("0")
    white.fill("500")
    assert_window(0, 500)
    white.fill("-10")
    assert "must be below" in page.get_by_role("alert").inner_text()
    # 2 HU a pixel: 50 to the right are 100 wider, 20 upwards are 40 brighter
    x, y = _point(page, 10, 12)
    for button in ("left", "right"):
        black.fill("0")
        white.fill("500")
        _drag(page, (x, y), (x + 50, y - 20), button=button)
        low, high = float(black.input_value()), float(white.input_value())
        assert (low, high) == pytest.approx((-90, 510))
        assert_window(low, high)
    page.click("[data-reset]")
    expect(black).to_have_value("-1000")


def test_side_by_side_moves_slices_crosshair_and_zoom_of_both_images(viewer, volumes):
    panes = {
        role: f"[data-pane]:nth-child({number}) canvas:first-child"
        for number, role in enumerate(("source", "synthesis"), 1)
    }
    page = viewer()
    page.check('[name="mode"][value="both"]')
    expect(page.locator(panes["synthesis"])).to_be_visible()
    after_drawing(page)
    page.mouse.move(*_point(page, 10, 12, panes["synthesis"]))
    page.mouse.wheel(0, -100)
    expect(page.locator("[data-slice]")).to_have_value(str(SHAPE[2] // 2 + 2))
    index = SHAPE[2] // 2 + 1
    for role, pane in panes.items():
        _assert_shown(page, _grey(role, volumes[role][:, :, index]), canvas=pane)
    page.mouse.click(*_point(page, 4, 7, panes["source"]))
    page.mouse.move(0, 0)
    assert _values(page)["Synthesised CT"] == _text(volumes["synthesis"][4, 7, index], "HU")
    # the voxel under the pointer stays under it while the picture is enlarged
    x, y = _point(page, 12, 9, panes["source"])
    page.mouse.move(x, y)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -250)
    page.keyboard.up("Control")
    after_drawing(page)
    page.mouse.move(x + 1, y)
    assert _values(page)["T1"] == _text(volumes["source"][12, 9, index], "")
    left = page.locator(panes["source"]).bounding_box()["x"]
    for role, pane in panes.items():
        column, row = round(x - left), round(y - page.locator(pane).bounding_box()["y"])
        around = pixels(page.locator(pane))[row - 6 : row + 6, column - 6 : column + 6]
        assert np.abs(around - _grey(role, volumes[role][12, 9, index])).max() <= 2


def _measured(page):
    return {
        row.locator("th").inner_text(): [
            float(number)
            for number in re.findall(r"-?[\d.]+", row.locator("td").inner_text().replace("−", "-"))
        ]
        for row in page.locator("[data-measures] tr").all()
    }


def test_a_region_and_a_histogram_have_the_numbers_of_numpy_and_a_distance_its_millimetres(
    viewer, volumes
):
    page = viewer("turned")
    page.check('[name="tool"][value="region"]')
    (x0, y0), (x1, y1) = (5.2, 6.1), (13.9, 17.4)
    _drag(page, _point(page, x0, y0), _point(page, x1, y1))
    x, y = np.ogrid[: SHAPE[0], : SHAPE[1]]
    across, down = (2 * x - x0 - x1) / (x1 - x0), (2 * y - y0 - y1) / (y1 - y0)
    inside = across**2 + down**2 <= 1
    measured = _measured(page)
    assert measured["1 region"] == [np.count_nonzero(inside)]
    for role in ("source", "synthesis"):
        values = volumes[role][:, :, SHAPE[2] // 2][inside]
        assert measured[STATED[role][0]] == pytest.approx([values.mean(), values.std()], rel=5e-3)
    page.check('[name="tool"][value="distance"]')
    _drag(page, _point(page, 3, 4), _point(page, 15, 20))
    expected = np.hypot(12 * SPACING_MM[0], 16 * SPACING_MM[1])
    assert _measured(page)["2 distance"] == pytest.approx([expected], abs=0.2)
    page.locator("[data-histogram] summary").click()
    of = page.locator("[data-histogram-of]")
    expect(of).to_contain_text(f", {np.count_nonzero(inside)} voxels")
    page.click("[data-clear]")
    expect(of).to_contain_text(f", {SHAPE[0] * SHAPE[1]} voxels")
    expect(page.locator("[data-measures-group]")).to_be_hidden()
    values = volumes["synthesis"][:, :, 3].ravel().astype(float)
    found = page.evaluate(
        "async values => (await import('/static/measure.js')).histogram(values, 20)",
        values.tolist(),
    )
    counts, edges = np.histogram(values, bins=20)
    assert found["counts"] == counts.tolist()
    assert (found["low"], found["high"]) == (edges[0], edges[-1])


def _saved(page, path):
    """The name of the saved picture, its colours, and where its drawings are."""
    with page.expect_download() as downloading:
        page.click("[data-save]")
    downloading.value.save_as(path)
    colours = np.asarray(Image.open(path).convert("RGB")).astype(int)
    yellow = (colours[..., 0] > 240) & (colours[..., 2] < 160)
    return downloading.value.suggested_filename, colours, yellow


def test_the_saved_picture_shows_what_the_screen_shows_with_what_was_measured(viewer, tmp_path):
    page = viewer(drawings=True)
    page.check('[name="mode"][value="both"]')
    expect(page.locator("[data-pane]").nth(1)).to_be_visible()
    page.check('[name="tool"][value="distance"]')
    _drag(page, _point(page, 4, 4), _point(page, 16, 10))
    stage = pixels(page.locator(".stage"))
    name, saved, yellow = _saved(page, tmp_path / "picture.png")
    assert name == f"voxlate_both_axial_{SHAPE[2] // 2 + 1}.png"
    height, half = stage.shape[0], saved.shape[1] // 2
    inside = slice(20, height - 20), slice(20, half - 20)  # without the round corners of the page
    # the stage is not placed at a whole pixel, so edges differ
    assert np.corrcoef(saved[inside].ravel(), stage[inside].ravel())[0, 1] > 0.9
    assert np.count_nonzero(yellow[inside]) > 100
    assert saved[height:].max() > 200  # the line of text below


def test_on_a_phone_one_finger_goes_through_slices_and_two_enlarge(viewer):
    page = viewer(viewport={"width": 390, "height": 844}, has_touch=True)
    page.check('[name="tool"][value="slices"]')
    touch = page.context.new_cdp_session(page)

    def send(kind, *points):
        fingers = [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    x, y = _point(page, 10, 12)
    send("touchStart", (x, y))
    send("touchMove", (x, y - 20))
    send("touchMove", (x, y - 36))
    send("touchEnd")
    expect(page.locator("[data-slice]")).to_have_value(str(SHAPE[2] // 2 + 1 + 3))
    before = _shown(page, "axial")
    send("touchStart", (x - 20, y), (x + 20, y))
    send("touchMove", (x - 40, y), (x + 40, y))
    send("touchEnd")
    after_drawing(page)
    expect(page.locator("[data-slice]")).to_have_value(str(SHAPE[2] // 2 + 1 + 3))
    change = np.abs(_shown(page, "axial") - before)
    assert change[10, 12].max() <= 2
    assert change.max() > 50


def test_an_image_that_cannot_be_read_is_named_as_such_and_leaves_the_downloads(browser, base):
    with open_page(browser, base) as watched:
        watched.page.goto(base + "gone")
        message = watched.page.locator("[data-message].error")
        message.wait_for()
        assert "downloads on this page work without the viewer" in message.inner_text()
        watched.errors.clear()  # the browser itself reports the missing file
