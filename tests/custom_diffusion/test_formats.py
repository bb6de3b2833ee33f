"""Files of diffusers and of the original, both ways, each judged by the outputs of the UNet that they make."""

import pickle

import pytest
import torch

from tutorial_lib import custom_diffusion
from tutorial_lib import formats_custom_diffusion as formats

WEIGHTS = "pytorch_custom_diffusion_weights"


@pytest.fixture
def both(trained):
    """A delta of two concepts."""
    return custom_diffusion.add([trained(1), trained(2, "mug")])


def close(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-6)


def with_diffusers_processors(unet, seed: int = 0) -> None:
    """What diffusers' training script has at its end: its own processors, with weights of their own."""
    from diffusers.models.attention_processor import CustomDiffusionAttnProcessor

    processors, generator = {}, torch.Generator().manual_seed(seed)
    for name in unet.attn_processors:
        attention = unet.get_submodule(name.removesuffix(".processor"))
        cross = ".attn2." in name
        made = CustomDiffusionAttnProcessor(
            train_kv=cross,
            train_q_out=False,
            hidden_size=attention.to_q.out_features if cross else None,
            cross_attention_dim=attention.to_k.in_features if cross else None,
        )
        for kind in ("to_k", "to_v") if cross else ():
            w0 = getattr(attention, kind).weight.data
            getattr(made, f"{kind}_custom_diffusion").weight.data = w0 + 0.1 * torch.randn(
                w0.shape, generator=generator
            )
        processors[name] = made
    unet.set_attn_processor(processors)


# ------------------------------------------------------------------ diffusers


@pytest.mark.parametrize("safe", [True, False])
def test_what_diffusers_writes_is_read(pipe, fresh, trained, predict, tmp_path, safe):
    """Processors saved by its own function, tokens as its script writes them: in one case safetensors named .bin."""
    from safetensors.torch import save_file

    custom_diffusion.load_into(pipe, custom_diffusion.add([trained(1), trained(2)]))
    rows = custom_diffusion.delta(pipe).tokens
    with_diffusers_processors(pipe.unet)
    pipe.unet.save_attn_procs(tmp_path, safe_serialization=safe)
    for token, row in rows.items():
        write = save_file if safe else torch.save
        write({token: row.clone()}, tmp_path / f"{token}.bin")
    other = fresh()
    delta = formats.read_diffusers(tmp_path, other, class_words={"<new1>": "cat"})
    assert delta.class_words == {"<new1>": "cat", "<new2>": None}
    custom_diffusion.load_into(other, delta)
    for prompt in ("a photo of a <new1> cat", "a <new2> beside a <new1>"):
        close(predict(other, prompt), predict(pipe, prompt))


def test_what_is_written_diffusers_can_read(both, pipe, fresh, predict, tmp_path):
    """Its processors from our .bin, its textual inversion from our tokens."""
    formats.write_diffusers(both, tmp_path, pipe)
    other = fresh()
    state = torch.load(tmp_path / f"{WEIGHTS}.bin", weights_only=True)
    other.unet.set_attn_processor(other.unet._process_custom_diffusion(state))
    for token in both.tokens:
        other.load_textual_inversion(tmp_path, weight_name=f"{token}.bin", token=token)
    custom_diffusion.load_into(pipe, both)
    for prompt in ("a photo of a <new1> cat", "a <new2> beside a <new1>"):
        close(predict(other, prompt), predict(pipe, prompt))


@pytest.mark.parametrize("safetensors", [True, False])
def test_diffusers_files_come_back(both, pipe, fresh, predict, tmp_path, safetensors):
    formats.write_diffusers(both, tmp_path, pipe, safetensors=safetensors)
    again = formats.read_diffusers(tmp_path, fresh())
    other = fresh()
    custom_diffusion.load_into(other, again)
    custom_diffusion.load_into(pipe, both)
    close(predict(other), predict(pipe))
    assert again.tokens.keys() == both.tokens.keys() and again.base == both.base


def test_load_attn_procs_of_diffusers_does_nothing(both, pipe, predict, tmp_path):
    """Why tensors are copied into the layers here. When this fails, diffusers has mended it: the notes may go."""
    formats.write_diffusers(both, tmp_path, pipe)
    before = predict(pipe, "a photo of a cat")
    pipe.unet.load_attn_procs(tmp_path, weight_name=f"{WEIGHTS}.bin", use_safetensors=False)
    assert torch.equal(predict(pipe, "a photo of a cat"), before)


def test_other_trained_layers_are_not_dropped_in_silence(pipe, fresh, tmp_path):
    """Training the whole cross-attention is an option of diffusers' script; such files hold more than is read."""
    from diffusers.models.attention_processor import CustomDiffusionAttnProcessor

    processors = {}
    for name in pipe.unet.attn_processors:
        cross = ".attn2." in name
        processors[name] = CustomDiffusionAttnProcessor(cross, cross, 32 if cross else None, 64 if cross else None)
    pipe.unet.set_attn_processor(processors)
    pipe.unet.save_attn_procs(tmp_path)
    with pytest.raises(ValueError, match="does not fit the pipeline.*Only keys and values"):
        formats.read_diffusers(tmp_path, fresh())


# ------------------------------------------------------------------ the original


def test_the_originals_file_is_read(pipe, fresh, trained, predict, tmp_path):
    """As its script lays it out: whole matrices by parameter name, rows by token."""
    custom_diffusion.load_into(pipe, trained(1))
    names = [n for n, _ in pipe.unet.named_parameters() if "attn2.to_k" in n or "attn2.to_v" in n]
    matrices = {name: pipe.unet.get_parameter(name).detach().clone() for name in names}
    row = custom_diffusion.delta(pipe).tokens["<new1>"]
    torch.save({"unet": matrices, "modifier_token": {"<new1>": row}}, tmp_path / "delta.bin")
    other = fresh()
    custom_diffusion.load_into(other, formats.read_original(tmp_path / "delta.bin", other))
    close(predict(other), predict(pipe))


def test_the_originals_compressed_file_is_read(fresh, trained, predict, tmp_path):
    """There u v is a difference to be added, by the paper's rule: components before the share is passed."""
    delta, matrices = trained(1), {}
    for path, matrix in delta.matrices.items():
        U, S, Vt = torch.linalg.svd(matrix, full_matrices=False)
        kept = int((S.cumsum(0) / S.sum() <= 0.6).sum())
        matrices[f"{path}.weight"] = {"u": (U @ S.diag())[:, :kept].clone(), "v": Vt[:kept].clone()}
    torch.save({"unet": matrices, "modifier_token": delta.tokens}, tmp_path / "delta.bin")
    first, second = fresh(), fresh()
    custom_diffusion.load_into(first, formats.read_original(tmp_path / "delta.bin", first))
    custom_diffusion.load_into(second, custom_diffusion.compress(delta, 0.6))
    torch.testing.assert_close(predict(first), predict(second), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ratio", [None, 0.6])
def test_the_originals_files_come_back(both, pipe, fresh, predict, tmp_path, ratio):
    delta = custom_diffusion.compress(both, ratio) if ratio else both
    file = tmp_path / "delta.bin"
    formats.write_original(delta, file, pipe)
    content = torch.load(file, weights_only=True)
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    if ratio is None:  # a whole matrix, not a difference
        w0 = pipe.unet.get_parameter(key).detach()
        torch.testing.assert_close(content["unet"][key], w0 + both.matrix(key.removesuffix(".weight")))
    else:
        assert set(content["unet"][key]) == {"u", "v"}
    again = formats.read_original(file, fresh(), class_words={"<new2>": "mug"})
    other = fresh()
    custom_diffusion.load_into(other, again)
    custom_diffusion.load_into(pipe, delta)
    close(predict(other), predict(pipe))
    assert again.class_words == {"<new1>": None, "<new2>": "mug"}


# ------------------------------------------------------------------ bad input


class Opened:
    """Runs when unpickled."""

    def __reduce__(self):
        return (print, ("a stranger's code ran",))


def test_no_code_of_a_file_is_run(pipe, tmp_path, capsys):
    torch.save({"unet": {"x": Opened()}}, tmp_path / "delta.bin")
    with pytest.raises(ValueError, match="delta.bin is damaged, or holds more than tensors"):
        formats.read_original(tmp_path / "delta.bin", pipe)
    (tmp_path / f"{WEIGHTS}.bin").write_bytes(pickle.dumps(Opened()))
    with pytest.raises(ValueError, match="holds more than tensors"):
        formats.read_diffusers(tmp_path, pipe)
    assert "ran" not in capsys.readouterr().out


def test_files_of_another_model_or_kind_are_named(both, pipe, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no pytorch_custom_diffusion_weights"):
        formats.read_diffusers(tmp_path, pipe)
    with pytest.raises(FileNotFoundError, match="delta.bin is not there"):
        formats.read_original(tmp_path / "delta.bin", pipe)
    torch.save({"state_dict": {}}, tmp_path / "delta.bin")
    with pytest.raises(ValueError, match=r'no delta.bin: expected "unet".*state_dict'):
        formats.read_original(tmp_path / "delta.bin", pipe)
    torch.save([1, 2], tmp_path / "list.bin")
    with pytest.raises(ValueError, match="holds a list: expected tensors by name"):
        formats.read_original(tmp_path / "list.bin", pipe)
    wide = {f"{path}.weight": torch.zeros(32, 768) for path in both.matrices}
    torch.save({"unet": wide}, tmp_path / "wide.bin")
    with pytest.raises(ValueError, match=r"is \(32, 768\) there and \(32, 64\) here"):
        formats.read_original(tmp_path / "wide.bin", pipe)
    torch.save({"unet": dict(list(wide.items())[1:])}, tmp_path / "less.bin")
    with pytest.raises(ValueError, match="is in one of them alone"):
        formats.read_original(tmp_path / "less.bin", pipe)


def test_whole_matrices_are_written_for_their_own_base_model_only(both, pipe, tmp_path):
    with torch.no_grad():
        pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight[0, 0] += 1
    for write in (formats.write_original, formats.write_diffusers):
        with pytest.raises(ValueError, match="different base models"):
            write(both, tmp_path / "made", pipe)
    assert not (tmp_path / "made").exists()


def test_nothing_is_overwritten_unless_asked_for(both, pipe, trained, tmp_path):
    formats.write_original(both, tmp_path / "delta.bin", pipe)
    formats.write_diffusers(both, tmp_path / "folder", pipe)
    before = {f: f.read_bytes() for f in [tmp_path / "delta.bin", *(tmp_path / "folder").iterdir()]}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        formats.write_original(trained(1), tmp_path / "delta.bin", pipe)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        formats.write_diffusers(trained(1), tmp_path / "folder", pipe)
    (tmp_path / "folder" / f"{WEIGHTS}.bin").rename(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="<new1>.bin exists already"):  # and no weights beside old tokens
        formats.write_diffusers(trained(1), tmp_path / "folder", pipe)
    assert not (tmp_path / "folder" / f"{WEIGHTS}.bin").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "folder" / f"{WEIGHTS}.bin")
    assert all(f.read_bytes() == content for f, content in before.items())
    formats.write_original(trained(1), tmp_path / "delta.bin", pipe, overwrite=True)
    assert (tmp_path / "delta.bin").read_bytes() != before[tmp_path / "delta.bin"]


def test_two_concepts_do_not_mix_in_one_folder(both, pipe, trained, tmp_path):
    formats.write_diffusers(both, tmp_path, pipe)
    with pytest.raises(FileExistsError, match="<new2>.bin is of another concept"):
        formats.write_diffusers(trained(1), tmp_path, pipe, overwrite=True)
    with pytest.raises(FileExistsError, match="weights.bin is of another concept"):
        formats.write_diffusers(both, tmp_path, pipe, safetensors=True, overwrite=True)
    (tmp_path / f"{WEIGHTS}.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="leave the one that is meant"):
        formats.read_diffusers(tmp_path, pipe)
