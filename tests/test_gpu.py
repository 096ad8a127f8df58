"""The programs that a GPU gets to compile, read on a machine without a GPU."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import common, timed
from resnet_jax import families
from resnet_jax.config import MAY_CHANGE, flatten
from resnet_jax.training import compile

# The layouts of lax: forward, gradient by the input, gradient by the kernel.
LAYOUTS = {
    "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]",
    "[b, 0, 1, f]x[0, 1, o, i]->[b, 0, 1, f]",
    "[f, 0, 1, b]x[i, 0, 1, o]->[0, 1, b, f]",
}
CONVOLUTION = re.compile(
    r"stablehlo\.convolution\(.* dim_numbers = (.*?), window.* : "
    r"\(tensor<[0-9x]*x(\w+)>, tensor<[0-9x]*x(\w+)>\) -> tensor<[0-9x]*x(\w+)>"
)


@pytest.fixture
def gpu(monkeypatch):
    """Until a program is compiled, JAX says that its backend is a GPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def lowered(config):
    """Return the StableHLO of the config's training step for CUDA, and shapes of its results."""
    net = families.build(config)
    state = jax.eval_shape(lambda: common.create_state(config, net))
    step = common.train_step(config, net)
    batch = jax.eval_shape(lambda: common.make_batch(config))
    traced = jax.jit(lambda state, batch: step(state, batch, None)).trace(state, batch)
    return traced.lower(lowering_platforms=("cuda",)).as_text(), traced.out_info


@pytest.mark.parametrize(
    "argument,changes",
    [
        ("depth=14", {}),
        ("depth=20,block=preact_bottleneck", {}),
        ("depth=14,skip=B", {"stem": "7x7"}),
        ("family=resnext,depth=20", {"width": 8, "cardinality": 4}),
    ],
)
def test_a_gpu_gets_plain_convolutions_of_bfloat16_and_keeps_float32(gpu, argument, changes):
    config = common.recipe(argument, 4, **changes)
    config.dtype = "bfloat16"
    text, (state, sums) = lowered(config)
    convolutions = CONVOLUTION.findall(text)
    assert len(convolutions) == text.count("stablehlo.convolution") > 3 * 3
    assert {layout for layout, *_ in convolutions} == LAYOUTS
    assert {dtype for _, *types in convolutions for dtype in types} == {"bf16"}
    assert "optimization_barrier" not in text  # remat and the CPU's own convolution add it
    kept = jax.tree.leaves((state.params, state.batch_stats, state.opt_state, sums))
    assert {a.dtype for a in kept if a.dtype != jnp.int32} == {jnp.dtype("float32")}


def test_float32_has_no_other_type(gpu):
    text, _ = lowered(common.recipe("depth=8", 4))
    assert {dtype for _, *types in CONVOLUTION.findall(text) for dtype in types} == {"f32"}
    assert "bf16" not in text


def test_the_program_of_a_gpu_is_as_long_for_a_deeper_network(gpu):
    lines = [lowered(common.recipe(f"depth={d}", 4))[0].count("\n") for d in (110, 1202)]
    assert lines[0] == lines[1]


def test_xla_has_the_options_of_a_deterministic_program():
    """Every backend checks the names of flags, so that a release which drops one fails here."""
    lowered = jax.jit(lambda x: x + 1).lower(jnp.ones(3))
    lowered.compile(compile.DETERMINISTIC)  # pyright: ignore[reportArgumentType]
    with pytest.raises(Exception, match="No such compile option"):
        lowered.compile({"xla_gpu_no_such_ops": True})


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_only_a_gpu_gets_the_flag_of_determinism(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(compile, "DETERMINISTIC", {"seen": True})
    compile.program(jnp.sin, jnp.ones(3))
    ask = lambda: compile.program(jnp.sin, jnp.ones(3), deterministic=True)
    if backend == "gpu":
        with pytest.raises(Exception, match="No such compile option: 'seen'"):
            ask()
    else:
        ask()


def test_a_programs_own_options_reach_xla():
    with pytest.raises(Exception, match="No such compile option: 'seen'"):
        compile.program(jnp.sin, jnp.ones(3), options={"seen": True})
    options = {"xla_cpu_prefer_vector_width": "512"}
    sine = compile.program(jnp.sin, jnp.ones(3), options=options)
    assert jnp.array_equal(sine(jnp.ones(3)), jnp.sin(jnp.ones(3)))


def test_a_flag_that_xla_flags_sets_keeps_its_value(monkeypatch):
    ours = {"xla_cpu_prefer_vector_width": "512"}
    monkeypatch.setattr(compile, "LIBRARY", {"seen": "512"})
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    with pytest.raises(Exception, match="No such compile option: 'seen'"):
        compile.program(jnp.sin, jnp.ones(3))
    monkeypatch.setenv("XLA_FLAGS", "--seen=256 --xla_backend_optimization_level=0")
    compile.program(jnp.sin, jnp.ones(3), options=ours)


def test_determinism_is_a_config_value_and_part_of_a_runs_identity():
    assert flatten(common.recipe("depth=20", 4))["deterministic"] is False
    assert "deterministic" not in MAY_CHANGE


def test_every_flag_that_the_documentation_names_is_one_of_xlas():
    text = (Path(__file__).parents[1] / "docs" / "flags.md").read_text("utf-8")
    flags = set(re.findall(r"`(xla_\w+=[^`]*)`", text))
    assert len(flags) > 10
    lowered = jax.jit(lambda x: x + 1).lower(jnp.ones(3))
    for flag in flags:
        lowered.compile(timed.options([flag]))  # pyright: ignore[reportArgumentType]
