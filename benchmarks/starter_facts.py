"""Writes what a check asks of each starter of the package beside its weights: python benchmarks/starter_facts.py, after each change of a starter."""

from voxlate.training.starters.names import folder_of, starter_names
from voxlate.training.torch_network import write_facts

if __name__ == "__main__":
    for starter in starter_names():
        write_facts(folder_of(starter))
