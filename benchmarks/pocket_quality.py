"""How good is Pocket-SD? Measure it, print it against the floors it must reach, and show its pictures.

    python benchmarks/pocket_quality.py                          the shipped model, 500 prompts, about 10 minutes
    python benchmarks/pocket_quality.py --model FOLDER --prompts 60    a checkpoint, quickly

The first form writes results/pocket_quality.csv, results/contact_sheet.csv (the prompts and seeds of the sheet),
docs/contact_sheet.png and docs/nearest_neighbours.png. The second writes the same files under runs/.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from tutorial_lib import control, metrics, models, results, sampling
from tutorial_lib.metrics import PERSON_ATTRIBUTES, Share
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket import world
from tutorial_lib.pocket.pretrain.data import training_scenes
from tutorial_lib.pocket.scene import (
    ANIMALS,
    BACKGROUNDS,
    COLOURS,
    EXTRAS,
    HAIR_COLOURS,
    HAIR_LENGTHS,
    OBJECTS,
    SKINS,
    STYLES,
    Person,
    Scene,
    Thing,
    caption,
    place,
    sample_scene,
)

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "data" / "pocket-sd"
PROMPTS = 500
STEPS = 25
BATCH = 16
SEED = 2024  # of the scenes; a picture's own seed is its number in the list
REAL = 1500  # drawn pictures that the judge and the VAE are tested on
TRAINING = 5000  # training pictures that the made ones are compared with

JUDGE_FLOORS = dict.fromkeys(("object", "colour", "background", "style", *PERSON_ATTRIBUTES), 0.98)
VAE_FLOORS = dict.fromkeys(metrics.ATTRIBUTES, 0.97) | {"PSNR": 31.0}
PICTURE_FLOORS = (
    {"object": 0.97, "background": 0.97, "style": 0.95, "colour": 0.92}
    | dict.fromkeys(PERSON_ATTRIBUTES, 0.90)
    | {"both objects": 0.85, "both colours": 0.75, "worn": 0.85}
)
HELD_OUT_LOSS = 0.05  # a held-out figure may be this much lower than the same figure of seen pairs


# ------------------------------------------------------------------ what is asked for


@dataclass(frozen=True)
class Case:
    """One picture to make: the scene, its whole caption, its seed, and whether a pair in it was held out."""

    scene: Scene
    split: str  # "seen" or "held-out"
    seed: int

    @property
    def prompt(self) -> str:
        return caption(self.scene)


# Shares of each split, so that each figure counts enough pictures. No pair with a person alone is held out.
PLANS = {
    "seen": {"person": 0.46, "object": 0.15, "worn": 0.14, "two objects": 0.13, "person and object": 0.12},
    "held-out": {"object": 0.40, "worn": 0.20, "two objects": 0.24, "person and object": 0.16},
}
STYLE_TURNS = ("photo", "watercolor", "photo", "pencil sketch", "photo", "pixel art")  # half are photos
EXTRA_TURNS = [extras for n in range(1, 5) for extras in itertools.combinations(EXTRAS, n)]


def plan_of(scene: Scene) -> str:
    """Which plan of PLANS the scene belongs to."""
    people = sum(isinstance(thing, Person) for thing in scene.things)
    if len(scene.things) == 2:
        return "person and object" if people else "two objects"
    if people:
        return "person"
    return "worn" if scene.things[0].worn else "object"


def make_cases(prompts: int = PROMPTS, seed: int = SEED) -> list[Case]:
    """The same list every time: the first half of seen pairs, the second with held-out ones, plan by plan."""
    rng = np.random.default_rng(seed)
    cases = []
    for split, size in (("seen", prompts - prompts // 2), ("held-out", prompts // 2)):
        ends = np.rint(np.cumsum(list(PLANS[split].values())) * size).astype(int)
        for plan, count in zip(PLANS[split], np.diff(ends, prepend=0), strict=True):
            for k in range(count):
                scene = _scene_of(plan, STYLE_TURNS[k % len(STYLE_TURNS)], rng, split == "held-out")
                if plan == "person":  # the world's people seldom have a beard: here half have each extra
                    extras = EXTRA_TURNS[(k + k // 6) % 15]  # out of step with the styles
                    scene = replace(scene, things=(replace(scene.things[0], extras=extras),))
                cases.append(Case(scene, split, seed=len(cases)))
    return cases


def _scene_of(plan: str, style: str, rng: np.random.Generator, held_out: bool) -> Scene:
    while True:
        scene = sample_scene(rng, held_out)
        if plan_of(scene) == plan and scene.style == style:
            return scene


# ------------------------------------------------------------------ rows


@dataclass(frozen=True)
class Row:
    """One measured figure. `floor` None: the figure is reported without a floor."""

    subject: str
    figure: str
    split: str
    style: str
    value: float
    count: int
    floor: float | None = None

    @property
    def reached(self) -> bool:
        return self.floor is None or self.value >= self.floor

    @property
    def nearly(self) -> bool:
        """Whether one more right picture would have reached the floor: a share of few pictures moves in large steps."""
        return not self.reached and self.value <= 1 and self.value + 1 / self.count >= self.floor


def fidelity_rows(subject: str, images: np.ndarray, cases: list[Case], judge, floors: dict, **options) -> list[Row]:
    """`prompt_fidelity` for each split, for each style and for "all" styles together."""
    rows = []
    for split in dict.fromkeys(case.split for case in cases):
        totals: dict[str, Share] = {}
        for style in STYLES:
            chosen = [k for k, case in enumerate(cases) if (case.split, case.scene.style) == (split, style)]
            if not chosen:
                continue
            scenes = [cases[k].scene for k in chosen]
            shares = metrics.prompt_fidelity(images[chosen], scenes, judge, **options)
            rows += [Row(subject, a, split, style, s.value, s.count, floors.get(a)) for a, s in shares.items()]
            for attribute, share in shares.items():
                totals[attribute] = totals.get(attribute, Share(0, 0)) + share
        rows += [Row(subject, a, split, "all", s.value, s.count, floors.get(a)) for a, s in totals.items()]
    return rows


def with_held_out_floors(rows: list[Row]) -> list[Row]:
    """A held-out figure's floor is the seen figure of the same style, less HELD_OUT_LOSS."""
    seen = {(row.figure, row.style): row.value for row in rows if row.split == "seen"}

    def floor(row: Row) -> float | None:
        value = seen.get((row.figure, row.style))
        return row.floor if value is None else value - HELD_OUT_LOSS

    return [replace(row, floor=floor(row)) if row.split == "held-out" else row for row in rows]


# ------------------------------------------------------------------ the parts, measured one by one


def judge_rows(judge, images: np.ndarray, cases: list[Case]) -> list[Row]:
    """The judge on drawn pictures that nothing was trained on: what is there and what is not there."""
    cases = [replace(case, split="drawn") for case in cases]
    rows = fidelity_rows("judge", images, cases, judge, JUDGE_FLOORS, absent=True)
    labels = np.stack([world.segmentation(case.scene) for case in cases])
    for figure, value in metrics.segmentation_scores(judge.segment(images).cpu(), labels).items():
        rows.append(Row("judge", f"segmentation {figure}", "drawn", "all", value, len(cases)))
    faces = [k for k, case in enumerate(cases) if plan_of(case.scene) == "person"]
    points = np.stack([world.landmarks(cases[k].scene) for k in faces])
    error = metrics.landmark_error(judge.landmarks(images[faces]).detach().cpu(), points)
    return [*rows, Row("judge", "landmark error (pixels)", "drawn", "all", error, len(faces))]


def vae_rows(pipe, judge, images: np.ndarray, cases: list[Case]) -> list[Row]:
    """Drawn pictures through the VAE and back: PSNR, and what the judge still reads."""
    decoded = round_trip(pipe, images)
    cases = [replace(case, split="drawn") for case in cases]
    rows = []
    for style in ("all", *STYLES):
        chosen = [k for k, case in enumerate(cases) if style in ("all", case.scene.style)]
        if chosen:
            value = metrics.psnr(decoded[chosen], images[chosen])
            rows.append(Row("VAE", "PSNR", "drawn", style, value, len(chosen), VAE_FLOORS["PSNR"]))
    return rows + fidelity_rows("VAE", decoded, cases, judge, VAE_FLOORS, absent=True)


def picture_rows(images: np.ndarray, cases: list[Case], judge, drawn: np.ndarray) -> list[Row]:
    """Made pictures: did they become what was asked for, and are they like the drawn ones of the same scenes?"""
    rows = with_held_out_floors(fidelity_rows("pictures", images, cases, judge, PICTURE_FLOORS))
    for name, metric in (("FID", metrics.fid), ("KID", metrics.kid)):
        rows.append(Row("pictures", name, "both", "all", metric(drawn, images, judge), len(images)))
    return rows


def round_trip(pipe, images: np.ndarray) -> np.ndarray:
    """Pictures (n, 64, 64, 3), uint8, through the VAE and back, 50 at a time: together they need too much memory."""
    decoded = []
    for batch in np.array_split(images, -(-len(images) // 50)):
        decoded += control.through_vae(pipe, [Image.fromarray(picture) for picture in batch])
    return np.stack([np.asarray(picture) for picture in decoded])


def make_pictures(pipe, cases: list[Case]) -> np.ndarray:
    """One picture a case by Pocket-SD, at 25 steps and the default guidance: uint8 (n, 64, 64, 3)."""
    pictures = []
    for k in tqdm(range(0, len(cases), BATCH), desc="making pictures", unit="batch"):
        batch = cases[k : k + BATCH]
        seeds = [case.seed for case in batch]
        pictures += sampling.generate(pipe, [case.prompt for case in batch], seed=seeds, num_inference_steps=STEPS)
    return np.stack([np.asarray(picture) for picture in pictures])


# ------------------------------------------------------------------ copies of training pictures?


def nearest(images: np.ndarray, training: np.ndarray, describe) -> tuple[np.ndarray, np.ndarray]:
    """For each picture the distance to its nearest training picture, and which one it is."""
    distances, indices = torch.cdist(describe(images), describe(training)).min(dim=1)
    return distances.numpy(), indices.numpy()


def as_pixels(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).flatten(1).float() / 255


def copy_rows(images: np.ndarray, fresh: np.ndarray, training: np.ndarray, judge) -> tuple[list[Row], dict]:
    """How near the made pictures come to training pictures, beside fresh ones of the same scenes.

    A fresh picture cannot be a copy. So if made pictures come no nearer than fresh ones, they are no copies;
    "nearer than fresh" is the share of them that comes nearer than all but 1 % of the fresh ones: about 0.01.
    """
    rows, neighbours = [], {}
    for name, describe in (("features", lambda x: judge.features(x).float().cpu()), ("pixels", as_pixels)):
        made, neighbours[name] = nearest(images, training, describe)
        own, _ = nearest(fresh, training, describe)
        figures = {
            "nearest training picture, median": float(np.median(made)),
            "nearest training picture, median of fresh": float(np.median(own)),
            "nearer than fresh": float((made < np.quantile(own, 0.01)).mean()),
        }
        rows += [Row("copies", f"{f} ({name})", "both", "all", v, len(images)) for f, v in figures.items()]
        neighbours[f"{name} distance"] = made
    return rows, neighbours


# ------------------------------------------------------------------ sheets


def sheet(rows: list[list[np.ndarray]], names: list[str], columns: list[str] = (), scale: int = 2) -> Image.Image:
    """A grid of pictures, each row with its name at the left, each column with its own on top."""
    font = ImageFont.load_default(size=15)
    side, left, top, gap = 64 * scale, 118, 26 if columns else 6, 6
    width = left + len(rows[0]) * (side + gap)
    page = Image.new("RGB", (width, top + len(rows) * (side + gap)), "white")
    pen = ImageDraw.Draw(page)
    for c, text in enumerate(columns):
        pen.text((left + c * (side + gap) + side / 2, top / 2), text, "black", font, anchor="mm")
    for r, (row, name) in enumerate(zip(rows, names, strict=True)):
        y = top + r * (side + gap)
        pen.multiline_text((left - 10, y + side / 2), name, "black", font, anchor="rm", align="right")
        for c, picture in enumerate(row):
            large = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            page.paste(large, (left + c * (side + gap), y))
    return page


def contact_scenes() -> dict[str, list[Scene]]:
    """The scenes of the README's sheet, made by a rule and never chosen by hand: row by row, 12 in each."""
    rng = np.random.default_rng(0)  # for the places only, which no prompt mentions
    rows = {}
    for r, background in enumerate(BACKGROUNDS):
        things = [_thing(kind, r, c) for c, kind in enumerate(OBJECTS)] + [_person(12 + 7 * r)]
        rows["\n".join(BACKGROUNDS[background].rsplit(" ", 1))] = [
            Scene(_style(r, c), background, (place(thing, rng),)) for c, thing in enumerate(things)
        ]
    places = list(itertools.islice(itertools.cycle(BACKGROUNDS), 12))
    people = [Scene(_style(6, c), places[c], (place(_person(c), rng),)) for c in range(12)]
    pairs = [(_thing(OBJECTS[c % 11], 0, c), _thing(OBJECTS[(c + 4) % 11], 2, c)) for c in range(11)]
    pairs.append((_person(5), _thing("cat", 0, 5)))
    both = [
        Scene(_style(7, c), places[-1 - c], (place(a, rng, "left"), place(b, rng, "right")))
        for c, (a, b) in enumerate(pairs)
    ]
    return rows | {"people": people, "two things": both}


def _style(r: int, c: int) -> str:
    """Two photos, then a picture in another style, along each diagonal."""
    return STYLES[1 + (r + c) // 3 % 3] if (r + c) % 3 == 2 else "photo"


def _thing(kind: str, r: int, c: int) -> Thing:
    worn = (("glasses",), ("hat",), ())[r % 3] if kind in ANIMALS else ()
    return Thing(kind, COLOURS[(3 * c + 4 * r) % len(COLOURS)], worn=worn)


def _person(k: int) -> Person:
    return Person(
        skin=SKINS[k % 3],
        hair_colour=HAIR_COLOURS[k % 5],
        hair_length=HAIR_LENGTHS[k // 2 % 2],
        shirt=COLOURS[3 * k % 10],
        extras=EXTRA_TURNS[4 * k % 15],
    )


def contact_sheet(pipe) -> tuple[Image.Image, list[dict]]:
    """The README's sheet, and the prompt and seed of each of its pictures."""
    rows = contact_scenes()
    scenes = list(itertools.chain(*rows.values()))
    cases = [Case(scene, "sheet", seed=k) for k, scene in enumerate(scenes)]
    pictures = make_pictures(pipe, cases)
    grid = [list(pictures[12 * r : 12 * r + 12]) for r in range(len(rows))]
    table = [{"row": k // 12, "column": k % 12, "prompt": c.prompt, "seed": c.seed} for k, c in enumerate(cases)]
    return sheet(grid, list(rows), [*OBJECTS, "person"]), table


def neighbour_sheet(images: np.ndarray, training: np.ndarray, neighbours: dict) -> Image.Image:
    """Twelve made pictures that come nearest to a training picture, then twelve at even ranks of distance."""
    order = np.argsort(neighbours["features distance"])
    rows, names = [], []
    for what, chosen in (
        ("nearest\nof all", order[:12]),
        ("typical", order[np.linspace(0, len(order) - 1, 12, dtype=int)]),
    ):
        rows += [images[chosen], training[neighbours["features"][chosen]], training[neighbours["pixels"][chosen]]]
        names += [f"made:\n{what}", "training:\nby features", "training:\nby pixels"]
    return sheet([list(row) for row in rows], names)


# ------------------------------------------------------------------ report


def report(rows: list[Row]) -> Iterator[str]:
    """The lines of a table: one a figure and split, the styles side by side, marked where there is a floor."""
    for subject, group in itertools.groupby(rows, key=lambda row: row.subject):
        cells: dict[tuple[str, str], dict[str, Row]] = {}
        for row in group:
            cells.setdefault((row.figure, row.split), {})[row.style] = row
        yield f"\n{subject:62}" + "".join(f"{style:22}" for style in ("all", *STYLES))
        for (figure, split), by_style in cells.items():
            yield f"{figure:52}{split:10}" + "".join(_cell(by_style.get(style)) for style in ("all", *STYLES))
    missed = [row for row in rows if not row.reached]
    yield (
        f"\n{sum(row.floor is not None for row in rows)} figures have a floor: + reached, - not. Not: {len(missed)}, "
        f"of which {sum(row.nearly for row in missed)} by one picture."
    )


def _cell(row: Row | None) -> str:
    """Value, how many were counted, and the floor with its mark, 22 characters wide."""
    if row is None:
        return f"{'':22}"
    floor = "" if row.floor is None else f"{'+' if row.reached else '-'}{row.floor:.2f}"
    return f"{f'{row.value:.3f} ({row.count}) {floor}':22}"


def write_csv(file: Path, rows: Iterable[dict]) -> None:
    rows = list(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _record(row: Row, digest: str) -> dict:
    return asdict(row) | {
        "value": f"{row.value:.4f}",
        "floor": "" if row.floor is None else f"{row.floor:.4f}",
        "reached": "" if row.floor is None else row.reached,
        "seed": SEED,
        "model": digest,
    }


# ------------------------------------------------------------------ all of it


def measure(pipe, judge, prompts: int, out: Path) -> list[Row]:
    """All rows; the sheet of nearest neighbours is saved to `out` on the way."""
    real = make_cases(min(REAL, 3 * prompts), SEED + 1)
    drawn = world.draw_many(case.scene for case in real)
    rows = judge_rows(judge, drawn, real) + vae_rows(pipe, judge, drawn, real)

    cases = make_cases(prompts)
    images = make_pictures(pipe, cases)
    fresh = world.draw_many(case.scene for case in cases)
    rows += picture_rows(images, cases, judge, fresh)

    training = world.draw_many(training_scenes(TRAINING))
    # Fresh pictures pass through the VAE too: made ones are its work, and a little smoother than drawn ones.
    copies, neighbours = copy_rows(images, round_trip(pipe, fresh), training, judge)
    save(neighbour_sheet(images, training, neighbours), out / "docs" / "nearest_neighbours.png")
    return rows + copies


def save(image: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, optimize=True)
    print(f"wrote {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="pictures to make (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=SHIPPED, metavar="FOLDER", help="default: data/pocket-sd")
    options = parser.parse_args()
    if options.prompts < 20:
        parser.error(f"--prompts must be 20 or more, so that each kind of scene is there; got {options.prompts}")
    full = options.model.resolve() == SHIPPED and options.prompts == PROMPTS
    out = ROOT if full else ROOT / "runs" / "pocket_quality"

    pipe, judge = models.load(str(options.model)), pocket_judge.load(options.model / "judge")
    pipe.set_progress_bar_config(disable=True)
    page, prompts = contact_sheet(pipe)
    save(page, out / "docs" / "contact_sheet.png")
    write_csv(out / "results" / "contact_sheet.csv", prompts)

    rows = measure(pipe, judge, options.prompts, out)
    digest = results.model_hash(options.model)
    write_csv(out / "results" / "pocket_quality.csv", (_record(row, digest) for row in rows))
    print(*report(rows), sep="\n")


if __name__ == "__main__":
    main()
