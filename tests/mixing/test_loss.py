"""The parts of an edit's loss: exact on made-up networks, in step with the real ones, with gradients."""

import pytest
import torch
from torch.nn import functional as F

from tutorial_lib import models
from tutorial_lib.mixing import loss as edit_loss
from tutorial_lib.mixing.loss import Critic, EditLoss
from tutorial_lib.pocket.tokenizer import MAX_LENGTH


class TwoNumbers:
    """A made-up CLIP: a picture's embedding is its mean red and green, a text's is a word's own direction."""

    def image_embeds(self, images):
        return images[:, :2].mean((2, 3))

    def text_embeds(self, texts):
        return torch.tensor([{"red": (1.0, 0.0), "green": (0.0, 1.0), "nothing": (0.0, 0.0)}[t] for t in texts])


def painted(red, green):
    return torch.stack([torch.full((4, 6), float(v)) for v in (red, green, 0.3)])[None]


@pytest.fixture
def loss():
    critic = Critic(TwoNumbers(), lambda images: [images, 10 * images[:, :1]])
    originals = torch.cat([painted(0.2, 0.2), painted(0.4, 0.1)])
    goals = torch.cat([painted(0.6, 0.5), painted(0.9, 0.3)])  # 0.4 along "red"; 0.2 along "green"
    return EditLoss(critic, originals, goals, ["nothing", "nothing"], ["red", "green"])


def test_the_style_loss_is_one_minus_the_cosine_of_the_two_directions(loss):
    edited = torch.cat([painted(0.5, 0.2), painted(0.6, 0.3)])  # along "red"; between "red" and "green"
    assert loss.style(edited).tolist() == pytest.approx([0, 1 - 0.5**0.5], abs=1e-5)
    edited = torch.cat([painted(0.1, 0.2), painted(0.8, 0.1)])  # against "red"; across "green"
    assert loss.style(edited).tolist() == pytest.approx([2, 1], abs=1e-5)


def test_the_reach_is_what_is_missing_to_most_of_the_goals_way(loss):
    enough = edit_loss.ENOUGH
    edited = torch.cat([painted(0.3, 0.9), painted(0.0, 0.1)])  # a quarter of the way along "red"; none along "green"
    assert loss.reach(edited).tolist() == pytest.approx([enough - 0.25, enough], abs=1e-5)
    edited = torch.cat([painted(0.2 + 0.4 * enough, 0.2), painted(0.4, 0.0)])  # just enough; the wrong way
    assert loss.reach(edited).tolist() == pytest.approx([0, enough + 0.5], abs=1e-5)


def test_a_picture_that_did_not_move_has_a_finite_style_loss_and_gradient(loss):
    edited = loss.originals.clone().requires_grad_(True)
    loss.style(edited).sum().backward()
    assert loss.style(edited).tolist() == pytest.approx([1, 1]) and edited.grad.isfinite().all()


def test_the_content_loss_is_relative_to_each_pictures_own_maps(loss):
    assert loss.content(loss.originals).tolist() == [0, 0]
    assert loss.content(2 * loss.originals).tolist() == pytest.approx([1, 1])
    edited = torch.cat([loss.originals[:1], painted(0.8, 0.1)])  # red from 0.4 to 0.8, of a mean size 0.8 / 3
    assert loss.content(edited).tolist() == pytest.approx([0, (0.4 / 0.8 + 1) / 2])
    assert loss.pixels(edited).tolist() == pytest.approx([0, 0.4 / 3])


def test_the_pocket_critic_is_differentiable_and_its_maps_are_the_judges():
    from types import SimpleNamespace

    pocket = SimpleNamespace(tokenizer=SimpleNamespace(model_max_length=MAX_LENGTH), device=torch.device("cpu"))
    critic = edit_loss.load_critic(pocket)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = critic.maps(images)
    assert [tuple(m.shape[2:]) for m in maps] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    from tutorial_lib.pocket import judge

    network = judge.load().network
    assert torch.allclose(network.trunk(maps[-1]), network(images)["features"], atol=1e-5)

    prompts = ["a photo of a person"] * 2, ["a photo of a person with a hat"] * 2
    edited = (images * 0.5).requires_grad_(True)
    loss = EditLoss(critic, images, 1 - images, *prompts)
    (loss.style(edited) + loss.content(edited)).sum().backward()
    assert edited.grad.isfinite().all() and (edited.grad.flatten(1).abs().amax(1) > 0).all()


def test_networks_of_the_hub_are_asked_for_by_name_when_they_are_out_of_reach():
    from types import SimpleNamespace

    other = SimpleNamespace(tokenizer=SimpleNamespace(model_max_length=77), device=torch.device("cpu"))
    with pytest.raises(ConnectionError, match=r"(?s)clip-vit-base-patch32 and facebook/dinov2-small.*models.load"):
        edit_loss.load_critic(other)


def test_the_hubs_kind_of_networks_with_random_weights():
    """The wrappers give unit rows and patches for pictures of any size, and gradients; texts match pictures' width."""
    from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=tower | {"vocab_size": 1000, "max_position_embeddings": 40, "eos_token_id": 830},
        vision_config=tower | {"image_size": 48, "patch_size": 16},
        projection_dim=8,
    )
    clip = edit_loss.HubClip(CLIPModel(config), models.load_clip("pocket", "cpu").tokenizer)
    images = torch.rand(2, 3, 80, 80).requires_grad_(True)
    embeds = clip.image_embeds(images)
    assert embeds.shape == clip.text_embeds(["a cat", "a photo of a car"]).shape == (2, 8)
    assert torch.allclose(embeds.norm(dim=1), torch.ones(2), atol=1e-5)

    dino = Dinov2Model(Dinov2Config(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=56))
    maps = edit_loss.HubMaps(dino, size=56, layers=(1, 3))(images)
    assert [m.shape for m in maps] == [(2, 16, 16)] * 2  # 4x4 patches of 14 pixels, no class token
    (embeds.sum() + sum(F.normalize(m, dim=2).sum() for m in maps)).backward()
    assert images.grad.abs().max() > 0
    assert all(p.grad is None for p in [*clip.model.parameters(), *dino.parameters()])
