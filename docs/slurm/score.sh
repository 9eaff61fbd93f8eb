#!/usr/bin/env bash
# Score what an array synthesised. A case without an image is listed, and the job ends with exit code 2.
#   sbatch --dependency=afterany:JOB --export=ALL,COHORT=cohort,OUT=out docs/slurm/score.sh
#SBATCH --job-name=voxlate-score
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=01:00:00
set -eu

srun voxlate evaluate "$OUT" --truth "$COHORT"
srun voxlate report "$OUT"
