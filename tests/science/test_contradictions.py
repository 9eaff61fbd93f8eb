"""Keys of a recipe that contradict each other or the science: each is refused in one sentence that names the key."""

from refusals import refuses
from rows import every_row
from voxlate.training import recipe

FLOW, CYCLE, BRAIN = "mr_to_ct_slices_flow", "cyclegan_tmax_small", "t1_to_t2_brain"
SCORE, MAP = "mr_to_ct_em_small", "mrdpm_small"


@every_row(
    "name, changes, words",
    [
        ("umm_csgm_small", {"task.curriculum": "[[0.5, 0.2], [0.4, 0.5]]"}, r"task\.curriculum"),
        ("umm_csgm_small", {"task.curriculum": "[[1.5, 0.5]]"}, r"task\.curriculum"),
        ("mr_to_ct_cnn", {"task.range": "[1, 0]"}, r"task\.range: expected a lower and an upper"),
        ("mr_to_ct_cnn", {"method.leak": "0.1"}, r"task\.range"),
        (FLOW, {"synth.eta": "1.0"}, r"synth\.eta"),
        (BRAIN, {"method": '{ kind = "flow" }', "stages": "[]"}, r"task\.kind = 'residual'"),
        (BRAIN, {"method.windows.brain": "[0.2, 0.1]"}, r"method\.windows\.brain as \[low"),
        (BRAIN, {"method.windows.brain": "[5, 80]"}, r"method\.windows\.brain as \[low"),
        (BRAIN, {"method.borders": "{ bone = [0, 0, 1] }"}, r"method\.borders\.bone, found 0"),
        (BRAIN, {"method.extras": "{ codes = 1.0 }"}, r"method\.extras of none"),
        ("coca_gan_small", {"data.labels": "[]"}, r"one label map in data\.labels"),
        ("mm_gan_small", {"opponent.critic.maps": "3"}, r"opponent\.critic\.maps"),
        (CYCLE, {"task": '{ kind = "complete" }'}, "task.kind"),
        (CYCLE, {"method.identity": "5.0"}, "found 4 and 1"),
        (MAP, {"net": '{ kind = "xmodality_unet" }'}, "'unet' of the network"),
        (MAP, {"data.centred": "false"}, r"data\.centred"),
        ("pix2pix_swi_mra_small", {"net.regions": "3"}, "regions"),
        ("pix2pix_swi_mra_small", {"net.drop_block": "2"}, "odd side"),
        (SCORE, {"method.schedule": '{ kind = "sigmoid", start = 1, end = 1 }'}, "sigmoid"),
        (SCORE, {"method.schedule": '{ kind = "linear_betas", count = 1 }'}, "count"),
        (SCORE, {"method.schedule": '{ kind = "flow", speed = 2 }'}, "speed"),
        (
            SCORE,
            {"method.weight": '{ kind = "table", log_snr = [1, 0], weight = [1, 1] }'},
            "rising log_snr",
        ),
        (SCORE, {"synth.windows": "{ size = 4, overlap = 4 }"}, r"synth\.windows"),
        (SCORE, {"synth.sampler": "no_such"}, r"synth\.sampler"),
        (SCORE, {"synth.sampler": "dpmpp_2m", "synth.eta": "0.5"}, r"synth\.eta"),
        (SCORE, {"synth.noise": '{ kind = "correlated", length_mm = 0 }'}, "length_mm"),
        (SCORE, {"synth.r": "0"}, r"synth.*r.* found"),
    ],
)
def test_a_contradiction_is_refused_by_the_name_of_its_key(name, changes, words):
    with refuses(words):
        made = recipe.read(name, changes)
        made.build()
