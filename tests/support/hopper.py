"""Programs written for an H100, where neither it nor its compiler is."""

from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from dit_jax.ops.platform import Target, planned_for


def written_for_hopper(program, *arguments) -> str:
    """A jitted program of such arguments, lowered."""
    where = AbstractDevice("NVIDIA H100", num_cores=1, platform="gpu")
    mesh = AbstractMesh((1,), ("x",), abstract_device=where)
    with use_abstract_mesh(mesh), planned_for(Target("gpu")):
        return program.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
