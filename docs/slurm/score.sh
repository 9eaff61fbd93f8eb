#!/usr/bin/env bash
# Score what an array synthesised, and write its report. A case without an image is listed, and the job ends with exit code 3.
#   sbatch --dependency=afterany:JOB --export=ALL,COHORT=cohort,OUT=out docs/slurm/score.sh
#SBATCH --job-name=voxlate-score
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=01:00:00
set -eu

code=0
srun voxlate evaluate "$OUT" --truth "$COHORT" || code=$?
if [ "$code" -eq 0 ] || [ "$code" -eq 3 ]; then
    srun voxlate report "$OUT"
fi
exit "$code"
