"""Execution of the cases of a cohort: in this process, in local processes, or on a Ray cluster.

A command describes its work on one case as a `Job`, and an `Executor` applies it to all cases. The results of cases do
not depend on the executor or on the number of workers.
"""
