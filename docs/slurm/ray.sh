#!/bin/bash
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1
#SBATCH --time=04:00:00
# prepare, train, synth, evaluate or calibrate by a Ray cluster of all nodes of the job (voxlate[ray]). A repeated job keeps
# finished cases.
#
#   sbatch docs/slurm/ray.sh synth run COHORT --out out --split test
set -euo pipefail
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" -- \
    env RAY_ADDRESS="$head:6379" voxlate "$@" --executor ray
