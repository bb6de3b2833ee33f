"""The benchmark of the merge, run at a small size: what it measures, and what it prints of that."""

import math

import merging
import pytest
import torch
from full_size import random_pipeline

from tutorial_lib.custom_diffusion import MergeReport

NARROW = {
    **{"widths": (32, 64, 96, 96), "text": 64, "side": 8, "vae": (8, 8, 8, 8)},
    **{"layers": 2, "heads": 2, "groups": (8, 4)},
}
REPORT = MergeReport(1e-12, 1e-7, 1e-13, 0.1, (0.2, 0.3), 30, 27, 1.0, 1e6, 1e2, 31.26)
MADE_UP = merging.Measured(3, 32, (200, 77, 768), encoding=26.04, solving=1.249, merge=REPORT)


@pytest.fixture(scope="module")
def found():
    return merging.measured(NARROW, count=70)  # more than one chunk of captions


def test_three_concepts_are_merged_in_every_matrix_of_keys_and_values(found):
    assert (found.concepts, found.matrices) == (3, 32), "16 cross-attentions, as in Stable Diffusion"
    assert found.features == (70, 77, 64)


def test_seconds_are_measured_apart(found):
    seconds = found.encoding, found.solving, found.merge.seconds
    assert all(0 < s < math.inf for s in seconds)


def test_the_merge_is_exact(found):
    errors = found.merge.constraint, found.merge.rounded, found.merge.stationarity
    assert all(math.isfinite(error) for error in errors)
    assert found.merge.constraint < 1e-9 and found.merge.rounded < 1e-5 and found.merge.stationarity < 1e-9
    assert len(found.merge.drifts) == 3 and 0 < found.merge.drift < min(found.merge.drifts)
    assert found.merge.rank == found.merge.rows and found.merge.ridge == merging.RIDGE


def test_the_report_tells_what_was_measured():
    first, solving, encoding, merge, exactness = merging.report(MADE_UP)
    assert first.startswith("3 concepts, 32 matrices, 768 columns, 15,400 features of 200 captions")
    assert " 1.2 s" in solving and solving.startswith("from features") and f"at most {merging.AT_MOST:g}" in solving
    assert " 26.0 s" in encoding and encoding.startswith("encoding") and " 31.3 s" in merge
    assert exactness == str(REPORT) and "constraint error 1.0e-12" in exactness and "KKT error 1.0e-13" in exactness


def test_what_is_printed_is_the_report_of_the_sizes_of_stable_diffusion(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(merging, "measured", lambda *given: asked.append(given) or MADE_UP)
    monkeypatch.setattr("sys.argv", ["merging.py", "--captions", "30"])
    merging.main()
    assert asked == [(merging.SIZES, 30)]
    assert capsys.readouterr().out == "".join(f"{line}\n" for line in merging.report(MADE_UP))


def test_the_benchmark_has_stable_diffusions_matrices(tmp_path):
    with torch.device("meta"):
        pipe = random_pipeline(tmp_path, **merging.SIZES)
    layers = merging.custom_diffusion.keys_and_values(pipe.unet).values()
    assert len(layers) == 32 and {layer.in_features for layer in layers} == {768}
    assert sum(layer.weight.numel() for layer in layers) == 19_169_280


def test_concepts_differ_and_change_every_matrix_by_a_tenth_of_its_size(tmp_path):
    pipe = random_pipeline(tmp_path, **NARROW)
    pipe.unet.requires_grad_(False)
    one, two = (merging.concept(pipe, k, word, merging.WORDS[word]) for k, word in enumerate(merging.WORDS, 1) if k < 3)
    for path in one.matrices:
        size = pipe.unet.get_submodule(path).weight.std()
        assert one.matrix(path).std() / size == pytest.approx(0.1, rel=0.1)
        assert not torch.equal(one.matrix(path), two.matrix(path))
    assert list(one.tokens) == ["<new1>"] and two.class_words == {"<new2>": "mug"}
