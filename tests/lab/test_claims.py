import pytest

from tutorial_lib.lab.claims import claim

FACTS = {"id": "energy", "text": "Rotations keep the energy.", "paper": "Qiu et al. 2023", "measured": "1e-12"}


def test_a_claim_is_shown_as_a_sentence_and_recorded_in_the_output():
    made = claim(**FACTS, verdict="reproduced", seeds=range(3))
    data, metadata = made._repr_mimebundle_()
    assert "Rotations keep the energy." in data["text/plain"] and "(seeds 0, 1, 2)" in data["text/plain"]
    assert metadata["course"]["claim"] == FACTS | {"verdict": "reproduced", "seeds": [0, 1, 2], "results": None}


@pytest.mark.parametrize(
    ("change", "message"), [({"verdict": "proved"}, "the verdict is one of"), ({"seeds": []}, "name the seeds")]
)
def test_a_claim_without_verdict_or_seeds_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        claim(**FACTS | {"verdict": "contradicted", "seeds": [0]} | change)
