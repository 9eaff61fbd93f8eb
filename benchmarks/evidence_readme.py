"""README's table of what voxlate reaches, from docs/reference/references.toml. See evidence.py."""

import re
from collections.abc import Mapping
from statistics import fmean

from ledger import Reference

BLOCK = re.compile(r"(?<=<!-- evidence begin -->\n).*?(?=<!-- evidence end -->)", re.DOTALL)
# A line of the table: what was synthesised, and the rows whose mean it is.
LINES: Mapping[str, tuple[str, ...]] = {
    "T1→T2, another scanner": ("brain-openMS-t2", "brain-TCGA-t2", "brain-GLI-t2"),
    "T1→FLAIR, another scanner": ("brain-openMS-flair",),
    "MR→CT, slices of heads": ("heads-case37", "heads-case41-both-mean"),
    "MR→CT, sharp image": ("heads-case41-both-sample",),
    "MR→CT, starter untrained": ("starter-head-mr-to-ct-slices",),
    "T1→T2, starter untrained": ("starter-brain-mr-to-mr-t2",),
    "missing T2, another scanner": ("complete-TCGA-t2",),
    "TOF→CTA, phantoms": ("phantoms-tof-cta",),
}
COLUMNS = {
    "MAE": ("mae", "mae_levelled"),
    "SSIM": ("ssim",),
    "gradient ratio": ("gradient_ratio",),
    "Dice of bone": ("dice_bone",),
}


def block(references: Mapping[str, Reference]) -> str:
    """The table in Markdown, of the lines all of whose rows have references."""
    head = ["unseen patients", "naive MAE", *COLUMNS]
    lines = [f"|{'|'.join(head)}|", "|---" * len(head) + "|"]
    for title, rows in LINES.items():
        if any(row not in references for row in rows):
            continue
        known = [references[row] for row in rows]
        naive = [one.naive for one in known if one.naive is not None]
        cells = [_cell(naive, len(rows))]
        for names in COLUMNS.values():
            values = [one.scores[name] for one in known for name in names if name in one.scores]
            cells.append(_cell(values, len(rows)))
        lines.append(f"|{title}|{'|'.join(cells)}|")
    return "\n".join([*lines, ""])


def _cell(values: list[float], count: int) -> str:
    """The mean of a score over rows; "" where one of them lacks it."""
    return f"{fmean(values):.3f}" if len(values) == count else ""


def with_block(text: str, table: str) -> str:
    """A page with this table between the markers."""
    return BLOCK.sub(lambda _: table, text)
