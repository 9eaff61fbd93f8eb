"""What commands say about folders, names and options that a new user gives them."""

from voxlate.training.recipe import text as recipe_text


def test_info_names_the_command_that_lists_a_folder_of_cases(typed, cohort):
    assert "voxlate manifest" in typed("info cohort").refusal


def test_a_modality_without_intensity_is_refused_with_the_option_that_adds_it(
    typed, tiny, prepared
):
    train = "train tiny.toml --data prepared --out r --set"
    answer = typed(f"{train} 'data.source=[\"T1\"]'")
    assert answer.code == 2
    assert "--set 'intensity.T1={kind=\"percentile\"}'" in answer.err
    advised = """'data.source=["pd"]' --set 'intensity.pd={kind="percentile"}'"""
    said = typed(f"{train} {advised}").err
    assert "expected an intensity map" not in said, "the advice is enough for the recipe"


def test_recipes_are_found_and_listed_with_their_modalities(typed):
    assert typed("recipes mrdpm").out.startswith(recipe_text.text_of("mrdpm"))
    assert "Did you mean 'mrdpm'" in typed("recipes MRDP").err
    listed = {one["name"]: one for one in typed("recipes --json").json}
    assert listed["t1_to_t2_brain"]["source"] == ["t1"]
    assert listed["t1_to_t2_brain"]["target"] == ["t2"]
