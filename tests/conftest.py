"""All tests are strict about types and ranks, and compile quickly rather than for speed."""

import gc
import json
import os
import tempfile
from importlib import metadata

# Tests compile far more than they compute, so that these flags save two thirds of the time.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# XLA's older emitters compile the loops of a training step in a fifth of the time of its newer
# ones. A flag that another version of jaxlib does not know would end the process.
if metadata.version("jaxlib").startswith("0.10."):
    QUICK += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"
# Many tests compile the same program, in this process, beside it and in processes of their own.
if not {"PYTEST_XDIST_WORKER", "JAX_COMPILATION_CACHE_DIR"} & os.environ.keys():
    KEPT = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = KEPT.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

# Settings of the shell that would change what is tested.
os.environ["COLUMNS"] = "80"
for name in ("MPLBACKEND", "JAX_ENABLE_X64", "JAX_DISABLE_JIT", "JAX_THREEFRY_PARTITIONABLE"):
    os.environ.pop(name, None)

import jax  # noqa: E402
import pytest  # noqa: E402

# training/test_shard.py runs these tests in a process of its own.
collect_ignore = [] if os.environ.get("RESNET_JAX_EIGHT_DEVICES") else ["eight_devices"]

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Allow float64 in one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def imported(tmp_path_factory):
    """Return an imported work directory, its config, and the file that it was imported from.

    It holds a small network for the digits. Its weights are random, and no norm is the identity.
    """
    from resnet_jax import convert, families, tensors, weights
    from tests.recipes import recipe
    from tests.smallest import drawn

    folder = tmp_path_factory.mktemp("imported")
    changes = {"model.width": 4, "steps": 4, "chunk_steps": 2, "eval_every": 2}
    changes |= {"checkpoint_every": 2, "schedule.boundaries": (2,)}
    config = recipe("digits", "depth=14,skip=A_split", **changes)
    image = jax.ShapeDtypeStruct((1, *config.data.shape), "float32")
    variables = drawn(families.build(config), image)
    named = weights.to_tensors(variables, "akamaster", config)
    tensors.write(folder / "weights.safetensors", named)
    convert.import_weights("akamaster", folder / "weights.safetensors", config, folder / "run")
    return folder / "run", config, folder / "weights.safetensors"


@pytest.fixture(scope="session")
def write_tfds():
    """Return a function that writes a tfds folder.

    A split is a list of record files, and a record file a list of (image file, label).
    """

    def write(root, name, splits, shape, num_classes=3):
        from array_record.python.array_record_module import ArrayRecordWriter
        from tensorflow_datasets.proto import tf_example_pb2

        folder = root / name / "1.0.0"
        folder.mkdir(parents=True)
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        about = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": []}
        for split, files in splits.items():
            lengths = [str(len(file)) for file in files]
            about["splits"].append(
                {"name": split, "shardLengths": lengths, "filepathTemplate": template}
            )
            for i, file in enumerate(files):
                path = folder / f"{name}-{split}.array_record-{i:05d}-of-{len(files):05d}"
                writer = ArrayRecordWriter(str(path), "group_size:1")
                for image, label in file:
                    record = tf_example_pb2.Example()
                    record.features.feature["image"].bytes_list.value.append(image)
                    record.features.feature["label"].int64_list.value.append(label)
                    writer.write(record.SerializeToString())
                writer.close()
        image = {"shape": {"dimensions": [str(n or -1) for n in shape]}, "dtype": "uint8"}
        label = {"numClasses": str(num_classes)}
        features = {"image": {"image": image}, "label": {"classLabel": label}}
        (folder / "dataset_info.json").write_text(json.dumps(about))
        (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
        return folder

    return write


def pytest_collection_finish():
    """Let the garbage collector pass over what was imported, and run less often.

    JAX makes many objects and few cycles, so that collections took a twelfth of the time.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_collection_modifyitems(items):
    """Run the longest test first: a worker that began it last would keep the others waiting."""
    items.sort(key=lambda item: item.name != "test_eight_devices")
