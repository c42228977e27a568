"""Models that look like ours and are others: told by what their tensors are called."""

import re
from collections.abc import Iterable

SAM = "expected Meta's SAM (ViT-B, L or H), or Hugging Face's SamModel"
BERT = "expected BERT, as Hugging Face's BertModel"
BASE = "merge it into its base model first"
KINDS = (  # at the start of some part of a name → what the file is, and what to give instead
    (r"memory_attention\.|maskmem_|sam_mask_decoder\.|image_encoder\.trunk\.", "SAM 2", SAM),
    (r"vision_encoder\.backbone\.|tracker_\w+\.|detector_model\.", "SAM 2 or later", SAM),
    (
        r"mask_decoder\.(hf_|hq_|compress_vit|encoder_conv|mask_conv|embedding_(encoder|mask))",
        "SAM-HQ",
        SAM,
    ),
    (
        r"image_encoder\.(patch_embed\.seq|layers\.\d+\.blocks)\.",
        "MobileSAM or LiteMedSAM, whose image encoder is a TinyViT",
        SAM,
    ),
    (r"image_encoder\.(features|backbone|stages|stem)\.", "a SAM with another backbone", SAM),
    (r"mask_decoder\.final_output_upscaling", "EfficientSAM", SAM),
    (r"(\w+_)?Adapter\.", "SAM with adapters (SAM-Med2D, Medical SAM Adapter and kin)", SAM),
    (r"(lora_\w+|loha_\w+|w_[ab]_\d+|linear_[ab]_[qkv])(\.|$)", "LoRA", BASE),
    (r"transformer\.layer\.\d+\.attention\.q_lin\.", "DistilBERT", BERT),
    (r"encoder\.albert_layer_groups\.", "ALBERT", BERT),
    (r"(xlm_)?roberta\.", "RoBERTa or XLM-R, whose positions start at 2", BERT),
    (r"electra\.|discriminator_predictions\.", "ELECTRA", BERT),
    (r"deberta\.|encoder\.rel_embeddings\.", "DeBERTa", BERT),
    (r"mpnet\.|encoder\.relative_attention_bias\.", "MPNet", BERT),
    (r"mobilebert\.|embeddings\.embedding_transformation\.", "MobileBERT", BERT),
    (r"embeddings\.task_type_embeddings\.", "ERNIE", BERT),
    (r"attn\.Wqkv\.", "ModernBERT", BERT),
    (r"text_model\.encoder\.|transformer\.resblocks\.", "CLIP", BERT),
    (r"encoder\.block\.\d+\.layer\.", "T5", BERT),
    (r"h\.\d+\.attn\.c_attn\.", "GPT-2", BERT),
)


def check(tensors: Iterable[str], *, source: str) -> None:
    """Raises ValueError that names the kind, where it is one of the table."""
    for name in sorted(map(str, tensors)):
        for pattern, kind, instead in KINDS:
            if re.search(rf"(^|\.)({pattern})", name):
                raise ValueError(f"{source} is {kind} ({name}); {instead}.")
