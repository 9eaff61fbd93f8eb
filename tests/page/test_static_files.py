"""Files that the page serves: vendored libraries as published, and colours that can be read."""

import hashlib
import re
from pathlib import Path

import voxlate
from rows import every_row

STATIC = Path(voxlate.__file__).parent / "page" / "static"


@every_row("name", ["htmx.min.js", "niivue.umd.js"])
def test_a_vendored_library_is_the_published_file_that_the_readme_names_with_its_licence(name):
    readme = (STATIC / "README.md").read_text()
    (stated,) = re.findall(rf"^\| `{name}`.*`([0-9a-f]{{64}})`", readme, flags=re.M)
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == stated
    licence = STATIC / "licences" / f"{name.split('.')[0]}.txt"
    assert "SOFTWARE IS PROVIDED" in licence.read_text()


# Text on its background needs 4.5 to 1, edges of controls and the focus ring 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11).
PAGE = ("paper", "card", "tint")
CONTRASTS = (
    *((front, PAGE, 4.5) for front in ("ink", "soft", "accent")),
    *((front, (f"{front}-tint",), 4.5) for front in ("warn", "good", "bad")),
    ("on-accent", ("accent",), 4.5),
    ("edge", PAGE[:2], 3.0),
    ("focus", PAGE, 3.0),
)


def _palettes():
    text = (STATIC / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks)
    return {"light": light, "dark": light | dark}


def _luminance(colour):
    """Relative luminance of an sRGB colour. Source: WCAG 2.2, "relative luminance"."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """Contrast ratio of two colours, from 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@every_row("scheme", ["light", "dark"])
def test_every_pair_of_colours_that_the_page_uses_can_be_read(scheme):
    palette = _palettes()[scheme]
    for front, backs, least in CONTRASTS:
        for back in backs:
            assert contrast(palette[front], palette[back]) >= least, f"--{front} on --{back}"


def test_no_rule_of_the_style_sheet_uses_a_colour_outside_the_palette():
    rules = re.sub(r":root \{.*?\}", "", (STATIC / "page.css").read_text(), flags=re.DOTALL)
    assert set(re.findall(r"#[0-9a-fA-F]{3,8}\b", rules)) == {"#000000"}
