"""The viewer and the upload form in a real browser, against images whose every voxel is known."""

import nibabel as nib
import numpy as np
import pytest
from browsing import WEB, after_drawing, open_browser, open_page, pixels, render, small_server

expect = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
).expect

SHAPE = (20, 24, 16)
SPACING_MM = (2.0, 2.0, 3.0)
WINDOWS = {"source": (0.0, 255.0), "synthesis": (-1000.0, 1000.0), "width": (0.0, 200.0)}
UNITS = {"source": "", "synthesis": "HU", "lower": "HU", "upper": "HU", "width": "HU"}
LABELS = {
    "source": "T1",
    "synthesis": "Synthesised CT",
    "lower": "Lower bound",
    "upper": "Upper bound",
    "width": "Interval width",
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


def _images(prefix: str = "") -> list[dict[str, object]]:
    return [
        {
            "name": "t1" if role == "source" else "ct",
            "label": LABELS[role],
            "url": f"/{prefix}{role}.nii.gz",
            "role": role,
            "unit": UNITS[role],
            "low": WINDOWS.get(role, (-1000.0, 1000.0))[0],
            "high": WINDOWS.get(role, (-1000.0, 1000.0))[1],
        }
        for role in LABELS
    ]


@pytest.fixture(scope="module")
def base(volumes, tmp_path_factory):
    """The server: /viewer shows the images, /turned the same ones stored with other axes, /several two of each."""
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
        {**image, "name": "pet", "label": f"Second {image['role']}", "url": "/width.nii.gz"}
        for image in _images()
        if image["role"] in ("source", "synthesis")
    ]
    pages = {
        "/several": render('{% include "viewer.html" %}', images=_images() + second),
        "/viewer": render('{% include "viewer.html" %}', images=_images()),
        "/turned": render('{% include "viewer.html" %}', images=_images("turned-")),
    }

    def answer(method, path, body):
        return (200, "text/html; charset=utf-8", pages[path].encode()) if path in pages else None

    with small_server(answer, folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


def _open_viewer(watched, path="viewer"):
    """Opens the viewer with sharp voxels and without a crosshair, so that a pixel shows one voxel."""
    page = watched.page
    page.goto(watched.base + path)
    page.wait_for_selector("[data-viewer][data-ready]")
    page.uncheck("[data-smooth]")
    page.uncheck("[data-crosshair]")
    page.uncheck("[data-map-shown]")
    after_drawing(page)
    return page


def _shown(page, view: str) -> np.ndarray:
    """Colours at the centres of the voxels of the shown slice, as [voxels across, voxels down, 3]."""
    _, across, down = AXES[view]
    screen = pixels(page.locator("[data-canvas]"))
    height, width, _ = screen.shape
    sizes_mm = [SHAPE[axis] * SPACING_MM[axis] for axis in (across, down)]
    scale = min(width / sizes_mm[0], height / sizes_mm[1])
    centres = [
        (SHAPE[axis] / 2 - np.arange(SHAPE[axis]) - 0.5) * SPACING_MM[axis] * scale
        for axis in (across, down)
    ]
    columns = np.round(width / 2 + centres[0] - 0.5).astype(int)
    rows = np.round(height / 2 + centres[1] - 0.5).astype(int)
    return screen[rows[None, :], columns[:, None]]


def _grey(role: str, voxels: np.ndarray) -> np.ndarray:
    low, high = WINDOWS[role]
    return 255 * np.clip((voxels - low) / (high - low), 0, 1)


def _slice(voxels: np.ndarray, view: str, index: int) -> np.ndarray:
    return np.take(voxels, index, axis=AXES[view][0])


def _assert_same(shown: np.ndarray, expected: np.ndarray) -> None:
    """Compares the interior, because letters for the sides stand at the middle of each edge."""
    interior = (slice(3, -3), slice(3, -3))
    difference = np.abs(shown[interior] - expected[..., None][interior])
    assert difference.max() <= 2


def _values(page) -> dict[str, str]:
    rows = page.locator("[data-values] tr").all()
    return {
        row.locator("th").inner_text(): row.locator("td").inner_text().replace("−", "-")
        for row in rows
    }


def _text(value: float, unit: str) -> str:
    return (
        f"{round(value, 1):g} {unit}".strip()
    )  # the values of the test are halves of whole numbers


@pytest.mark.parametrize("path", ["viewer", "turned"])
def test_every_view_has_right_and_left_where_radiologists_expect_them_and_values_are_of_the_voxel(
    browser, base, volumes, path
):
    with open_page(browser, base) as watched:
        page = _open_viewer(watched, path)
        for view, (axis, _, _) in AXES.items():
            page.check(f'[name="view"][value="{view}"]')
            after_drawing(page)
            middle = SHAPE[axis] // 2
            expected = _grey("synthesis", _slice(volumes["synthesis"], view, middle))
            _assert_same(_shown(page, view), expected)
        page.check('[name="view"][value="axial"]')
        page.check("[data-map-shown]")
        page.locator("[data-values] tr").nth(3).wait_for()
        after_drawing(page)
        voxel = (6, 15, 8)
        box = page.locator("[data-canvas]").bounding_box()
        scale = min(
            box["width"] / (SHAPE[0] * SPACING_MM[0]), box["height"] / (SHAPE[1] * SPACING_MM[1])
        )
        from_middle = [(SHAPE[axis] / 2 - voxel[axis] - 0.5) * SPACING_MM[axis] for axis in (0, 1)]
        page.mouse.move(
            box["x"] + box["width"] / 2 + from_middle[0] * scale,
            box["y"] + box["height"] / 2 + from_middle[1] * scale,
        )
        at = {role: float(voxels[voxel]) for role, voxels in volumes.items()}
        assert _values(page) == {
            "T1": _text(at["source"], ""),
            "Synthesised CT": _text(at["synthesis"], "HU"),
            "Interval": f"{_text(at['lower'], '')} to {_text(at['upper'], 'HU')}",
            "Interval width": _text(at["width"], "HU"),
        }
        assert page.inner_text("[data-place]") == "Values under the pointer"


def test_keys_wheel_and_slider_move_by_whole_slices(browser, base, volumes):
    with open_page(browser, base) as watched:
        page = _open_viewer(watched)
        canvas = page.locator("[data-canvas]")
        canvas.focus()
        expected = SHAPE[2] // 2
        for key, change in (("ArrowUp", 1), ("PageDown", -10), ("ArrowUp", 1), ("ArrowDown", -1)):
            page.keyboard.press(key)
            expected = max(expected + change, 0)
            assert page.input_value("[data-slice]") == str(expected + 1)
        canvas.hover()
        page.mouse.wheel(0, -100)
        expect(page.locator("[data-slice]")).to_have_value("2")
        page.fill("[data-slice]", "5")
        after_drawing(page)
        _assert_same(
            _shown(page, "axial"), _grey("synthesis", _slice(volumes["synthesis"], "axial", 4))
        )
        page.keyboard.press("Tab")
        canvas.focus()
        page.keyboard.press("End")
        assert page.input_value("[data-slice]") == str(SHAPE[2])
        assert "16 of 16" in page.inner_text("[data-slice-text]")


def test_the_map_is_shown_at_once_in_the_colours_of_its_legend(browser, base, volumes):
    with open_page(browser, base) as watched:
        page = watched.page
        page.goto(base + "viewer")
        page.wait_for_selector("[data-viewer][data-ready]")
        assert page.is_checked("[data-map-shown]")
        assert page.locator("[data-legend]").is_visible()
        page.uncheck("[data-smooth]")
        page.uncheck("[data-crosshair]")
        page.focus("[data-canvas]")
        for shown in (False, True):
            page.keyboard.press("m")
            assert page.is_checked("[data-map-shown]") == shown
        page.fill("[data-map-opacity]", "100")
        page.locator("[data-values] tr").nth(3).wait_for()
        after_drawing(page)
        bar = "document.querySelector('[data-legend-bar]').getContext('2d').getImageData(0, 0, 256, 1).data"
        legend = np.array(page.evaluate(f"() => Array.from({bar})")).reshape(256, 4)[:, :3]
        width = _slice(volumes["width"], "axial", SHAPE[2] // 2)
        steps = np.clip(np.round(width / 200 * 255), 0, 255).astype(int)
        interior = (slice(3, -3), slice(3, -3))
        difference = np.abs(_shown(page, "axial")[interior] - legend[steps][interior])
        assert difference.max() <= 8
        assert page.inner_text("[data-legend-text]").split("\n") == [
            "0 HU",
            "100 HU",
            "200 HU or more",
        ]


def test_the_blend_a_named_window_and_own_values_change_the_greys_as_stated(browser, base, volumes):
    middle = SHAPE[2] // 2
    source = _grey("source", _slice(volumes["source"], "axial", middle))
    synthesis = _grey("synthesis", _slice(volumes["synthesis"], "axial", middle))
    with open_page(browser, base) as watched:
        page = _open_viewer(watched)
        for percent in (0, 50, 100):
            page.fill("[data-blend]", str(percent))
            after_drawing(page)
            share = percent / 100
            _assert_same(_shown(page, "axial"), share * synthesis + (1 - share) * source)
        controls = page.locator('[data-window="synthesis"]')
        controls.get_by_label("Window").select_option("Bone")
        after_drawing(page)
        voxels = _slice(volumes["synthesis"], "axial", middle)
        _assert_same(_shown(page, "axial"), 255 * np.clip((voxels + 450) / 1500, 0, 1))
        controls.get_by_label("Shown as black (HU)").fill("0")
        controls.get_by_label("Shown as white (HU)").fill("500")
        after_drawing(page)
        _assert_same(_shown(page, "axial"), 255 * np.clip(voxels / 500, 0, 1))
        controls.get_by_label("Shown as white (HU)").fill("-10")
        assert "must be below" in controls.get_by_role("alert").inner_text()


def test_a_browser_without_webgl2_says_so_and_shows_the_middle_slices(browser, base, volumes):
    with open_page(browser, base) as watched:
        page = watched.page
        page.add_init_script(
            """const open = HTMLCanvasElement.prototype.getContext;
            HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
              return kind.startsWith("webgl") ? null : open.call(this, kind, ...rest);
            };"""
        )
        page.goto(base + "viewer")
        page.wait_for_selector("[data-viewer][data-ready]")
        assert "no WebGL2" in page.inner_text(".warning")
        canvas = 'canvas[aria-label="Synthesised CT, middle axial slice"]'
        drawn = page.evaluate(
            f"""() => {{
              const canvas = document.querySelector('{canvas}');
              const {{ width, height }} = canvas;
              return Array.from(canvas.getContext('2d').getImageData(0, 0, width, height).data);
            }}"""
        )
        picture = np.array(drawn).reshape(SHAPE[1], SHAPE[0], 4)[::-1, ::-1, 0].T
        expected = _grey("synthesis", volumes["synthesis"][:, :, SHAPE[2] // 2])
        assert np.abs(picture - expected).max() <= 1


def test_a_second_source_and_a_second_synthesis_can_be_chosen(browser, base, volumes):
    with open_page(browser, base) as watched:
        page = _open_viewer(watched, "several")
        middle = _slice(volumes["width"], "axial", SHAPE[2] // 2)
        page.get_by_label("Source image").select_option("Second source")
        page.get_by_role("button", name="Source", exact=True).click()
        page.locator("[data-values] th", has_text="Second source").wait_for()
        after_drawing(page)
        _assert_same(_shown(page, "axial"), _grey("source", middle))
        page.get_by_label("Synthesised image").select_option("Second synthesis")
        page.get_by_role("button", name="Synthesis", exact=True).click()
        page.locator("[data-values] th", has_text="Second synthesis").wait_for()
        after_drawing(page)
        _assert_same(_shown(page, "axial"), _grey("synthesis", middle))
        expect(page.locator("[data-map-group]")).to_be_hidden()  # the map belongs to the first


def test_an_image_that_cannot_be_read_is_named_as_such_and_leaves_the_downloads(browser, base):
    page_without_image = render(
        '{% include "viewer.html" %}', images=[{**_images()[1], "url": "/missing.nii.gz"}]
    )
    with (
        small_server(
            lambda _, path, __: (
                (200, "text/html; charset=utf-8", page_without_image.encode())
                if path == "/viewer"
                else None
            ),
            WEB,
        ) as address,
        open_page(browser, address) as watched,
    ):
        watched.page.goto(address + "viewer")
        message = watched.page.locator("[data-message].error")
        message.wait_for()
        assert "downloads on this page work without the viewer" in message.inner_text()
        watched.errors.clear()  # the browser itself reports the missing file
