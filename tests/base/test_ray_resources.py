"""The CPUs and GPUs of Ray workers, on clusters that are stated."""

from rows import every_row
from voxlate.base.executors.ray_resources import Node, Resources, nodes_of, resources_for
from voxlate.base.executors.worker import say_crowded

FOUR_SMALL = [Node(3)] * 4
GPU_NODES = [Node(64), Node(8, gpus=4), Node(8, gpus=4)]


@every_row(
    "nodes, wanted, cpus, gpu, expected",
    [
        ([Node(16)], 8, 4, False, Resources(8, 2)),
        ([Node(2)], None, 4, False, Resources(1, 2)),
        (FOUR_SMALL, None, 4, False, Resources(4, 3)),  # a worker of 4 CPUs fits on none
        (FOUR_SMALL, 50, 4, False, Resources(50, 1)),  # 38 wait for further nodes
        ([Node(0), Node(8)], None, 1, False, Resources(8, 1)),
        ([], None, 4, True, Resources(1, 1)),
        (GPU_NODES, None, 4, True, Resources(8, 2, 1.0)),  # the CPUs of the first node are no use
        (GPU_NODES, 10, 4, True, Resources(10, 1, 0.5)),
        (GPU_NODES, None, 4, False, Resources(20, 4)),
    ],
)
def test_every_worker_fits_on_a_node(nodes, wanted, cpus, gpu, expected):
    assert resources_for(nodes, 1000, wanted, cpus, gpu) == expected


def test_there_are_no_more_workers_than_cases():
    assert resources_for([Node(16)], 2, None, 1, False) == Resources(2, 1)
    assert resources_for(GPU_NODES, 3, 9, 4, True) == Resources(3, 2, 1.0)


def test_nodes_that_are_dead_do_not_count():
    stated = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0, "memory": 1e9}},
        {"Alive": True, "Resources": {"memory": 1e9}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    assert nodes_of(stated) == [Node(8, 1), Node(0)]


def test_workers_with_more_threads_than_cores_are_said():
    said = []
    say_crowded(2, 2, said.append)
    assert said == []
    say_crowded(4, 2, said.append)
    (told,) = said
    assert "4 threads on 2 of" in told.text
    assert "OMP_NUM_THREADS=2" in told.text
