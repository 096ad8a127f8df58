#!/usr/bin/env bash
# Cloud TPU: run a command on one slice, or an experiment with one slice for each run.
set -euo pipefail

usage='usage: scripts/tpu_slices.sh create|setup|delete NAME
       scripts/tpu_slices.sh run NAME COMMAND...
       scripts/tpu_slices.sh fetch NAME DIR
       scripts/tpu_slices.sh sweep COMMAND...

create  ask for the slice NAME and wait until it is ready
setup   copy the last commit of this checkout to all workers of the slice, and make an environment
run     run COMMAND in that checkout, on all workers at once
fetch   copy DIR, a folder of the checkout, from the first worker to this machine
delete  give the slice back
sweep   COMMAND is an experiment: create a slice for each unfinished run, do the run, fetch its
        folder and delete the slice; then write the report on this machine

TPU_TYPE=v5litepod-8 TPU_RUNTIME=v2-alpha-tpuv5-lite    the kind of slice, for create and sweep
TPU_OPTIONS=--spot  further options of gcloud compute tpus queued-resources create
TPU_NAME=NAME       the slices of a sweep are NAME-0, NAME-1, ...; default sweep
AT_ONCE=N           the largest number of slices at a time; default 4
LOGS=DIR            the folder for the output of the slices; default runs/tpu

The settings of gcloud choose project and zone: gcloud config set, or CLOUDSDK_CORE_PROJECT and
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
    # On some runtimes python3 is too old or cannot make environments. uv then installs another
    # Python.
    # shellcheck disable=SC2016 # the shells of the workers expand this text
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

bring() { # NAME DIR: copy DIR from this machine to all workers
    on_all_workers "$1" "mkdir -p $(printf '%q' "resnet_jax/$(dirname "$2")")"
    gcloud compute tpus tpu-vm scp --recurse "$2" "$1:resnet_jax/$(dirname "$2")" --worker=all
}

delete() { # NAME
    gcloud compute tpus queued-resources delete "$1" --force --quiet
}

# Read the output of --list from stdin and print number and folder of each run to do. A run that
# diverged would diverge again; runs that share a folder are one run.
unfinished() {
    awk '$1 ~ /^[0-9]+$/ && !/ (finished|diverged)  / && !seen[$NF]++ { print $1, $NF }'
}

sweep_run() { # NUMBER COMMAND...: do one run of a sweep, on a slice of its own
    local number=$1 folder status=0
    shift
    name=${TPU_NAME:-sweep}-$number # not local: the trap runs outside this function
    folder=$("$@" --list | awk -v number="$number" '$1 == number { print $NF }')
    echo "run $number: slice $name, $logs/$name.log"
    exec >>"$logs/$name.log" 2>&1
    trap 'exit 1' INT TERM HUP
    trap 'delete "$name"' EXIT # delete the slice on every way out, because slices cost money
    request "$name" || { trap - EXIT; exit 1; } # such a slice existed before: keep it
    await "$name"
    setup "$name"
    case $folder in
        /* | *://*) # the folder is on storage that the slices and this machine share
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
        xargs -P "${AT_ONCE:-4}" -I{} "$0" sweep_run {} "$@" || true # failed runs are listed below
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
    'run '[12] | 'sweep 1' | 'sweep_run '[12]) verb='' ;;
    'run '* | 'sweep '* | 'sweep_run '*) ;;
    *) verb='' ;;
esac
if [ -z "$verb" ]; then
    echo "$usage" >&2
    exit 2
fi
command -v gcloud >/dev/null ||
    fail "there is no gcloud here; install it: https://cloud.google.com/sdk/docs"
logs=${LOGS:-runs/tpu}
mkdir -p "$logs"
shift
"$verb" "$@"
