"""Segmenters with few random weights."""

import torch
from transformers import Sam2Config, Sam2Model, SamConfig, SamModel


def tiny_sam():
    torch.manual_seed(0)
    shared = {"hidden_size": 16, "image_size": 64, "patch_size": 16}
    return SamModel(SamConfig(
        vision_config={**shared, "output_channels": 16, "num_hidden_layers": 2, "window_size": 2,
                       "num_attention_heads": 2, "global_attn_indexes": [1], "mlp_dim": 32,
                       "num_pos_feats": 8},
        prompt_encoder_config={**shared, "mask_input_channels": 8},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2,
                             "num_hidden_layers": 2, "iou_head_hidden_dim": 16},
    )).eval()


def tiny_sam2():
    torch.manual_seed(0)
    sizes = [[16, 16], [8, 8], [4, 4]]
    return Sam2Model(Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "image_size": [64, 64], "hidden_size": 8,
                "num_attention_heads": 1, "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2],
                "window_size_per_stage": [4, 2, 2, 2], "global_attention_blocks": [3],
                "window_positional_embedding_background_size": [4, 4]},
            "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": sizes,
            "fpn_hidden_size": 32},
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 16,
                               "mask_input_channels": 8},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2,
                             "num_hidden_layers": 2, "iou_head_hidden_dim": 16},
    )).eval()
