"""PyTorch's side of the benchmarks: the same networks and training steps, if torch is installed."""

import contextlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import depth_sweep, peers, speed, throughput
from benchmarks.torch_worker import Worker
from configs import cifar10
from resnet_jax import families
from resnet_jax.models.resnet import resnet
from resnet_jax.training.compile import ONCE, program


def small(dtype="float32"):
    """A network of 4 channels on 8x8 images, batch 4."""
    config = speed.recipe(cifar10.get_config("depth=8"), 4, dtype)
    changes = {"data.shape": (8, 8, 3), "data.pad": 1, "model.width": 4}
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def torch_peer():
    pytest.importorskip("torch", reason="PyTorch is optional")
    from benchmarks import torch_peer

    return torch_peer


@pytest.mark.parametrize(
    "block,skip,stem,stride_at",
    [
        ("bottleneck", "B", "7x7", "3x3"),
        ("preact_bottleneck", "B", "3x3", "1x1"),
        ("basic", "B", "7x7", "1x1"),
    ],
)
def test_torchs_deeper_blocks_compute_what_ours_do(torch_peer, block, skip, stem, stride_at):
    import torch

    stages, options = (1, 2), {"stem": stem, "stride_at": stride_at}
    net = resnet(stages, block=block, skip=skip, num_outputs=10, width=4, **options)
    x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    variables = program(net.init, jax.random.key(0), x, level=ONCE)(jax.random.key(0), x)
    train = lambda variables: net.apply(variables, x, mutable=["batch_stats"])[0]
    logits = program(train, variables, level=ONCE)(variables)
    theirs = torch_peer.Plain(
        stages,
        block.startswith("pre"),
        width=4,
        bottleneck=block.endswith("bottleneck"),
        project=skip == "B",
        **options,
    )
    torch_peer.load(theirs, peers.from_ours(variables["params"]))
    output = theirs(torch.tensor(jax.device_get(x)).permute(0, 3, 1, 2)).detach().numpy()
    assert jnp.allclose(output, logits, rtol=1e-3, atol=1e-3)


class Listener:
    """A worker that remembers the request for a network."""

    def ask(self, **request):
        if request["do"] == "make":
            self.request = request
        return {"device": "cpu", "ready_s": 1.0, "parameters": 0, "seconds": 1.0, "loss": 2.3}


def requested(name):
    """Return a benchmark's config, and the network that PyTorch is asked for."""
    if name == "preact1001":
        config = depth_sweep.recipe(1001, 2, "float32")
    else:
        config = throughput.case(name, "float32").config
    listener = Listener()
    speed.Torch(listener, config, 8, 1, "eager")
    return config, listener.request["net"]


@pytest.mark.parametrize(
    "name,stages,block",
    [
        ("resnet18:2", (2, 2, 2, 2), (False, False, True)),
        ("resnet50:2", (3, 4, 6, 3), (False, True, True)),
        ("resnet110:2", (18, 18, 18), (False, False, False)),
        ("preact1001", (111, 111, 111), (True, True, True)),
    ],
)
def test_torch_is_asked_for_the_stages_and_blocks_of_the_config(name, stages, block):
    _, net = requested(name)
    assert net["stages"] == stages
    assert (net["pre"], net["bottleneck"], net["project"]) == block
    assert net["stem"] == ("7x7" if len(stages) == 4 else "3x3")


@pytest.mark.parametrize("name", ["resnet18:2", "resnet50:2", "resnet110:2", "preact1001"])
def test_torch_is_asked_for_a_network_of_as_many_parameters(torch_peer, name):
    import torch

    config, net = requested(name)
    with torch.device("meta"):
        theirs = torch_peer.Plain(**net)
    x = jnp.zeros((1, *config.data.shape))
    ours = jax.eval_shape(families.build(config).init, jax.random.key(0), x)["params"]
    assert sum(p.numel() for p in theirs.parameters()) == peers.count(ours)


def test_torchs_process_trains_answers_errors_and_is_started_again(torch_peer, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    worker = Worker()
    try:
        trained = speed.Torch(worker, small(dtype="bfloat16"), examples=10, turn=2, mode="eager")
        assert np.isfinite(trained.loss) and trained.parameters > 0
        with pytest.raises(RuntimeError, match="CUDA"):
            speed.Torch(worker, small(), examples=10, turn=2, mode="graph")
        with pytest.raises(RuntimeError, match="no network was made yet"):
            trained.run(1)
        worker.process.kill()
        worker.process.wait()
        again = speed.Torch(worker, small(), examples=10, turn=2, mode="eager")
        again.run(2)
        assert np.isfinite(again.loss)
    finally:
        worker.close()


# Minutes: pytest -m slow tests/test_torch_peer.py
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compile", "reduce-overhead"])
def test_torch_compiles_the_same_step(torch_peer, mode):
    worker = Worker()
    try:
        trained = speed.Torch(worker, small(dtype="bfloat16"), examples=10, turn=2, mode=mode)
        assert np.isfinite(trained.loss) and trained.compile_s > 0
    finally:
        worker.close()


def test_torchs_crops_and_flips_are_whole_windows_of_the_padded_image(torch_peer):
    import torch

    net = torch_peer.Plain((1,), False, width=2)
    options = {"rate": 0.1, "momentum": 0.9, "weight_decay": 0.0, "mode": "eager"}
    training = torch_peer.Training(
        net, (5, 6, 3), 8, 8, dtype="float32", pad=2, flip=True, **options
    )
    x = torch.rand(64, 5, 6, 3) + 1
    augmented = training._augmented(x)
    padded = torch.nn.functional.pad(x, (0, 0, 2, 2, 2, 2))
    windows = padded.unfold(1, 5, 1).unfold(2, 6, 1).permute(0, 1, 2, 4, 5, 3)
    both = torch.cat([windows, windows.flip(4)], 1)
    assert augmented.shape == x.shape
    same = (both == augmented[:, None, None]).all(-1).all(-1).all(-1)
    assert same.any(2).any(1).all()  # every image is one of its windows
    assert len({tuple(place) for place in same.nonzero()[:, 1:].tolist()}) > 20


def test_a_captured_step_is_warmed_up_recorded_once_and_replayed_on_new_indices(torch_peer):
    import torch

    seen, recorded = [], []
    stream = types.SimpleNamespace(wait_stream=lambda other: None)

    class Graph:
        def replay(self):
            recorded[0]()

    @contextlib.contextmanager
    def graph(which):
        before = len(seen)
        yield
        assert len(seen) == before + 1
        recorded.append(lambda: step(held[0]))

    cuda = types.SimpleNamespace(
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=lambda which: contextlib.nullcontext(),
        CUDAGraph=Graph,
        graph=graph,
    )
    held, loss = [], torch.zeros(())

    def step(index):
        held[:] = [index]
        seen.append(index.tolist())
        return loss.copy_(index.sum())

    replay = torch_peer.captured(step, torch.tensor([1, 2]), cuda)
    assert seen == [[1, 2]] * 4 and len(recorded) == 1
    assert replay(torch.tensor([3, 4])) == 7 and seen[-1] == [3, 4]
