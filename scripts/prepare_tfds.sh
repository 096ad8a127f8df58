#!/usr/bin/env bash
# Download a tensorflow-datasets data set and write it as array_record, the form that is read here
# without TensorFlow. TensorFlow itself goes into a throw-away environment, removed at the end.
set -euo pipefail

usage='usage: scripts/prepare_tfds.sh NAME [DATA_DIR]

NAME      of the catalogue, https://www.tensorflow.org/datasets/catalog: cifar10, emnist/letters
DATA_DIR  the folder that will hold it; default ~/tensorflow_datasets

PYTHON=python3.12 chooses another Python (3.11 to 3.13).
TMPDIR=DIR chooses where the environment goes; it takes 2.5 GB while this runs.'

fail() {
    echo "error: $*" >&2
    exit 1
}

case "${1:-}" in
    -h | --help) echo "$usage"; exit 0 ;;
    '' | -*) echo "$usage" >&2; exit 2 ;;
esac
if [ $# -gt 2 ]; then
    echo "$usage" >&2
    exit 2
fi
name=$1
data_dir=${2:-$HOME/tensorflow_datasets}
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null ||
    fail "$python is not Python 3.11 to 3.13; choose one with PYTHON=/path/to/python"

environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
export TMPDIR=$environment # what pip and tfds leave behind goes with it

# The wheels of tensorflow-cpu are for x86; elsewhere tensorflow is the small one.
case "$(uname -sm)" in
    'Linux x86_64') tensorflow=tensorflow-cpu ;;
    *) tensorflow=tensorflow ;;
esac

echo "installing $tensorflow into $environment for as long as this takes"
"$python" -m venv "$environment" ||
    fail "$python cannot make a virtual environment; install its venv module"
# scipy and pillow: some data sets come as .mat files or images. The rest tfds forgets to ask for.
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
    "$tensorflow" tensorflow-datasets array_record importlib_resources pillow scipy ||
    fail "pip could not install $tensorflow; is there a network, and 2.5 GB free in $environment?"

TF_CPP_MIN_LOG_LEVEL=3 "$environment/bin/python" - "$name" "$data_dir" <<'PYTHON'
import difflib
import logging
import re
import sys

import tensorflow_datasets as tfds

logging.getLogger("urllib3").setLevel(logging.ERROR)  # it announces each of its retries
name, data_dir = sys.argv[1:]
known = tfds.list_builders(with_community_datasets=False)
if re.split("[/:]", name)[0] not in known:
    near = ", ".join(difflib.get_close_matches(name, known))
    sys.exit(f"error: tensorflow-datasets has no {name!r}" + (f"; nearest {near}" if near else ""))
try:
    there = tfds.builder(name, data_dir=data_dir)
    if there.is_prepared() and there.info.file_format.value != "array_record":
        form = there.info.file_format.value
        raise ValueError(f"{there.data_path} holds it in {form} form; choose another DATA_DIR")
    tfds.builder(name, data_dir=data_dir, file_format="array_record").download_and_prepare()
except KeyboardInterrupt:
    sys.exit("error: interrupted")
except Exception as error:  # whatever a site, an archive or a builder does
    sys.exit(" ".join(f"error: {name} could not be prepared: {error}".split()))
PYTHON

config=configs/$name.py
[ -f "$(dirname "$0")/../$config" ] || config=configs/cifar10.py
echo "prepared $name in $data_dir; train on it with:"
echo "python -m resnet_jax.train --config=$config --config.data.name=$name \\"
echo "    --config.data.dir=$data_dir --workdir=runs/${name//\//_}"
