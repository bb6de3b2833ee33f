"""A pipeline of Stable Diffusion's parts, tiny and random: three cross-attentions, keys and values not square."""

import copy

import pytest
import torch


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from tutorial_lib.pocket.tokenizer import MAX_LENGTH, write_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    text = CLIPTextModel(text).eval()
    torch.nn.init.normal_(dict(text.named_parameters())[_last_bias(text)], std=0.5)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        sample_size=32,
    )
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _last_bias(text) -> str:
    """Without a bias in its last norm a text encoder's features have no mean, and span one direction less."""
    return next(name for name, _ in text.named_parameters() if name.endswith("final_layer_norm.bias"))


@pytest.fixture
def fresh(tiny):
    """Makes copies of the tiny pipeline, all with the same weights."""

    def make():
        parts = {name: copy.deepcopy(part) for name, part in tiny.components.items()}
        return type(tiny)(**parts, requires_safety_checker=False)

    return make


@pytest.fixture
def pipe(fresh):
    return fresh()


@pytest.fixture
def trained(fresh):
    """Makes deltas as training would: another token, other changes for each seed."""
    from tutorial_lib import custom_diffusion

    def make(seed: int, class_word: str | None = "cat", token: str | None = None):
        pipe = fresh()
        init = ("ktn", "pll", "ucd", "sks")[seed % 4]
        custom_diffusion.add_concept(pipe, token or f"<new{seed}>", init, class_word)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in custom_diffusion.trainable(pipe):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        custom_diffusion.freeze(pipe)
        return custom_diffusion.delta(pipe)

    return make


@pytest.fixture
def predict():
    """What a pipeline's UNet says of a prompt: (1, 4, 8, 8)."""

    @torch.no_grad()
    def run(pipe, prompt: str = "a photo of a <new1> cat on a table") -> torch.Tensor:
        ids = pipe.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
        return pipe.unet(latents, 500, pipe.text_encoder(ids)[0]).sample

    return run
