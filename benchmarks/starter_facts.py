"""Writes what a check asks of each starter of the package, and its graph, beside its weights: python benchmarks/starter_facts.py, after each change of a starter."""

from voxlate.exchange.graph import write_run_graph
from voxlate.training.starters.names import folder_of, starter_names
from voxlate.training.torch_network import write_facts

if __name__ == "__main__":
    for starter in starter_names():
        write_facts(folder_of(starter))
        write_run_graph(folder_of(starter))
