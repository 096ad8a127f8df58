#!/usr/bin/env bash
# Download a tensorflow-datasets data set and write it in array_record form, which this project
# reads without TensorFlow. TensorFlow itself is installed into a temporary environment, which is
# removed at the end.
set -euo pipefail

usage='usage: scripts/prepare_tfds.sh NAME [DATA_DIR]

NAME      a name of the catalogue https://www.tensorflow.org/datasets/catalog, such as cifar10 or
          emnist/letters
DATA_DIR  the folder that will hold the data set; default ~/tensorflow_datasets

PYTHON=python3.12 chooses another Python (3.11 to 3.13).
TMPDIR=DIR chooses where the temporary environment goes; it takes 2.5 GB while the script runs.'

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
export TMPDIR=$environment # so that temporary files of pip and tfds are removed too

# tensorflow-cpu has wheels for x86 only; on other machines tensorflow is the small package.
case "$(uname -sm)" in
    'Linux x86_64') tensorflow=tensorflow-cpu ;;
    *) tensorflow=tensorflow ;;
esac

echo "installing $tensorflow into the temporary environment $environment"
"$python" -m venv "$environment" ||
    fail "$python cannot make a virtual environment; install the venv module of $python"
# Some data sets come as .mat files (scipy) or as images (pillow). tfds needs the other packages but
# does not declare them.
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
    "$tensorflow" tensorflow-datasets array_record importlib_resources pillow scipy ||
    fail "pip could not install $tensorflow; check the network and for 2.5 GB free in $environment"

TF_CPP_MIN_LOG_LEVEL=3 "$environment/bin/python" - "$name" "$data_dir" <<'PYTHON'
import difflib
import logging
import re
import sys

import tensorflow_datasets as tfds

logging.getLogger("urllib3").setLevel(logging.ERROR)  # urllib3 logs each retry
name, data_dir = sys.argv[1:]
known = tfds.list_builders(with_community_datasets=False)
if re.split("[/:]", name)[0] not in known:
    nearest = ", ".join(difflib.get_close_matches(name, known))
    advice = f"; nearest names: {nearest}" if nearest else ""
    sys.exit(f"error: tensorflow-datasets has no data set {name!r}{advice}")
try:
    builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared() and builder.info.file_format.value != "array_record":
        form = builder.info.file_format.value
        raise ValueError(
            f"{builder.data_path} holds {name} in {form} form; choose another DATA_DIR"
        )
    tfds.builder(name, data_dir=data_dir, file_format="array_record").download_and_prepare()
except KeyboardInterrupt:
    sys.exit("error: interrupted")
except Exception as error:  # sites, archives and builders raise errors of many kinds
    sys.exit(" ".join(f"error: {name} could not be prepared: {error}".split()))
PYTHON

config=configs/$name.py
[ -f "$(dirname "$0")/../$config" ] || config=configs/cifar10.py
echo "prepared $name in $data_dir; train on it with:"
echo "python -m resnet_jax.train --config=$config --config.data.name=$name \\"
echo "    --config.data.dir=$data_dir --workdir=runs/${name//\//_}"
