import pytest
import torch

from tutorial_lib import baselines, custom_diffusion, models, profiles, training
from tutorial_lib.pocket.subjects import SUBJECTS
from tutorial_lib.pocket.world import draw


@pytest.fixture
def pipe(small_unet):
    """The pocket pipeline with a small UNet of random weights."""
    made = models.load("pocket", device="cpu")
    made.unet = small_unet
    return made


def encode(pipe, captions: list[str]) -> training.Encoded:
    scenes = SUBJECTS["two-tone-cat"].scenes
    return training.encode(pipe, [draw(scene) for scene in scenes[: len(captions)]], captions)


@pytest.fixture
def cat(pipe):
    return encode(pipe, ["a photo of a sks cat", "a photo of a sks cat on a beach", "a sks cat in a city"])


def state(module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def look(pipe, prompt: str = "a photo of a sks cat") -> torch.Tensor:
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return pipe.unet(noise, 300, training.embed(pipe, [prompt, prompt])).sample


def fit(task, steps: int = 3):
    return training.fit(task, steps, 1e-2, 2, progress=False, every=steps)


def test_dreambooth_trains_the_whole_unet_and_nothing_else(pipe, cat):
    before, text, vae = state(pipe.unet), state(pipe.text_encoder), state(pipe.vae)
    fit(baselines.dreambooth(pipe, cat, prior=cat))
    unchanged = set(before) - changed(before, pipe.unet.state_dict())
    assert unchanged <= {name for name in before if before[name].abs().sum() == 0}  # a zero bias may have no gradient
    assert not changed(text, pipe.text_encoder.state_dict()) and not changed(vae, pipe.vae.state_dict())


def test_lora_is_the_identity_at_first_and_comes_off_without_a_trace(pipe, cat):
    before, plain = state(pipe.unet), look(pipe)
    task = baselines.lora(pipe, cat, rank=3, dropout=0.1)
    assert torch.allclose(look(pipe), plain, atol=1e-6)
    layers = [n for n in before if n.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"))]
    expected = sum(3 * sum(before[name].shape) for name in layers)
    assert sum(p.numel() for p in task.parameters().values()) == expected and len(layers) == 32
    fit(task)
    assert not torch.allclose(look(pipe), plain, atol=1e-3)
    baselines.remove_lora(pipe)
    assert state(pipe.unet).keys() == before.keys() and not changed(before, pipe.unet.state_dict())
    assert torch.equal(look(pipe), plain)


def test_lora_begins_with_its_seed(pipe, cat):
    def start(seed: int) -> torch.Tensor:
        task = baselines.lora(pipe, cat, rank=2, seed=seed)
        found = torch.cat([p.detach().flatten() for p in task.parameters().values()])
        baselines.remove_lora(pipe)
        return found

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = start(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(start(0), first) and not torch.equal(start(1), first)


@pytest.mark.parametrize("layers", [profiles.STABLE_DIFFUSION.layers, profiles.POCKET.layers])
@pytest.mark.filterwarnings("error:While injecting the PEFT adapters")  # a part of the file is not loaded
def test_a_saved_lora_gives_the_same_pictures_in_a_plain_pipeline(pipe, cat, tmp_path, layers):
    plain = state(pipe.unet)
    fit(baselines.lora(pipe, cat, rank=5, targets=layers))
    trained = look(pipe)
    baselines.save_lora(pipe, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    baselines.remove_lora(pipe)
    assert not changed(plain, pipe.unet.state_dict())
    pipe.load_lora_weights(tmp_path)
    assert torch.allclose(look(pipe), trained, atol=1e-6)


def test_textual_inversion_trains_one_row_of_the_table(pipe):
    custom_diffusion.add_concept(pipe, "<new1>", init="ktn")
    data = encode(pipe, ["a photo of a <new1> cat", "a <new1> cat in a forest"])
    unet, text = state(pipe.unet), state(pipe.text_encoder)
    task = baselines.textual_inversion(pipe, data)
    assert [tuple(p.shape) for p in task.parameters().values()] == [(192,)]
    without, with_word = look(pipe, "a photo of a cat"), look(pipe, "a photo of a <new1> cat")
    history = fit(task)
    assert not changed(unet, pipe.unet.state_dict())
    (name,) = changed(text, pipe.text_encoder.state_dict())
    rows = (pipe.text_encoder.state_dict()[name] != text[name]).any(1).nonzero().flatten().tolist()
    assert rows == [pipe.tokenizer.convert_tokens_to_ids("<new1>")]
    assert torch.equal(look(pipe, "a photo of a cat"), without)
    assert not torch.allclose(look(pipe, "a photo of a <new1> cat"), with_word, atol=1e-4)
    assert history.watched["<new1>"][0] == 0 < history.watched["<new1>"][-1]


def test_each_run_can_be_interrupted_and_goes_on(pipe, cat, tmp_path):
    """What the loop promises holds for peft's dropout and for a row that shares its memory with the table."""
    custom_diffusion.add_concept(pipe, "<new1>", init="ktn")
    words = encode(pipe, ["a photo of a <new1> cat", "a <new1> cat in a forest"])
    row = pipe.text_encoder.get_input_embeddings().weight[-1].detach().clone()

    def begin(method: str):
        if method == "lora":
            return baselines.lora(pipe, cat, rank=2, dropout=0.2)
        pipe.text_encoder.get_input_embeddings().weight.data[-1] = row
        return baselines.textual_inversion(pipe, words)

    def end(method: str, task) -> torch.Tensor:
        found = torch.cat([p.detach().flatten() for p in task.parameters().values()])
        if method == "lora":
            baselines.remove_lora(pipe)
        return found

    for method in ("lora", "words"):
        ends = []
        for stops in ([4], [2, 4]):
            for steps in stops:
                task = begin(method)
                folder = tmp_path / f"{method}{len(stops)}"
                training.fit(task, steps, 1e-2, 2, ema=0.5, folder=folder, progress=False)
                found = end(method, task)
            ends.append(found)
        assert torch.equal(*ends)


def test_bad_input_is_refused_and_leaves_the_pipeline_as_it_was(pipe, cat):
    for rank in (0, -1, 2.5):
        with pytest.raises(ValueError, match="rank: expected a whole number"):
            baselines.lora(pipe, cat, rank=rank)
    with pytest.raises(ValueError, match="named 'to_qq': expected names such as .*to_q"):
        baselines.lora(pipe, cat, targets=["to_qq"])
    assert not any("lora" in name for name in pipe.unet.state_dict())
    baselines.lora(pipe, cat, rank=2)
    with pytest.raises(ValueError, match="has a LoRA already: baselines.remove_lora"):
        baselines.lora(pipe, cat, rank=4)
    baselines.remove_lora(pipe)
    baselines.lora(pipe, cat, rank=4)
    pipe.unet.half()
    with pytest.raises(ValueError, match="half precision"):
        fit(baselines.dreambooth(pipe, cat))
