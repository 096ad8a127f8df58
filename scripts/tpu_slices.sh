#!/usr/bin/env bash
# Cloud TPU: run a command on a slice, or an experiment with a slice for each of its runs.
set -euo pipefail

usage='usage: scripts/tpu_slices.sh create|setup|delete NAME
       scripts/tpu_slices.sh run NAME COMMAND...
       scripts/tpu_slices.sh fetch NAME DIR
       scripts/tpu_slices.sh sweep COMMAND...

create  ask for a slice and wait until it is there
setup   bring the last commit here, and an environment for it, to all workers of the slice
run     run COMMAND in it, on all workers at once
fetch   copy DIR, a folder of the checkout, from the first worker to here
delete  give the slice back
sweep   COMMAND is an experiment: do all this for each run that is not finished, then report here

TPU_TYPE=v5litepod-8 TPU_RUNTIME=v2-alpha-tpuv5-lite    the kind of slice, for create and sweep
TPU_OPTIONS=--spot  further options of gcloud compute tpus queued-resources create
TPU_NAME=NAME       of a sweep: its slices are NAME-0, NAME-1, ...; default sweep
AT_ONCE=N           slices at a time, at most; default 4
LOGS=DIR            where their output goes; default runs/tpu

Project and zone are those of gcloud: gcloud config set, or CLOUDSDK_CORE_PROJECT and
CLOUDSDK_COMPUTE_ZONE.'

fail() {
    echo "error: $*" >&2
    exit 1
}

create() { # NAME
    check_kind
    request "$1"
    await "$1"
}

check_kind() {
    [ -n "${TPU_TYPE:-}" ] || fail "set TPU_TYPE, such as v5litepod-8"
    [ -n "${TPU_RUNTIME:-}" ] || fail "set TPU_RUNTIME, such as v2-alpha-tpuv5-lite"
}

request() { # NAME
    local options=(--accelerator-type="$TPU_TYPE" --runtime-version="$TPU_RUNTIME") further
    read -ra further <<<"${TPU_OPTIONS:-}"
    options+=(${further[@]+"${further[@]}"})
    gcloud compute tpus queued-resources create "$1" --node-id="$1" "${options[@]}"
}

await() { # NAME
    local state=''
    while [ "$state" != ACTIVE ]; do
        state=$(gcloud compute tpus queued-resources describe "$1" --format='value(state.state)')
        case $state in
            ACTIVE) ;;
            FAILED | SUSPENDED | DELETING) fail "the request for $1 is $state" ;;
            *) sleep "${POLL_SECONDS:-30}" ;;
        esac
    done
}

setup() { # NAME
    git diff --quiet HEAD || fail "commit your changes first: a slice gets the last commit"
    local folder
    folder=$(mktemp -d)
    git bundle create --quiet "$folder/resnet_jax.bundle" HEAD
    gcloud compute tpus tpu-vm scp "$folder/resnet_jax.bundle" "$1:" --worker=all
    rm -r "$folder"
    # Some of the images have a Python that is too old, or cannot make environments.
    # shellcheck disable=SC2016 # it is the workers' shells that expand this
    on_all_workers "$1" 'set -e
        [ -d resnet_jax ] || git init --quiet resnet_jax
        cd resnet_jax
        git fetch --quiet ../resnet_jax.bundle HEAD
        git checkout --quiet --detach FETCH_HEAD
        python=python3
        if ! python3 -c "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"; then
            python3 -m pip install --quiet --user uv
            python3 -m uv python install --quiet 3.12
            python=$(python3 -m uv python find 3.12)
        fi
        $python -m venv .venv
        .venv/bin/python -m pip install --quiet --editable ".[tpu]"'
}

run() { # NAME COMMAND...
    local name=$1
    shift
    on_all_workers "$name" "cd resnet_jax && . .venv/bin/activate && exec $(printf '%q ' "$@")"
}

on_all_workers() { # NAME SHELL_COMMAND
    gcloud compute tpus tpu-vm ssh "$1" --worker=all --command="$2"
}

fetch() { # NAME DIR
    mkdir -p "$(dirname "$2")"
    gcloud compute tpus tpu-vm scp --recurse "$1:resnet_jax/$2" "$(dirname "$2")" --worker=0
}

bring() { # NAME DIR: the other way
    on_all_workers "$1" "mkdir -p $(printf '%q' "resnet_jax/$(dirname "$2")")"
    gcloud compute tpus tpu-vm scp --recurse "$2" "$1:resnet_jax/$(dirname "$2")" --worker=all
}

delete() { # NAME
    gcloud compute tpus queued-resources delete "$1" --force --quiet
}

# Number and folder of the runs that are not finished, a line each; from --list on stdin.
unfinished() {
    awk '$1 ~ /^[0-9]+$/ && !/ finished  / { print $1, $NF }'
}

one() { # NUMBER COMMAND...
    local number=$1 folder status=0
    shift
    name=${TPU_NAME:-sweep}-$number # not local: the trap runs outside
    folder=$("$@" --list | awk -v number="$number" '$1 == number { print $NF }')
    echo "run $number: slice $name, $logs/$name.log"
    exec >>"$logs/$name.log" 2>&1
    trap 'exit 1' INT TERM HUP
    trap 'delete "$name"' EXIT # however this ends: slices cost money
    request "$name" || { trap - EXIT; exit 1; } # one of that name was there before
    await "$name"
    setup "$name"
    case $folder in
        /* | *://*) # storage that the slices and this machine share
            run "$name" "$@" --run="$number"
            ;;
        *)
            [ ! -d "$folder" ] || bring "$name" "$folder"
            run "$name" "$@" --run="$number" || status=$?
            fetch "$name" "$folder"
            return "$status"
            ;;
    esac
}

sweep() { # COMMAND...
    local runs missing
    runs=$("$@" --list)
    [[ $runs =~ ^\ *[0-9]+\  ]] || fail "'$* --list' prints no runs"
    check_kind
    missing=$(unfinished <<<"$runs")
    [ -z "$missing" ] || cut -d' ' -f1 <<<"$missing" |
        xargs -P "${AT_ONCE:-4}" -I{} "$0" one {} "$@" || true # what is missing is seen below
    runs=$("$@" --list)
    missing=$(unfinished <<<"$runs" | cut -d' ' -f1 | paste -sd, -)
    [ -z "$missing" ] || fail \
        "no report, for these runs are not finished: $missing; the same line goes on"
    "$@"
}

verb=${1:-}
case "$verb" in -h | --help) echo "$usage"; exit 0 ;; esac
case "$verb $#" in
    'create 2' | 'setup 2' | 'delete 2' | 'fetch 3') ;;
    'run '[12] | 'sweep 1' | 'one '[12]) verb='' ;;
    'run '* | 'sweep '* | 'one '*) ;;
    *) verb='' ;;
esac
if [ -z "$verb" ]; then
    echo "$usage" >&2
    exit 2
fi
command -v gcloud >/dev/null || fail "there is no gcloud here: https://cloud.google.com/sdk/docs"
logs=${LOGS:-runs/tpu}
mkdir -p "$logs"
shift
"$verb" "$@"
