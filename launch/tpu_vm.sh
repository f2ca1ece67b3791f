#!/usr/bin/env bash
# Run a jaxmodpo command on a TPU VM, on all hosts of its slice, over gcloud.
#
#   launch/tpu_vm.sh NAME ZONE COMMAND [ARGUMENTS …]
#   launch/tpu_vm.sh my-tpu us-west4-a run configs/my_experiment.yaml --output-dir /mnt/shared/out
#
# The checkout is copied to ~/jaxmodpo on every host and installed there with the TPU extra; the command runs in
# it. Asked to end (exit code 75) it is started again, three times at most. Run the same line again after a
# disconnection or a preemption: finished phases are skipped, the interrupted one goes on.
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
git -C "$root" archive --format=tar.gz --output="$archive" HEAD

gcloud compute tpus tpu-vm scp "$archive" "$name:jaxmodpo.tar.gz" --zone "$zone" --worker=all
printf -v arguments '%q ' "$@"
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "
  set -e
  mkdir -p jaxmodpo && tar -xzf jaxmodpo.tar.gz -C jaxmodpo && cd jaxmodpo
  [ -x .venv/bin/python ] || python3 -m venv .venv
  .venv/bin/pip install --quiet '.[tpu]'
  for attempt in 1 2 3 4; do
    code=0
    .venv/bin/jaxmodpo $arguments || code=\$?
    [ \$code -eq 75 ] || exit \$code
  done
  exit 75"
