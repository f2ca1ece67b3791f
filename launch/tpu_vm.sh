#!/usr/bin/env bash
# Run a jaxmodpo command on a TPU VM, over gcloud: trainings on all hosts of its slice, other commands on the first.
#
#   launch/tpu_vm.sh NAME ZONE COMMAND [ARGUMENTS …]
#   launch/tpu_vm.sh my-tpu us-west4-a align dpo --config my.yaml --output-dir /mnt/shared/out
#
# With --share HOST HOSTS, word for word, responses runs on all hosts as well, each with its own number and how many
# there are. The checkout is copied to ~/jaxmodpo on these hosts and installed there with the TPU extra, in Python
# 3.11 or later. Asked to end (exit code 75) the command is started again, three times at most. Run the same line
# again after a disconnection or a preemption: finished phases are skipped, the interrupted one goes on.
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
# Trainings share one mesh over all hosts; every other command is for one host and refuses to run on several.
case $1 in
  align | reward | tune) hosts=all ;;
  *) hosts=0 ;;
esac
placeholder=' --share HOST HOSTS '
if [[ " $* " = *"$placeholder"* ]]; then
  hosts=all
fi
root=$(cd "$(dirname "$0")/.." && pwd)
archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
git -C "$root" archive --format=tar.gz --output="$archive" HEAD

gcloud compute tpus tpu-vm scp "$archive" "$name:jaxmodpo.tar.gz" --zone "$zone" --worker="$hosts"
printf -v arguments '%q ' "$@"
# Each host fills in its own, as the metadata server tells it; and its process is alone on its own chips.
prepare=
if [[ $hosts = all && " $arguments" = *"$placeholder"* ]]; then
  arguments=" $arguments"
  arguments=${arguments/"$placeholder"/' --share $host $host_count '}
  prepare='
  attributes=http://metadata.google.internal/computeMetadata/v1/instance/attributes
  host=$(curl -sf -H "Metadata-Flavor: Google" $attributes/agent-worker-number)
  endpoints=$(curl -sf -H "Metadata-Flavor: Google" $attributes/worker-network-endpoints)
  host_count=$(tr , "\n" <<< "$endpoints" | wc -l)
  export TPU_PROCESS_BOUNDS=1,1,1'
fi
# The images' own python3 may be 3.10. uv brings a newer one where none is installed.
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker="$hosts" --command "
  set -e
  mkdir -p jaxmodpo && tar -xzf jaxmodpo.tar.gz -C jaxmodpo && cd jaxmodpo
  if [ ! -x .venv/bin/python ]; then
    for python in python3.13 python3.12 python3.11 python3 none; do
      \$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    done
    if [ \$python = none ]; then
      python3 -m pip install --quiet --user uv
      python3 -m uv venv --quiet --seed --python 3.12 .venv
    else
      \$python -m venv .venv
    fi
  fi
  .venv/bin/pip install --quiet '.[tpu]'$prepare
  for attempt in 1 2 3 4; do
    code=0
    .venv/bin/jaxmodpo $arguments || code=\$?
    [ \$code -eq 75 ] || exit \$code
  done
  exit 75"
