"""One tiny random model of each family of mixtures in transformers, built without a download."""

import importlib
import inspect
import re

VOCABULARY = 64
N_EXPERTS = 8
# what nearly every configuration calls its sizes; those that one has not are left out
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "head_dim": 8, "moe_intermediate_size": 16, "num_experts": N_EXPERTS,
    "num_local_experts": N_EXPERTS, "n_routed_experts": N_EXPERTS, "moe_num_experts": N_EXPERTS,
    "num_experts_per_tok": 2, "num_experts_per_token": 2, "top_k_experts": 2, "moe_k": 2,
    "moe_topk": 2, "moe_top_k": 2, "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16, "first_k_dense_replace": 1, "q_lora_rank": 8,
    "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "n_group": 2, "topk_group": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "num_dense_layers": 1,
}  # fmt: skip
ALL_SPARSE = {"mlp_layer_types": ["sparse", "sparse"]}
HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
DELTA = {
    **HYBRID, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}  # fmt: skip
INDEXED = {
    "num_key_value_heads": 4, "index_topk": 4, "index_head_dim": 8, "index_n_heads": 2,
    "head_dim": 8,
}  # fmt: skip
FEW = {
    "num_local_experts": N_EXPERTS, "num_experts_per_tok": 2, "num_key_value_heads": 4,
    "n_group": 2, "topk_group": 1,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
# what a family needs beyond that
OWN = {
    "axk2": INDEXED,
    "bailing_hybrid": {**HYBRID, **FEW, "linear_num_value_heads": 4},
    "beam": ALL_SPARSE,
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": N_EXPERTS, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64,
    },
    "deepseek_ocr2": {**ALL_SPARSE, "num_experts": N_EXPERTS},
    "deepseek_v3": {"num_key_value_heads": 4},
    "deepseek_v32": INDEXED,
    "deepseek_v4": {"mlp_layer_types": ["hash_moe", "moe"]},
    "doge": {"is_moe": True, "num_experts": 16},
    "dots1": {"n_shared_experts": 1},
    "dots3_note": INDEXED,
    "ernie4_5_vl_moe": {**ALL_SPARSE, "moe_intermediate_size": [16, 16], "rope_parameters": ROPE},
    "flint": {"mlp_only_layers": []},
    "gemma4": {
        "enable_moe_block": True, "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8, "num_experts": N_EXPERTS, "top_k_experts": 2,
    },
    "glm4v_moe": {"rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}},
    "glm5_next": {
        **HYBRID, **INDEXED, **ALL_SPARSE, "index_kpool": 2, "qk_rope_head_dim": 0, "head_dim": 0,
        "linear_head_dim": 8, "linear_num_heads": 4,
    },
    "glm_moe_dsa": INDEXED,
    "granitemoehybrid": {
        "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
        "mamba_chunk_size": 4, "layer_types": ["mamba", "attention"],
    },
    "hy_v4_vl": {"qk_rope_head_dim": 8, "rope_parameters": ROPE},
    "jamba": {
        "attn_layer_offset": 1, "attn_layer_period": 2, "mamba_d_state": 8,
        "expert_layer_offset": 0, "expert_layer_period": 1, "use_mamba_kernels": False,
    },
    "kimi_linear": {
        **HYBRID, **FEW, **ALL_SPARSE, "linear_head_dim": 8, "linear_num_heads": 4,
    },
    "kolibri1": {"num_experts": N_EXPERTS},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 0},
    "longcat_flash": {
        "num_layers": 2, "head_dim": 4, "qk_head_dim": 8, "num_key_value_heads": 4,
        "zero_expert_num": 4, "expert_ffn_hidden_size": 16, "ffn_hidden_size": 24, "moe_topk": 2,
    },
    "mistral_large4": INDEXED,
    "muse_spark": {"moe_hidden_size": 32},
    "nllb_moe": {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
        "moe_eval_capacity_token_fraction": 0.2, "decoder_start_token_id": 0,
        "encoder_sparse_step": 2, "decoder_sparse_step": 2,
    },
    "qwen3_5_moe": DELTA,
    "qwen3_next": DELTA,
    "qwen4_exp": {
        **DELTA, "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8,
        "indexer_budget": 8, "indexer_compress_ratio": 2,
    },
    "step3p7": {**ALL_SPARSE, "sliding_window": 8, "share_expert_dim": 16},
    "switch_transformers": {
        "d_model": 32, "d_kv": 8, "d_ff": 24, "num_heads": 4, "num_layers": 2,
        "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1,
        "expert_capacity": 2, "decoder_start_token_id": 0,
    },
    "unlimited_ocr": ALL_SPARSE,
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}  # fmt: skip
# families that cannot be built, and why
CANNOT_BE_BUILT: dict[str, str] = {}
PATTERNS = (r"ForCausalLM$", r"TextModel$", r"(?<!PreTrained)Model$", r"ForConditional\w+$")
TWO_SIDES = ("nllb_moe", "switch_transformers")


def model_class(family):
    """The smallest class of a family that takes tokens."""
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    classes = [
        kind
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and kind.__module__ == module.__name__
        and getattr(kind, "config_class", None)
        and not re.search("Vision|Audio", name)
    ]
    patterns = PATTERNS[-1:] if family in TWO_SIDES else PATTERNS
    for pattern in patterns:
        for kind in classes:
            if re.search(pattern, kind.__name__):
                return kind
    raise AssertionError(f"{family} has no model that takes tokens")


def build_family(family, **sizes):
    """A random model whose routers are sure enough of themselves to differ from token to token."""
    import torch

    kind = model_class(family)
    config = kind.config_class
    fields = getattr(config, "__dataclass_fields__", {})  # transformers 5.0 has none
    known = {*inspect.signature(config.__init__).parameters, *fields}
    common = {
        name: size
        for name, size in SIZES.items()
        if name in known and name not in config.attribute_map
    }
    torch.manual_seed(0)
    model = kind(config(**{**common, **OWN.get(family, {}), **sizes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_router = re.search(r"(gate|router|router_gate)(\.\w+)*\.(weight|bias|proj)$", name)
            if is_router and "norm" not in name:
                parameter.normal_(0, 0.7)
            elif "expert" in name and "scale" not in name:
                parameter.normal_(0, 0.2)
        for name, buffer in model.named_buffers():
            if name.endswith(("e_score_correction_bias", "expert_bias", "balancing_biases")):
                buffer.normal_(0, 0.3)
            elif name.endswith("tid2eid"):
                rows = torch.rand(len(buffer), N_EXPERTS).argsort(dim=1)
                buffer.copy_(rows[:, : buffer.shape[1]])
    return model.eval()


def tokens(rows=3, length=9, seed=1):
    """Random tokens (rows, length), without padding."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (rows, length), generator=generator)


def inputs_of(family, rows=3, length=9, seed=1):
    """What a model of the family is called with."""
    ids = tokens(rows, length, seed)
    both = {"decoder_input_ids": ids[:, :5]} if family in TWO_SIDES else {}
    return {"input_ids": ids, **both}
