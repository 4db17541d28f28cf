"""The arguments of models that a command line or a checkpoint may give: plain values under known names.

A checkpoint may come from a stranger, and other arguments of timm and torchvision read or download files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.models.own import is_own

_ALL = "in_channels"
_OWN = "shakedrop stochastic_depth blurpool zero_init_residual"
_TIMM = (
    # dropped units, branches and patches
    "drop_rate drop_path_rate drop_block_rate attn_drop_rate proj_drop_rate pos_drop_rate patch_drop_rate "
    # sizes
    "img_size patch_size window_size embed_dim depth depths dims num_heads mlp_ratio reg_tokens stem_width width "
    "base_width cardinality output_stride kernel_sizes layers channels "
    # kinds of layers
    "act_layer norm_layer aa_layer stem_type global_pool pos_embed class_token no_embed_class qkv_bias qk_norm "
    "pre_norm final_norm fc_norm dynamic_img_size dynamic_img_pad avg_down replace_stem_pool conv_mlp use_grn ape "
    # initial values
    "init_values ls_init_value layer_scale_init_value head_init_scale weight_init zero_init_last bn_eps bn_momentum"
)
_TORCHVISION = (
    "dropout attention_dropout stochastic_depth_prob image_size zero_init_residual groups width_per_group "
    "width_mult transform_input drop_rate"
)
ALLOWED = {
    "timm": frozenset((_TIMM + f" {_ALL}").split()),
    "torchvision": frozenset((_TORCHVISION + f" {_ALL}").split()),
}
OWN = frozenset(f"{_OWN} {_ALL}".split())


def check_arguments(model: str, arguments: Mapping[str, Any], where: str) -> None:
    """Check arguments for ``create_model`` that a user or a file gives.

    Args:
        model: name of the model.
        arguments: names and values.
        where: where the arguments are from, for the message.

    Raises:
        InputError: an unknown name, or a value that is not a number, a word or a list of them.
    """
    allowed = ALLOWED.get(model.partition(":")[0] if ":" in model else "", OWN)
    for name, value in arguments.items():
        if name not in allowed and not is_own(model):
            raise unknown(f"argument of {model} in {where}:", name, sorted(allowed))
        values = value if isinstance(value, list | tuple) else [value]
        if not all(one is None or isinstance(one, bool | int | float | str) for one in values):
            raise InputError(f"{where}: {name} is {value!r}: give a number, a word or a list of them.")
