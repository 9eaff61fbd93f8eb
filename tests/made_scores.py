"""Scores that are made by hand, to test what is computed from them."""

import math
from types import MappingProxyType

from voxlate.evaluation.scoring.case_scores import Row
from voxlate.evaluation.scoring.scores import Scores, frame_of, section_names

NONE = MappingProxyType({})
PART = {"unit": "HU", "range": [-1024, 3071], "range_rule": "", "own_peak": False, "mask": "body"}
PART |= {"ssim_from": "low", "lpips": None, "features": None}
PART |= {"slices": 3, "distances": {}}

# The least that the provenance of a run states of its recipe.
STORED_RECIPE = {
    "title": "made up",
    "data": {"source": ["t1"], "target": ["ct"]},
    "net": {"kind": "unet"},
    "method": {"kind": "regression"},
    "train": {},
}


def made_scores(values, patients=None, part=NONE, **header):
    """Scores of cases c0, c1, … of patients p0, p1, …; values: by modality, method and key a list over the cases.

    None in a list stands for a score that is not finite; part: changes of the conventions of all modalities.
    """
    rows = []
    for modality, methods in values.items():
        for method, scores in methods.items():
            for number in range(max(map(len, scores.values()))):
                own = {
                    key: math.nan if value is None else value
                    for key, listed in scores.items()
                    for value in listed[number : number + 1]
                }
                patient = patients[number] if patients else f"p{number}"
                rows.append(Row(f"c{number}", patient, modality, method, own))
    stated = {"regions": {}, "scopes": {}, **header}
    stated["modalities"] = {name: {**PART, **part, "modality": name} for name in values}
    frame = frame_of(rows, stated)
    trained = frame["case"].isin(header.get("trained_on", ()))
    names = section_names(zip(frame["modality"], frame["fold"], trained))
    sections = dict(zip(names, frame["modality"]))
    stated["modalities"] = {name: stated["modalities"][of] for name, of in sections.items()}
    return Scores(stated, frame)
