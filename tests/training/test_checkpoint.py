import numpy as np
import pytest
import torch

from tutorial_lib.training import checkpoint


def test_what_is_written_is_read_with_its_bits_and_types(tmp_path):
    state = {"w": torch.tensor([1.0, float("nan")]), "h": torch.ones(2, 3).half(), "step": 3, "loss": [0.1, 0.2]}
    checkpoint.write(tmp_path / "c.pt", state)
    read = checkpoint.read(tmp_path / "c.pt")
    assert torch.equal(read["w"].view(torch.int32), state["w"].view(torch.int32)) and read["h"].dtype == torch.float16
    assert (read["step"], read["loss"]) == (3, [0.1, 0.2])
    assert [f.name for f in tmp_path.iterdir()] == ["c.pt"]


def test_a_write_that_fails_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "c.pt"
    checkpoint.write(file, {"step": 1})
    before = file.read_bytes()

    def full(state, stream):
        stream.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.write(file, {"step": 2})
    assert file.read_bytes() == before and [f.name for f in tmp_path.iterdir()] == ["c.pt"]


def test_a_damaged_file_is_named_with_the_cure(tmp_path):
    file = tmp_path / "c.pt"
    checkpoint.write(file, {"w": torch.randn(300)})
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint at all"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"c\.pt is damaged.*: delete it to begin anew"):
            checkpoint.read(file)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trap"), "w"))

    torch.save({"step": Trap()}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="is damaged, or is no checkpoint"):
        checkpoint.read(tmp_path / "c.pt")
    assert not (tmp_path / "trap").exists()


def test_all_that_differs_is_said_but_not_without_end(tmp_path):
    then = {"lr": 0.1, "task": "oft", **{f"parameter {k}": [k] for k in range(9)}}
    checkpoint.compare(tmp_path / "c.pt", then, dict(then))
    with pytest.raises(ValueError) as error:
        checkpoint.compare(tmp_path / "c.pt", then, {"lr": 0.2, "task": "oft", "ema": 0.9})
    text = str(error.value)
    assert "lr: 0.1 there, 0.2 now" in text and "parameter 3: [3] there, nothing now" in text
    assert "and 5 more" in text and "task" not in text


def test_a_fingerprint_changes_with_bits_shape_and_type():
    x = torch.arange(6, dtype=torch.float32)
    same = checkpoint.fingerprint(x, "cat")
    assert same == checkpoint.fingerprint(x.clone(), "cat") and len(same) == 16
    nearly = x.clone()
    nearly[5] = torch.nextafter(nearly[5], torch.tensor(9.0))
    others = [(nearly, "cat"), (x.reshape(2, 3), "cat"), (x.view(torch.int32), "cat"), (x, "dog"), (x.numpy(), "cat")]
    assert len({checkpoint.fingerprint(*o) for o in others} | {same}) == 6
    assert checkpoint.fingerprint(np.ones(3)) != checkpoint.fingerprint(np.ones(3, np.float32))
    assert checkpoint.fingerprint("a", "bc") != checkpoint.fingerprint("ab", "c")
    assert checkpoint.fingerprint(x[::2]) == checkpoint.fingerprint(x[::2].contiguous())
