"""Where the names of the package are; release/stub.py writes their types into __init__.pyi."""

from voxlate.base.errors import BadInput as BadInput
from voxlate.commands.api.choosing import list_starters as list_starters
from voxlate.commands.api.choosing import plan as plan
from voxlate.commands.api.choosing import recipes as recipes
from voxlate.commands.api.cohorts import info as info
from voxlate.commands.api.cohorts import manifest as manifest
from voxlate.commands.api.cohorts import phantom as phantom
from voxlate.commands.api.cohorts import prepare as prepare
from voxlate.commands.api.demo import demo as demo
from voxlate.commands.api.exports import export as export
from voxlate.commands.api.exports import listen as listen
from voxlate.commands.api.exports import push as push
from voxlate.commands.api.images import check as check
from voxlate.commands.api.images import load as load
from voxlate.commands.api.images import synthesise as synthesise
from voxlate.commands.api.images import synthesize as synthesize
from voxlate.commands.api.scoring import compare as compare
from voxlate.commands.api.scoring import evaluate as evaluate
from voxlate.commands.api.scoring import report as report
from voxlate.commands.api.training import adapt as adapt
from voxlate.commands.api.training import calibrate as calibrate
from voxlate.commands.api.training import import_weights as import_weights
from voxlate.commands.api.training import train as train
from voxlate.page.server import serve as serve
from voxlate.scans.images.grid import Volume as Volume
