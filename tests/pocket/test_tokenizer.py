"""Every caption word is one token, rare words too, and any other text survives the round trip."""

import numpy as np
import pytest
from transformers import CLIPTokenizer

from tutorial_lib.pocket.scene import RARE_WORDS, caption, caption_words, sample_scene
from tutorial_lib.pocket.tokenizer import MAX_LENGTH, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("word", sorted({*caption_words(), *RARE_WORDS}))
def test_a_word_is_one_token(tokenizer, word):
    assert tokenizer.tokenize(word) == [word + "</w>"]


def test_rare_words_are_in_no_caption():
    assert not set(RARE_WORDS) & caption_words()


@pytest.mark.parametrize("text", ["zürich", "xylophone", "naïve café", "日本", "🐈"])
def test_any_text_survives(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_captions_survive_and_fit(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = caption(sample_scene(rng))
        ids = tokenizer(text).input_ids
        assert len(ids) <= MAX_LENGTH
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ,", ",") == text


def test_shipped_tokenizer_is_the_one_written(tokenizer):
    from tutorial_lib.pocket.files import POCKET

    shipped = CLIPTokenizer.from_pretrained(POCKET / "tokenizer")
    assert shipped.get_vocab() == tokenizer.get_vocab()
