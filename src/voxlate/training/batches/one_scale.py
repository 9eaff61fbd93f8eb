"""Whether the scans of a training are on one scale, which is that of the recipe's intensity maps."""

from voxlate.scans.cases.prepared import Cohort
from voxlate.synthesis.intensity_checks import check_filled, check_floor, check_one_scale
from voxlate.training.batches.patches import DataSettings, training_cases
from voxlate.training.recipe import Recipe


def check_scale(cohort: Cohort, data: DataSettings, recipe: Recipe) -> None:
    """Raise BadInput as check_one_scale, check_floor and check_filled do, of the training cases of a stage's data."""
    where = cohort.folder
    headers = [cohort.header(case) for case in training_cases(cohort, data)]
    check_one_scale(headers, data.target, where)
    for name in sorted(data.modalities):
        spec = recipe.intensity[name]
        for header in headers:
            check_floor(name, spec, header, f"{where}: {header.case}")
        check_filled(name, spec, headers, where)
