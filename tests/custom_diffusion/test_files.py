"""Our own files: what was saved comes back, nothing is overwritten, nothing half-written stays."""

import pytest
import torch

from tutorial_lib import custom_diffusion


@pytest.mark.parametrize("ratio", [None, 0.5])
def test_what_was_saved_comes_back_and_draws_the_same(pipe, fresh, trained, predict, tmp_path, ratio):
    delta = custom_diffusion.add([trained(2, None), trained(1, "cat")])
    delta = custom_diffusion.compress(delta, ratio) if ratio else delta
    file = tmp_path / "new" / "cat.safetensors"
    custom_diffusion.save(delta, file)
    again = custom_diffusion.load(file)
    other = fresh()
    custom_diffusion.load_into(pipe, delta)
    custom_diffusion.load_into(other, again)
    assert torch.equal(predict(pipe), predict(other))
    assert sorted(again.matrices) == sorted(delta.matrices) and again.base == delta.base
    assert again.class_words == delta.class_words == {"<new2>": None, "<new1>": "cat"}
    assert file.stat().st_size - delta.nbytes < 6000  # names and hashes


def test_a_file_is_not_overwritten_unless_asked_for(trained, tmp_path):
    file = tmp_path / "cat.safetensors"
    custom_diffusion.save(trained(1), file)
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match="exists already.*overwrite=True"):
        custom_diffusion.save(trained(2), file)
    assert file.read_bytes() == before
    custom_diffusion.save(trained(2), file, overwrite=True)
    assert list(custom_diffusion.load(file).tokens) == ["<new2>"]


def test_what_fails_half_way_leaves_the_old_file_and_no_rest(trained, tmp_path, monkeypatch):
    import safetensors.torch

    file = tmp_path / "cat.safetensors"
    custom_diffusion.save(trained(1), file)

    def full_disk(tensors, part, metadata):
        part.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        custom_diffusion.save(trained(2), file, overwrite=True)
    assert list(custom_diffusion.load(file).tokens) == ["<new1>"]
    assert [f.name for f in tmp_path.iterdir()] == ["cat.safetensors"]


def test_files_that_are_not_ours_are_named(trained, tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="nothing.safetensors is not there"):
        custom_diffusion.load(tmp_path / "nothing.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.ones(2)}, foreign)
    with pytest.raises(ValueError, match="not a concept file of this library.*formats"):
        custom_diffusion.load(foreign)
    damaged = tmp_path / "damaged.safetensors"
    custom_diffusion.save(trained(1), damaged)
    damaged.write_bytes(damaged.read_bytes()[:-50])
    with pytest.raises(ValueError, match="damaged.safetensors is damaged"):
        custom_diffusion.load(damaged)
