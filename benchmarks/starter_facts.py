"""Writes what a check asks of each starter of the package beside its weights: python benchmarks/starter_facts.py, after each change of a starter."""

from voxlate.base.config import adapter
from voxlate.base.files import write_json
from voxlate.synthesis.facts import ModelFacts
from voxlate.training.load import FACTS, load
from voxlate.training.starters.names import folder_of, starters_to_run

if __name__ == "__main__":
    for starter in starters_to_run():
        facts = adapter(ModelFacts).dump_python(load(starter).facts, mode="json")
        write_json(folder_of(starter) / FACTS, facts)
