"""The pocket UNet: noise prediction on cached latents and text embeddings, min-SNR weights, 10 % no prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import compute_snr
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from tutorial_lib.pocket.files import POCKET, sha256
from tutorial_lib.pocket.pretrain import data, latents
from tutorial_lib.pocket.pretrain.sheets import grid

SNR_GAMMA = 5.0
NO_PROMPT = 0.1
LATENT = (4, 16, 16)
SHEET_PROMPTS = (
    "a photo of a red mug on a table",
    "a photo of a blue car in a city",
    "a photo of a person with long blond hair and a smile on a beach",
    "a photo of a person with short black hair, glasses and a hat in a forest",
    "a photo of a green teapot and a pink ball in the snow",
    "a photo of a white cat with glasses at night",
    "a watercolor of a purple house in the snow",
    "a pencil sketch of a flower in a forest",
    "pixel art of a yellow fish on a beach",
    "a photo of an orange moon in a city",
    "a photo of a person and a black cat in a forest",
    "a watercolor of a person with red hair and a beard at night",
)


def build() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 256),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=192,
        attention_head_dim=(2, 4, 8),  # diffusers means the number of heads: 32 channels each
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's betas. "trailing": the first step is at the highest noise level, however few there are."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        timestep_spacing="trailing",
        steps_offset=1,
    )


class UNetTask:
    muon_lr, adam_lr, batch = 3e-3, 1e-3, 64

    def __init__(self, cache: Path):
        torch.manual_seed(data.SEED)
        self.module = build().to(data.DEVICE)
        self.module.set_attn_processor(AttnProcessor())  # its backward pass beats the fused one on a CPU
        self.scheduler = scheduler()
        self.vae = AutoencoderKL.from_pretrained(POCKET / "vae").float().to(data.DEVICE)
        self.tokenizer = CLIPTokenizer.from_pretrained(POCKET / "tokenizer")
        self.text_encoder = CLIPTextModel.from_pretrained(POCKET / "text_encoder").eval().to(data.DEVICE)
        self.moments = latents.moments(self.vae, cache)
        texts = [c for i, scene in enumerate(data.training_scenes()) for c in data.captions(i, scene)]
        self.texts, which = np.unique(texts, return_inverse=True)
        self.which = which.reshape(-1, data.CAPTIONS_PER_PICTURE)
        made_with = sha256(POCKET / "text_encoder" / "model.safetensors")[:8]
        file = cache / f"embeddings_{made_with}.safetensors"
        self.embeddings = latents.kept(file, lambda: self._embed(list(self.texts)))
        self.empty = self._embed([""])[0]

    @torch.no_grad()
    def _embed(self, texts: list[str]) -> torch.Tensor:
        """(n, 40, 192)."""
        parts = []
        starts = range(0, len(texts), 256)
        for k in tqdm(starts, desc="embedding captions", unit="batch", disable=len(starts) == 1):
            ids = self.tokenizer(texts[k : k + 256], padding="max_length", truncation=True, return_tensors="pt")
            with data.autocast():
                parts.append(self.text_encoder(ids.input_ids.to(data.DEVICE))[0].to(torch.bfloat16).cpu())
        return torch.cat(parts)

    def loss(self, step: int):
        rng = np.random.default_rng((data.SEED, step))
        picked = rng.integers(len(self.moments), size=self.batch)
        noise = torch.randn(2, self.batch, *LATENT, generator=data.generator(step))
        x0 = latents.sample(self.moments[picked], noise[0])
        t = torch.from_numpy(rng.integers(1000, size=self.batch))
        context = self._context(rng, picked)
        predicted = self._predict(self.scheduler.add_noise(x0, noise[1], t), t, context)
        error = (predicted - noise[1]).square().mean((1, 2, 3))
        snr = compute_snr(self.scheduler, t)
        return (error * snr.clamp(max=SNR_GAMMA) / snr).mean(), {"mse": error.mean().item()}

    def _predict(self, noisy: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        with data.autocast():
            return self.module(*(x.to(data.DEVICE) for x in (noisy, t, context.float()))).sample.float().cpu()

    def _context(self, rng: np.random.Generator, picked: np.ndarray) -> torch.Tensor:
        """(batch, 40, 192): one of each picture's captions, or none."""
        caption = self.which[picked, rng.integers(data.CAPTIONS_PER_PICTURE, size=self.batch)]
        context = self.embeddings[caption]
        context[torch.from_numpy(rng.random(self.batch) < NO_PROMPT)] = self.empty
        return context

    def measure(self) -> dict[str, float]:
        """The loss over fixed noise levels of the first 256 pictures: comparable from row to row."""
        rng = np.random.default_rng(data.SEED)
        picked = np.arange(256)
        generator = torch.Generator().manual_seed(data.SEED)
        x0 = self.moments[picked, :4].float()
        noise = torch.randn(x0.shape, generator=generator)
        t = torch.linspace(0, 999, 256).long()
        context = self.embeddings[self.which[picked, rng.integers(data.CAPTIONS_PER_PICTURE, size=256)]]
        predicted = self._predict(self.scheduler.add_noise(x0, noise, t), t, context)
        return {"mse": (predicted - noise).square().mean().item()}

    def sheet(self):
        """The sheet's prompts at 20 DDIM steps, guidance 4."""
        scheduler_ = scheduler()
        scheduler_.set_timesteps(20)
        context = self._embed(["" for _ in SHEET_PROMPTS] + list(SHEET_PROMPTS)).float()
        z = torch.randn(len(SHEET_PROMPTS), *LATENT, generator=torch.Generator().manual_seed(0))
        for t in scheduler_.timesteps:
            without, with_prompt = self._predict(torch.cat([z, z]), t, context).chunk(2)
            z = scheduler_.step(without + 4.0 * (with_prompt - without), t, z).prev_sample
        return grid(self.vae.decode(z.to(data.DEVICE)).sample.cpu() / 2 + 0.5, columns=6)


def export(task: UNetTask) -> None:
    """Writes the UNet in half precision, the scheduler and the pipeline's index."""
    task.module.set_default_attn_processor()
    task.module.half().save_pretrained(POCKET / "unet")
    task.scheduler.save_pretrained(POCKET / "scheduler")
