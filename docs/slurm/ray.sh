#!/bin/bash
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1
#SBATCH --time=04:00:00
# Synthesis of a cohort by a Ray cluster of all nodes of the job (voxlate[ray]). A repeated job keeps finished cases.
#
#   sbatch --export=ALL,RUN=run,COHORT=COHORT,OUT=out,SPLIT=test docs/slurm/ray.sh
set -euo pipefail
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
    voxlate synth "$RUN" "$COHORT" --out "$OUT" ${SPLIT:+--split "$SPLIT"} \
    --executor ray --address "$head:6379"
