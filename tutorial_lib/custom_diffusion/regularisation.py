"""Pictures of the class that keep the class what it is: a user's, the model's own, or such as fit by their caption.

Each function returns pictures and captions, as `training.encode(pipe, pictures, captions)` takes them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

CLASS_CAPTION = "a photo of a {}"
CANDIDATES = 2  # scenes of the class looked at for each picture that is drawn


def generated(pipe, class_word: str, count: int = 200, seed: int = 0, **options) -> tuple[list, list[str]]:
    """Pictures that the model itself draws of the class, before it learns anything. options: `generate`'s."""
    from tutorial_lib import sampling

    _check_count(count)
    captions = [CLASS_CAPTION.format(class_word)] * count
    return sampling.generate(pipe, captions, seed, **options), captions


def drawn(class_word: str, clip, count: int = 200, seed: int = 0) -> tuple[list[Image.Image], list[str]]:
    """Pictures of the pocket world with the class in their captions, nearest to "a photo of a <class>" first.

    So the paper retrieves real pictures: by CLIP's similarity of their captions to the class. The pocket CLIP hears
    colour and place louder than the class, so here a caption must name the class as well. clip: what
    `models.load_clip` returns. Each picture has its own caption.
    """
    from tutorial_lib.pocket import world

    _check_count(count)
    if class_word not in (*world.OBJECTS, "person"):
        raise ValueError(f"the pocket world has no {class_word!r}: expected one of {', '.join(world.OBJECTS)}, person")
    scenes, captions, rng = [], [], np.random.default_rng(seed)
    while len(scenes) < CANDIDATES * count:
        scene = world.sample_scene(rng)
        if class_word in (said := world.caption(scene, rng)).split():
            scenes.append(scene)
            captions.append(said)
    similarity = clip.text_embeds(captions) @ clip.text_embeds([CLASS_CAPTION.format(class_word)])[0]  # (candidates,)
    nearest = similarity.argsort(descending=True)[:count].tolist()
    return [world.draw(scenes[k]) for k in nearest], [captions[k] for k in nearest]


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"count: expected a number of pictures, 1 or more, got {count!r}")
