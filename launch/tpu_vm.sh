#!/usr/bin/env bash
# Run a jaxmodpo command on one TPU VM (a single host, such as v5litepod-8), over gcloud.
#
#   launch/tpu_vm.sh NAME ZONE COMMAND [ARGUMENTS …]
#   launch/tpu_vm.sh my-tpu us-west4-a run configs/my_experiment.yaml --output-dir out
#
# The checkout is copied to ~/jaxmodpo on the VM and installed there with the TPU extra; the command runs in
# it. Run the same line again after a disconnection or a preemption: finished phases are skipped, the
# interrupted one goes on. For several hosts see launch/README.md.
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

gcloud compute tpus tpu-vm scp "$archive" "$name:jaxmodpo.tar.gz" --zone "$zone"
printf -v arguments '%q ' "$@"
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --command "
  set -e
  mkdir -p jaxmodpo && tar -xzf jaxmodpo.tar.gz -C jaxmodpo && cd jaxmodpo
  [ -x .venv/bin/python ] || python3 -m venv .venv
  .venv/bin/pip install --quiet '.[tpu]'
  .venv/bin/jaxmodpo $arguments"
