#!/usr/bin/env bash
# Run a jaxmodpo command on GPUs under SLURM, one process for each GPU.
#
#   sbatch --nodes 2 --gpus-per-node 8 --ntasks-per-node 8 launch/slurm.sh align dpo --config my.yaml
#
# For responses start one process on each node instead; --share HOST HOSTS, word for word, becomes its number and
# how many there are:
#
#   sbatch --nodes 2 --gpus-per-node 8 --ntasks-per-node 1 launch/slurm.sh responses --share HOST HOSTS …
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
  sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
code=0
# Only the task that srun starts knows its own number.
srun --kill-on-bad-exit=0 bash -c '
  arguments=("$@")
  for ((i = 0; i + 2 < $#; i++)); do
    if [ "${arguments[*]:i:3}" = "--share HOST HOSTS" ]; then
      arguments[i + 1]=$SLURM_PROCID
      arguments[i + 2]=$SLURM_STEP_NUM_TASKS
    fi
  done
  exec .venv/bin/jaxmodpo "${arguments[@]}"' jaxmodpo "$@" || code=$?
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
