"""Tiny random-weight pipelines of every family, built from configs in code; nothing is downloaded.

Adding a family is one entry in FAMILIES.
"""

import diffusers as d
import torch
import transformers as t
from tokenizers.pre_tokenizers import ByteLevel

SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clip_tokenizer():
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return t.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def t5_tokenizer():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(chr(c), -3.0) for c in range(33, 127)]
    return t.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=77)


def gemma_tokenizer():
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *(chr(c) for c in range(33, 127))]
    return t.GemmaTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])


def clip(cls=t.CLIPTextModel):
    config = t.CLIPTextConfig(
        bos_token_id=512, eos_token_id=513, pad_token_id=513, hidden_size=32,
        intermediate_size=64, num_attention_heads=4, num_hidden_layers=2, vocab_size=514,
        projection_dim=32,
    )  # fmt: skip
    return cls(config).eval()


def t5():
    config = t.T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4,
                        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    return t.T5EncoderModel(config).eval()


def kl(latent_channels=4, **options):
    channels = (16, 32)
    return d.AutoencoderKL(
        block_out_channels=channels, down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=latent_channels, norm_num_groups=8,
        layers_per_block=1, sample_size=64, **options,
    ).eval()  # fmt: skip


def unet(in_channels=4, cross_attention_dim=32, **options):
    return d.UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=16, in_channels=in_channels,
        out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross_attention_dim, norm_num_groups=8, attention_head_dim=8,
        **options,
    ).eval()  # fmt: skip


def pixel_unet():
    return d.UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1,
        block_out_channels=(16, 32), norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


def stable_diffusion(cls=d.StableDiffusionPipeline, in_channels=4):
    return cls(
        vae=kl(), text_encoder=clip(), tokenizer=clip_tokenizer(), unet=unet(in_channels),
        scheduler=d.PNDMScheduler(**SD_BETAS, skip_prk_steps=True, set_alpha_to_one=False,
                                  steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl(cls=d.StableDiffusionXLPipeline, in_channels=4, scheduler=None):
    denoiser = unet(
        in_channels, 64, transformer_layers_per_block=1, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 32,
    )  # fmt: skip
    return cls(
        vae=kl(), text_encoder=clip(), text_encoder_2=clip(t.CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(), unet=denoiser,
        scheduler=scheduler or d.EulerDiscreteScheduler(
            **SD_BETAS, timestep_spacing="leading", steps_offset=1),
    )  # fmt: skip


def sdxl_turbo():
    scheduler = d.EulerAncestralDiscreteScheduler(**SD_BETAS, timestep_spacing="trailing")
    return stable_diffusion_xl(scheduler=scheduler)


def latent_consistency():
    return d.LatentConsistencyModelPipeline(
        vae=kl(), text_encoder=clip(), tokenizer=clip_tokenizer(),
        unet=unet(time_cond_proj_dim=32),
        scheduler=d.LCMScheduler(**SD_BETAS, original_inference_steps=50), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_3():
    projected = t.CLIPTextModelWithProjection
    return d.StableDiffusion3Pipeline(
        transformer=d.SD3Transformer2DModel(
            sample_size=16, patch_size=1, in_channels=16, num_layers=2, attention_head_dim=8,
            num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=32,
            pooled_projection_dim=64, out_channels=16).eval(),
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609,
               scaling_factor=1.5305),
        text_encoder=clip(projected), tokenizer=clip_tokenizer(),
        text_encoder_2=clip(projected), tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(), tokenizer_3=t5_tokenizer(),
    )  # fmt: skip


def flux():
    return d.FluxPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=kl(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1159,
               scaling_factor=0.3611),
        text_encoder=clip(), tokenizer=clip_tokenizer(), text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
        transformer=d.FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=2, num_single_layers=2,
            attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32,
            pooled_projection_dim=32, axes_dims_rope=[4, 4, 8], guidance_embeds=True).eval(),
    )  # fmt: skip


def pixart_sigma():
    return d.PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5(), vae=kl(),
        transformer=d.PixArtTransformer2DModel(
            sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8,
            num_attention_heads=3, caption_channels=32, in_channels=4, cross_attention_dim=24,
            out_channels=8, attention_bias=True, activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000, norm_type="ada_norm_single",
            norm_elementwise_affine=False, norm_eps=1e-6).eval(),
        scheduler=d.DPMSolverMultistepScheduler(
            beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    )  # fmt: skip


def sana():
    blocks = ("ResBlock", "EfficientViTBlock")
    return d.SanaPipeline(
        tokenizer=gemma_tokenizer(),
        text_encoder=t.Gemma2Model(t.Gemma2Config(
            head_dim=16, hidden_size=8, intermediate_size=64, num_attention_heads=2,
            num_hidden_layers=1, num_key_value_heads=2, vocab_size=128,
            attn_implementation="eager")).eval(),
        vae=d.AutoencoderDC(
            in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=blocks,
            decoder_block_types=blocks, encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)), encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=[1, 1], downsample_block_type="conv",
            upsample_block_type="interpolate", decoder_norm_types="rms_norm",
            decoder_act_fns="silu", scaling_factor=0.41407).eval(),
        transformer=d.SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2,
            attention_head_dim=4, num_cross_attention_heads=2, cross_attention_head_dim=4,
            cross_attention_dim=8, caption_channels=8, sample_size=32).eval(),
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )  # fmt: skip


def kandinsky_22():
    prior = d.PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=32,
                               num_layers=1).eval()
    prior.clip_std = torch.nn.Parameter(torch.ones_like(prior.clip_std))
    return d.KandinskyV22CombinedPipeline(
        unet=d.UNet2DConditionModel(
            in_channels=4, out_channels=8, addition_embed_type="image",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn", block_out_channels=(32, 64),
            layers_per_block=1, encoder_hid_dim=32, encoder_hid_dim_type="image_proj",
            cross_attention_dim=32, attention_head_dim=4,
            resnet_time_scale_shift="scale_shift").eval(),
        scheduler=d.DDIMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012,
                                  clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        movq=d.VQModel(
            block_out_channels=[32, 64], in_channels=3, latent_channels=4, layers_per_block=1,
            down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
            norm_num_groups=8, norm_type="spatial", num_vq_embeddings=12, out_channels=3,
            up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"], vq_embed_dim=4).eval(),
        prior_prior=prior,
        prior_image_encoder=t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(
            hidden_size=32, image_size=28, projection_dim=32, intermediate_size=37,
            num_attention_heads=4, num_hidden_layers=2, patch_size=14)).eval(),
        prior_text_encoder=clip(t.CLIPTextModelWithProjection),
        prior_tokenizer=clip_tokenizer(),
        prior_scheduler=d.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", num_train_timesteps=1000,
            clip_sample=True, clip_sample_range=10.0),
        prior_image_processor=t.CLIPImageProcessor(crop_size=28, size=28),
    )  # fmt: skip


T2I, I2I, INPAINT, FREE = "text-to-image", "image-to-image", "inpainting", "unconditional"

# name -> how to build it, and the tasks that it must be able to do
FAMILIES = {
    "sd": (stable_diffusion, {T2I, I2I, INPAINT}),
    "sd_inpaint": (lambda: stable_diffusion(d.StableDiffusionInpaintPipeline, 9), {INPAINT}),
    "sdxl": (stable_diffusion_xl, {T2I, I2I, INPAINT}),
    "sdxl_turbo": (sdxl_turbo, {T2I, I2I, INPAINT}),
    "sdxl_inpaint": (
        lambda: stable_diffusion_xl(d.StableDiffusionXLInpaintPipeline, 9), {INPAINT}),
    "lcm": (latent_consistency, {T2I, I2I}),
    "sd3": (stable_diffusion_3, {T2I, I2I, INPAINT}),
    "flux": (flux, {T2I, I2I, INPAINT}),
    "pixart_sigma": (pixart_sigma, {T2I}),
    "sana": (sana, {T2I}),
    "kandinsky_22": (kandinsky_22, {T2I, I2I}),
    "ddpm": (lambda: d.DDPMPipeline(unet=pixel_unet(), scheduler=d.DDPMScheduler()), {FREE}),
    "ddim": (lambda: d.DDIMPipeline(unet=pixel_unet(), scheduler=d.DDIMScheduler()), {FREE}),
}  # fmt: skip


def build(name):
    """A pipeline of that family, always with the same weights."""
    torch.manual_seed(0)
    return FAMILIES[name][0]()
