#!/usr/bin/env bash
# Run a jaxmodpo command on GPUs under SLURM, one process for each GPU.
#
#   sbatch --nodes 2 --gpus-per-node 8 --ntasks-per-node 8 launch/slurm.sh align dpo --config my.yaml
#
# Submit from the checkout, with jaxmodpo installed in .venv; --output-dir and --cache-dir must be on a file system
# that all nodes see. Two minutes before the time is up, or when it is preempted, the job is asked to end, writes a
# checkpoint, and is queued again.
#SBATCH --job-name=jaxmodpo
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -uo pipefail

if [ $# -lt 1 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
code=0
srun --kill-on-bad-exit=0 .venv/bin/jaxmodpo "$@" || code=$?
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
