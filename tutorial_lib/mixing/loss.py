"""How good is an edit? A directional CLIP loss for the style, a perceptual loss for the content, each reported.

The pocket model is measured by the pocket CLIP and the judge's feature maps; other models by CLIP ViT-B/32 and
the patches of DINOv2-small, both from the hub. All gradients reach the edited picture, none the networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from tutorial_lib.sampling import is_pocket

HUB_CLIP = "openai/clip-vit-base-patch32"  # the paper's
HUB_FEATURES = "facebook/dinov2-small"  # in the place of the paper's VGG16, which only torchvision ships
HUB_LAYERS = (3, 6, 9, 12)
# ImageNet's and CLIP's statistics of the colour channels: what each network was trained to expect.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SMALLEST = 1e-2  # of unit rows: a picture's embedding that moved less than this has no direction
ENOUGH = 0.75  # of the way to the goal: near there the target appears; all the way would bring all else of the goal


@dataclass(frozen=True)
class Critic:
    """The networks that measure an edit.

    clip: `image_embeds(images)` and `text_embeds(texts)` to unit rows. maps: images to a list of feature maps.
    """

    clip: object
    maps: Callable[[torch.Tensor], list[torch.Tensor]]


class EditLoss:
    """The loss of edited pictures in parts, one figure a picture.

    originals: the neutral prompt's pictures, which the edit should keep. goals: the styled prompt's, from the same
    noise, which show how far the edit can go.
    """

    def __init__(self, critic: Critic, originals, goals, neutral: list[str], styled: list[str]):
        self.critic, self.originals = critic, originals.detach()
        with torch.no_grad():
            self.embeds, self.maps = critic.clip.image_embeds(self.originals), critic.maps(self.originals)
            self.direction = F.normalize(critic.clip.text_embeds(styled) - critic.clip.text_embeds(neutral), dim=1)
            self.full_way = self._way(goals).clamp(min=SMALLEST)

    def _moved(self, edited):
        return self.critic.clip.image_embeds(edited) - self.embeds

    def _way(self, edited):
        """How far the pictures moved in the direction of the text. (n,)"""
        return (self._moved(edited) * self.direction).sum(1)

    def style(self, edited):
        """Directional CLIP loss: 1 - cos of how the picture moved and how the text moved. (n,) in [0, 2]"""
        return 1 - F.cosine_similarity(self._moved(edited), self.direction, dim=1, eps=SMALLEST)

    def reach(self, edited):
        """The share of the goal's way in the text's direction that is missing to ENOUGH. (n,) from 0 up

        Not in the paper. `style` is a cosine: it does not see an edit shrink in `content`'s favour until it is gone.
        """
        return F.relu(ENOUGH - self._way(edited) / self.full_way)

    def content(self, edited):
        """Perceptual loss: the mean |difference| of each feature map in units of its mean size. (n,) from 0 up"""
        pairs = zip(self.critic.maps(edited), self.maps, strict=True)
        return torch.stack([_size(a - b) / _size(b) for a, b in pairs]).mean(0)

    def pixels(self, edited):
        """The mean |difference| of the pixels. (n,) in [0, 1]"""
        return _size(edited - self.originals)


def _size(x):
    """The mean absolute value of each item, (n, ...) -> (n,)."""
    return x.abs().flatten(1).mean(1)


# ------------------------------------------------------------------ the networks


def load_critic(pipe) -> Critic:
    """The critic of the pipeline's profile. ConnectionError if a network from the hub cannot be had."""
    return _pocket_critic(pipe.device) if is_pocket(pipe.tokenizer) else _hub_critic(pipe.device)


def _pocket_critic(device) -> Critic:
    from tutorial_lib import models
    from tutorial_lib.pocket import judge

    network = judge.load().network.to(device)
    return Critic(models.load_clip("pocket", device), lambda images: judge_maps(network, images))


def judge_maps(network, images) -> list[torch.Tensor]:
    """The judge's feature maps at 32x32, 16x16, 8x8 and 4x4."""
    maps = [network.at_32(F.silu(network.stem(images * 2 - 1)))]
    for stage in (network.at_16, network.at_8, network.at_4):
        maps.append(stage(maps[-1]))
    return maps


def _hub_critic(device) -> Critic:
    from transformers import AutoModel, CLIPModel, CLIPTokenizer

    try:
        clip, tokenizer = CLIPModel.from_pretrained(HUB_CLIP), CLIPTokenizer.from_pretrained(HUB_CLIP)
        features = AutoModel.from_pretrained(HUB_FEATURES)
    except OSError as error:
        raise ConnectionError(
            f"the loss of this model needs {HUB_CLIP} and {HUB_FEATURES} from the hub, and they could not be fetched "
            f'({error}). Check the connection, pass a `critic` of your own, or use models.load("pocket").'
        ) from error
    return Critic(HubClip(clip.to(device), tokenizer), HubMaps(features.to(device)))


class HubClip:
    """A CLIP from the hub, for pictures of any size."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer

    def image_embeds(self, images):
        pixels = _prepared(images, self.model.config.vision_config.image_size, CLIP_STATISTICS)
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.model.visual_projection(pooled), dim=1)

    @torch.no_grad()
    def text_embeds(self, texts):
        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        pooled = self.model.text_model(input_ids=tokens.input_ids.to(self.model.device)).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=1)


class HubMaps:
    """The patch tokens of some layers of a DINOv2."""

    def __init__(self, model, size: int = 224, layers=HUB_LAYERS):
        self.model, self.size, self.layers = model.eval().requires_grad_(False), size, layers

    def __call__(self, images):
        states = self.model(_prepared(images, self.size, IMAGENET), output_hidden_states=True).hidden_states
        return [states[layer][:, 1:] for layer in self.layers]  # without the class token


def _prepared(images, size: int, statistics):
    mean, deviation = (torch.tensor(s, device=images.device).view(1, 3, 1, 1) for s in statistics)
    return (
        F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False) - mean
    ) / deviation
