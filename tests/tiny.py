"""Tiny random-weight pipelines of every family, built from configs in code; nothing is downloaded.

Adding a family is one entry in FAMILIES.
"""

import diffusers as d
import torch
import transformers as t
from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from tiny_text import (
    clip,
    clip_tokenizer,
    gemma,
    gemma_tokenizer,
    qwen_processor,
    qwen_tokenizer,
    qwen_vl,
    t5,
    t5_tokenizer,
)

SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


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


def safety_checker(blind=True):
    """Finds nothing in any picture, or fault with every one."""
    vision = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4,
              "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}  # fmt: skip
    config = t.CLIPConfig(vision_config=vision, projection_dim=16)
    checker = StableDiffusionSafetyChecker(config).eval()
    torch.nn.init.constant_(checker.concept_embeds_weights, 1.0 if blind else -2.0)
    return checker


def stable_diffusion_15(blind=True):
    parts = stable_diffusion().components
    parts |= {"safety_checker": safety_checker(blind),
              "feature_extractor": t.CLIPImageProcessor(crop_size=28, size=28)}  # fmt: skip
    return d.StableDiffusionPipeline(**parts)


def controlnet():
    net = d.ControlNetModel(
        block_out_channels=(32, 64), layers_per_block=1, in_channels=4, cross_attention_dim=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=8,
        attention_head_dim=8, conditioning_embedding_out_channels=(16, 32),
    )  # fmt: skip
    with torch.no_grad():  # its last layers are zero until they are trained
        net.controlnet_cond_embedding.conv_out.weight.normal_()
        for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            layer.weight.normal_()
    parts = stable_diffusion().components
    return d.StableDiffusionControlNetPipeline(
        **parts, controlnet=net, requires_safety_checker=False
    )


def instruct_pix2pix():
    parts = stable_diffusion(in_channels=8).components
    return d.StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False)


def playground_v25():
    """SDXL's parts with a solver of their own and normalised latents."""
    pipe = stable_diffusion_xl(scheduler=d.EDMDPMSolverMultistepScheduler())
    pipe.vae.register_to_config(latents_mean=[0.1] * 4, latents_std=[0.9] * 4)
    return pipe


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


def sdxl_refiner():
    """Image-to-image alone: its denoiser also wants an aesthetic score, in five numbers."""
    denoiser = unet(
        4, 32, transformer_layers_per_block=1, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 5 + 32,
    )  # fmt: skip
    parts = stable_diffusion_xl(d.StableDiffusionXLImg2ImgPipeline).components
    parts |= {"text_encoder": None, "tokenizer": None, "unet": denoiser}
    return d.StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=True)


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


def qwen_image():
    return d.QwenImagePipeline(
        transformer=d.QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(8, 4, 4)).eval(),
        vae=d.AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1,
            temperal_downsample=[False, True], latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4).eval(),
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        text_encoder=qwen_vl(),
        tokenizer=qwen_tokenizer(),
    )  # fmt: skip


def qwen_image_edit():
    return d.QwenImageEditPipeline(**qwen_image().components, processor=qwen_processor())


def z_image():
    transformer = d.ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=1,
        n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16, rope_theta=256.0,
        t_scale=1000.0, axes_dims=[8, 4, 4], axes_lens=[256, 64, 64]).eval()  # fmt: skip
    for pad in (transformer.x_pad_token, transformer.cap_pad_token):  # left as they lay in memory
        torch.nn.init.ones_(pad)
    return d.ZImagePipeline(
        transformer=transformer,
        vae=kl(use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611,
               shift_factor=0.1159),
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        text_encoder=t.Qwen3Model(t.Qwen3Config(
            hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, head_dim=8, vocab_size=270,
            max_position_embeddings=512)).eval(),
        tokenizer=qwen_tokenizer(),
    )  # fmt: skip


def deepfloyd_if():
    """The first stage: pixels, predicted variance, no autoencoder."""
    return d.IFPipeline(
        text_encoder=t5(), tokenizer=t5_tokenizer(),
        unet=d.UNet2DConditionModel(
            sample_size=32, layers_per_block=1, block_out_channels=(16, 32), in_channels=3,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn", out_channels=6,
            cross_attention_dim=32, encoder_hid_dim=32, attention_head_dim=8, norm_num_groups=8,
            addition_embed_type="text", addition_embed_type_num_heads=2, act_fn="gelu",
            cross_attention_norm="group_norm", resnet_time_scale_shift="scale_shift").eval(),
        scheduler=d.DDPMScheduler(
            beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True,
            dynamic_thresholding_ratio=0.95, sample_max_value=1.0),
        safety_checker=None, feature_extractor=None, watermarker=None,
        requires_safety_checker=False,
    )  # fmt: skip


def stable_cascade():
    """Two stages with denoisers of their own names, and a scheduler without a noise table."""
    stage = {"block_out_channels": (16, 32), "num_attention_heads": (0, 4),
             "down_num_layers_per_block": [1, 1], "up_num_layers_per_block": [1, 1],
             "down_blocks_repeat_mappers": [1, 1], "up_blocks_repeat_mappers": [1, 1],
             "block_types_per_layer": (("SDCascadeResBlock", "SDCascadeTimestepBlock"),
                                       ("SDCascadeResBlock", "SDCascadeTimestepBlock",
                                        "SDCascadeAttnBlock")),
             "conditioning_dim": 32, "timestep_ratio_embedding_dim": 16}  # fmt: skip
    return d.StableCascadeCombinedPipeline(
        tokenizer=clip_tokenizer(), text_encoder=clip(t.CLIPTextModelWithProjection),
        decoder=d.StableCascadeUNet(
            in_channels=4, out_channels=4, effnet_in_channels=4, clip_text_pooled_in_channels=32,
            patch_size=2, switch_level=None, timestep_conditioning_type=["sca"],
            clip_seq=4, kernel_size=3, dropout=(0.0, 0.0), **stage).eval(),
        scheduler=d.DDPMWuerstchenScheduler(), prior_scheduler=d.DDPMWuerstchenScheduler(),
        vqgan=PaellaVQModel(bottleneck_blocks=1, num_vq_embeddings=16).eval(),
        prior_prior=d.StableCascadeUNet(
            in_channels=4, out_channels=4, clip_text_in_channels=32,
            clip_text_pooled_in_channels=32, clip_image_in_channels=32, patch_size=1,
            switch_level=[False], timestep_conditioning_type=["sca", "crp"], clip_seq=4,
            kernel_size=3, dropout=(0.0, 0.0), self_attn=True, **stage).eval(),
        prior_text_encoder=clip(t.CLIPTextModelWithProjection), prior_tokenizer=clip_tokenizer(),
        prior_feature_extractor=None, prior_image_encoder=None,
    )  # fmt: skip


def dit():
    return d.DiTPipeline(
        transformer=d.DiTTransformer2DModel(
            sample_size=16, num_layers=2, patch_size=4, attention_head_dim=8, out_channels=8,
            num_attention_heads=2, in_channels=4, attention_bias=True,
            activation_fn="gelu-approximate", norm_type="ada_norm_zero",
            norm_elementwise_affine=False).eval(),
        vae=kl(), scheduler=d.DDIMScheduler(), id2label={"0": "tench", "1": "goldfish"},
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


def cogview3_plus():
    """Noise schedules in float64, which end in pure noise."""
    return d.CogView3PlusPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5(), vae=kl(),
        transformer=d.CogView3PlusTransformer2DModel(
            patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4,
            num_attention_heads=2, out_channels=4, text_embed_dim=32, time_embed_dim=8,
            condition_dim=2, pos_embed_max_size=16, sample_size=16).eval(),
        scheduler=d.CogVideoXDDIMScheduler(
            beta_schedule="scaled_linear", prediction_type="v_prediction",
            rescale_betas_zero_snr=True, timestep_spacing="trailing", set_alpha_to_one=True),
    )  # fmt: skip


def lumina_2():
    return d.Lumina2Pipeline(
        tokenizer=gemma_tokenizer(), text_encoder=gemma(), vae=kl(shift_factor=0.1),
        transformer=d.Lumina2Transformer2DModel(
            sample_size=16, patch_size=2, in_channels=4, hidden_size=24, num_layers=1,
            num_refiner_layers=1, num_attention_heads=3, num_kv_heads=1, multiple_of=2,
            axes_dim_rope=(4, 2, 2), axes_lens=(300, 64, 64), cap_feat_dim=8).eval(),
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=6.0),
    )  # fmt: skip


def sana_of_the_hub():
    """With the scheduler that its checkpoints name: DPM-Solver++ for flow matching."""
    parts = sana().components
    return d.SanaPipeline(**parts | {"scheduler": d.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)})


def sana():
    blocks = ("ResBlock", "EfficientViTBlock")
    return d.SanaPipeline(
        tokenizer=gemma_tokenizer(), text_encoder=gemma(),
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
    "sd15": (stable_diffusion_15, {T2I, I2I, INPAINT}),
    "controlnet": (controlnet, {T2I, I2I, INPAINT}),
    "instruct_pix2pix": (instruct_pix2pix, {I2I}),
    "sdxl": (stable_diffusion_xl, {T2I, I2I, INPAINT}),
    "sdxl_refiner": (sdxl_refiner, {I2I, INPAINT}),
    "sdxl_turbo": (sdxl_turbo, {T2I, I2I, INPAINT}),
    "sdxl_inpaint": (
        lambda: stable_diffusion_xl(d.StableDiffusionXLInpaintPipeline, 9), {INPAINT}),
    "lcm": (latent_consistency, {T2I, I2I}),
    "playground_v25": (playground_v25, {T2I, I2I, INPAINT}),
    "sd3": (stable_diffusion_3, {T2I, I2I, INPAINT}),
    "flux": (flux, {T2I, I2I, INPAINT}),
    "pixart_sigma": (pixart_sigma, {T2I}),
    "cogview3_plus": (cogview3_plus, {T2I}),
    "lumina_2": (lumina_2, {T2I}),
    "sana": (sana, {T2I}),
    "sana_of_the_hub": (sana_of_the_hub, {T2I}),
    "qwen_image": (qwen_image, {T2I, I2I, INPAINT}),
    "qwen_image_edit": (qwen_image_edit, {I2I, INPAINT}),
    "z_image": (z_image, {T2I, I2I, INPAINT}),
    "deepfloyd_if": (deepfloyd_if, {T2I, I2I, INPAINT}),
    "stable_cascade": (stable_cascade, {T2I}),
    "dit": (dit, {FREE}),
    "kandinsky_22": (kandinsky_22, {T2I, I2I}),
    "ddpm": (lambda: d.DDPMPipeline(unet=pixel_unet(), scheduler=d.DDPMScheduler()), {FREE}),
    "ddim": (lambda: d.DDIMPipeline(unet=pixel_unet(), scheduler=d.DDIMScheduler()), {FREE}),
}  # fmt: skip


def build(name):
    """A pipeline of that family, always with the same weights."""
    torch.manual_seed(0)
    return FAMILIES[name][0]()
