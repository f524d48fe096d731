"""Modules as Kohya's files of transformers name them: those of the first release of the weights.

There one projection stands where Diffusers has three or four: ``qkv``. Keys are Kohya's, with dots
where the file has underscores; values are ours, in the order of the rows; ``{}`` is the block.
"""

from collections.abc import Mapping

Names = Mapping[str, tuple[str, ...]]

_DOUBLE, _SINGLE = "transformer_blocks.{}", "single_transformer_blocks.{}"


def _projections(attention: str, *ends: str) -> tuple[str, ...]:
    return tuple(f"{attention}.{end}" for end in ends)


FLUX: Names = {
    "double_blocks.{}.img_attn.qkv": _projections(f"{_DOUBLE}.attn", "to_q", "to_k", "to_v"),
    "double_blocks.{}.img_attn.proj": (f"{_DOUBLE}.attn.to_out.0",),
    "double_blocks.{}.img_mlp.0": (f"{_DOUBLE}.ff.net.0.proj",),
    "double_blocks.{}.img_mlp.2": (f"{_DOUBLE}.ff.net.2",),
    "double_blocks.{}.img_mod.lin": (f"{_DOUBLE}.norm1.linear",),
    "double_blocks.{}.txt_attn.qkv": _projections(
        f"{_DOUBLE}.attn", "add_q_proj", "add_k_proj", "add_v_proj"
    ),
    "double_blocks.{}.txt_attn.proj": (f"{_DOUBLE}.attn.to_add_out",),
    "double_blocks.{}.txt_mlp.0": (f"{_DOUBLE}.ff_context.net.0.proj",),
    "double_blocks.{}.txt_mlp.2": (f"{_DOUBLE}.ff_context.net.2",),
    "double_blocks.{}.txt_mod.lin": (f"{_DOUBLE}.norm1_context.linear",),
    "single_blocks.{}.linear1": (
        *_projections(f"{_SINGLE}.attn", "to_q", "to_k", "to_v"),
        f"{_SINGLE}.proj_mlp",
    ),
    "single_blocks.{}.linear2": (f"{_SINGLE}.proj_out",),
    "single_blocks.{}.modulation.lin": (f"{_SINGLE}.norm.linear",),
    "final_layer.linear": ("proj_out",),
}

SD3: Names = {
    "joint_blocks.{}.x_block.attn.qkv": _projections(f"{_DOUBLE}.attn", "to_q", "to_k", "to_v"),
    "joint_blocks.{}.x_block.attn.proj": (f"{_DOUBLE}.attn.to_out.0",),
    "joint_blocks.{}.x_block.attn2.qkv": _projections(f"{_DOUBLE}.attn2", "to_q", "to_k", "to_v"),
    "joint_blocks.{}.x_block.attn2.proj": (f"{_DOUBLE}.attn2.to_out.0",),
    "joint_blocks.{}.x_block.mlp.fc1": (f"{_DOUBLE}.ff.net.0.proj",),
    "joint_blocks.{}.x_block.mlp.fc2": (f"{_DOUBLE}.ff.net.2",),
    "joint_blocks.{}.context_block.attn.qkv": _projections(
        f"{_DOUBLE}.attn", "add_q_proj", "add_k_proj", "add_v_proj"
    ),
    "joint_blocks.{}.context_block.attn.proj": (f"{_DOUBLE}.attn.to_add_out",),
    "joint_blocks.{}.context_block.mlp.fc1": (f"{_DOUBLE}.ff_context.net.0.proj",),
    "joint_blocks.{}.context_block.mlp.fc2": (f"{_DOUBLE}.ff_context.net.2",),
    "final_layer.linear": ("proj_out",),
}
