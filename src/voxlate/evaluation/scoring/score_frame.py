"""One long table of scores with a row for each value, of which means, verdicts and tests are groups or pivots."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from pandas import DataFrame

from voxlate.base.errors import plural
from voxlate.base.messages import UNOWNED, read_messages
from voxlate.base.statistics import bootstrap, fixed_text, mean_and_sd
from voxlate.evaluation.scoring.case_scores import Row
from voxlate.evaluation.scoring.metrics import METRIC_OF, Metric, metrics_of
from voxlate.evaluation.scoring.scored_regions import BONE
from voxlate.scans.images.ranges import WHOLE_MASK
from voxlate.training.verdict import METRIC, SYNTHESIS, UNOWNED_CLAUSE, Verdict, verdict_on

HEAD = ["case", "patient", "modality", "method"]
TEXTS = [*HEAD, "scope", "region", "metric", "unit"]
COLUMNS = [*TEXTS, "value", "clipped"]
Document = Mapping[str, Any]
Table = dict[str, Any]
# Share of the true volume of bone, from 120 HU: of 3000 images of 117 evaluations, some after a training of three minutes,
# 0.13 or more, and in the median of each evaluation 0.70 or more; of a model of pelves on a thorax 0.
LEAST_BONE = 0.1
NETWORK_METRIC = METRIC_OF["mae_network"]  # of MR that is scored in shares of its own peak


@dataclass(frozen=True, eq=False)
class ScoreFrame:
    """The values of an evaluation, and what is computed from them; header, frame, pictures: see `Scores`."""

    header: Document
    frame: DataFrame
    pictures: DataFrame | None = None

    @cached_property
    def keyed(self) -> DataFrame:
        """The table with the key of each value, such as bone.dice."""
        area = self.frame["scope"] + self.frame["region"]
        return self.frame.assign(key=(area + "." + self.frame["metric"]).str.removeprefix("."))

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that these scores may have, by key."""
        return metrics_of(self.header)

    @cached_property
    def patients(self) -> dict[str, str]:
        """The patient of each case."""
        return dict(zip(self.frame["case"], self.frame["patient"]))

    @cached_property
    def labels(self) -> set[str]:
        """The scored images as CASE/MODALITY."""
        return {*(self.frame["case"] + "/" + self.frame["modality"])}

    @cached_property
    def parts(self) -> dict[str, Table]:
        """The conventions of each modality, and its numbers of cases and patients."""
        stated = self.header.get("modalities", {})
        counts = self.frame.groupby("modality").agg(
            cases=("case", "nunique"), patients=("patient", "nunique")
        )
        return {name: part | counts.loc[name].to_dict() for name, part in stated.items()}

    def by_case(self, modality: str, method: str = SYNTHESIS) -> DataFrame:
        """The scores of a method by case, with a column for each key."""
        keyed = self.keyed
        chosen = keyed[(keyed["modality"] == modality) & (keyed["method"] == method)]
        return chosen.pivot(index="case", columns="key", values="value")

    def errors(self, modality: str, key: str) -> dict[str, dict[str, float]]:
        """The finite values of a score by method and case."""
        keyed = self.keyed
        chosen = keyed[(keyed["modality"] == modality) & (keyed["key"] == key)]
        groups = chosen[np.isfinite(chosen["value"])].groupby("method", sort=False)
        return {method: dict(zip(own["case"], own["value"])) for method, own in groups}

    @cached_property
    def means(self) -> dict[str, dict[str, dict[str, Table]]]:
        """Mean, standard deviation and interval over cases by modality, method and key; of distances over all cases at once."""
        means: dict[str, dict[str, dict[str, Table]]] = {}
        for (name, method, key), rows in self.keyed.groupby(
            ["modality", "method", "key"], sort=False
        ):
            one_patient = self.parts[name]["patients"] == 1
            kept = rows[np.isfinite(rows["value"])]
            values = kept["value"].to_numpy(np.float64)
            # Cases of one patient are not independent, so that patients are drawn with all their cases.
            groups = kept["case" if one_patient else "patient"].tolist()
            means.setdefault(name, {}).setdefault(method, {})[key] = {
                **mean_and_sd(values),
                "ci95": bootstrap(values, groups, self.header["seed"]),
                "n": len(values),
                "not_finite": len(rows) - len(values),
                "unit": rows["unit"].iloc[0],
            }
        for name, part in self.parts.items():
            for method, pooled in part["distances"].items():
                means[name][method] |= pooled
        if self.pictures is None:
            return means
        # Mean and standard deviation over all pictures of all cases, as papers on slices state.
        for (name, method, scope), rows in self.pictures.groupby(["modality", "method", "scope"]):
            for key, entry in means[name][method].items():
                area, _, metric = key.rpartition(".")
                if area == scope:
                    kept = rows[metric][np.isfinite(rows[metric])].to_numpy()
                    counts = {"n": len(kept), "not_finite": len(rows) - len(kept)}
                    entry["pictures"] = mean_and_sd(kept) | counts
        return means

    @cached_property
    def known(self) -> set[str]:
        """The keys with at least one mean, and those of the user's own metrics."""
        own = self.header.get("own_metrics", ())
        methods = chain.from_iterable(of.values() for of in self.means.values())
        return {key for of in methods for key in of if key in own or of[key]["mean"] is not None}

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdict on each modality: whether its syntheses are better than the best naive baseline."""
        return [_lacks_bone(_verdict(name, self), self) for name in self.parts]


def frame_of(rows: Iterable[Row], header: Document) -> DataFrame:
    """The long table of the scores of cases."""
    metrics = metrics_of(header)
    lines = []
    for row in rows:
        unit = header["modalities"][row.modality]["unit"]
        for key, value in row.scores.items():
            area, _, name = key.rpartition(".")
            places = ("", area) if area in header["regions"] else (area, "")
            metric = metrics[key]
            of_value = "share" if metric.scale != 1 else metric.unit_for(unit)
            lines.append((*row.head, *places, name, of_value, float(value), row.clipped))
    return DataFrame(lines, columns=COLUMNS)


def _verdict(name: str, scores: ScoreFrame) -> Verdict:
    """Whether the syntheses of a modality are better than the best naive baseline."""
    header = scores.header
    part = scores.parts[name]
    left_out = {*header.get("wrong_truths", ())} - scores.labels
    wrong = sum(label.endswith(f"/{name}") for label in left_out)
    none = ""
    if name in header.get("given_truth", ()):
        none = "the truth itself was given to the model, so this is a bound and no synthesis"
    elif wrong > part["cases"]:
        none = f"most truths ({wrong} of {wrong + part['cases']}) cannot be those of their images: check the cohort"
    if none:
        return Verdict(name, "unknown", f"No result: {none}.", unit=part["unit"])
    own = scores.errors(name, METRIC)
    cases = own.get(SYNTHESIS, {}).keys()
    said = read_messages(header, "messages")
    grave, doubted = (
        {one.case.removesuffix(f"/{name}") for one in said if one.grade in grades} & cases
        for grades in (("do not trust",), ("caution", "do not trust"))
    )
    reserves = {
        "in the training": header.get("trained_on", ()),
        "with a truth that is not to be trusted": grave,
        "with a doubtful truth (see above)": doubted - grave
        if 2 * len(doubted) > len(cases)
        else (),
    }
    clauses = [
        f"{count} of {plural(len(cases), 'case')} {what}"
        for what, some in reserves.items()
        if (count := len(cases & {*some}))
    ]
    if any(one.code == UNOWNED for one in said):
        clauses.append(UNOWNED_CLAUSE)
    clause = "; ".join(clauses)
    mask = part["mask"]
    where = "" if mask == WHOLE_MASK else f" inside the mask {mask}"
    patients = scores.patients
    stated = verdict_on(name, own, patients, part["unit"], where, clause)
    if worse := dict(_worse_in(stated, scores)):
        in_parts = ", ".join(
            f"{region.replace('_', ' ')} ({text})" for region, text in worse.items()
        )
        inside = "inside the body " if mask == WHOLE_MASK else ""
        sentence = f"{stated.sentence} Worse than {stated.baseline} {inside}in {in_parts}."
        stated = replace(stated, sentence=sentence, worse_in=tuple(worse))
    # Training judges in network units, in which a wrong overall brightness is an error.
    on_255 = scores.errors(name, NETWORK_METRIC.key)
    other = verdict_on(name, on_255, patients, NETWORK_METRIC.unit, where, clause)
    if "unknown" in (stated.outcome, other.outcome) or stated.outcome == other.outcome:
        return stated
    sentence = f"The result depends on the unit. With each image divided by its own peak: {stated.sentence} In network units (0 to 255, as in training; --units network), where a wrong brightness is an error: {other.sentence}"
    return replace(stated, outcome="unclear", sentence=sentence)


def _lacks_bone(stated: Verdict, scores: ScoreFrame) -> Verdict:
    """The verdict, which is "worse" where most images have almost none of the bone of their truths."""
    keys = [f"{BONE}.volume", f"{BONE}.truth_volume"]
    ours, theirs = scores.by_case(stated.modality).reindex(columns=keys).dropna().to_numpy().T
    without = ours < LEAST_BONE * theirs
    if 2 * without.sum() <= len(without):
        return stated
    lacks = f"{without.sum()} of {plural(len(without), 'image')} lack the bone of their truths ({ours[without].mean():.1f} ml against {theirs[without].mean():.1f} ml on average)"
    sentence = f"Do not use: {lacks}. {stated.sentence}"
    return replace(stated, outcome="worse", sentence=sentence, lacks=lacks)


def _worse_in(overall: Verdict, scores: ScoreFrame) -> Iterator[tuple[str, str]]:
    """Regions where a synthesis is worse than the baseline that is the best one overall, with both errors or overlaps."""
    for region in scores.header.get("regions", ()):
        for key in ("mae", "dice") if region == BONE else ("mae",):
            errors = {
                method: {case: 1 - value if key == "dice" else value for case, value in of.items()}
                for method, of in scores.errors(overall.modality, f"{region}.{key}").items()
                if method in (SYNTHESIS, overall.baseline)
            }
            verdict = verdict_on(overall.modality, errors, scores.patients, overall.unit, "")
            if verdict.outcome != "worse":
                continue
            ours = verdict.synthesis or 0.0
            theirs = verdict.naive or 0.0
            if key == "dice":
                yield region, f"Dice {1 - ours:.3f} against {1 - theirs:.3f}"
            else:
                texts = (fixed_text(value, theirs, fits=True) for value in (ours, theirs))
                yield region, f"{' against '.join(texts)} {overall.unit}"
            break
