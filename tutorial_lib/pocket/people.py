"""The people: seen from the chest up, with a face large enough to read at 64 pixels."""

from __future__ import annotations

import numpy as np

from tutorial_lib.pocket.canvas import BLACK, RGB, Canvas, bow, curve, dark, light, mix
from tutorial_lib.pocket.scene import Person
from tutorial_lib.pocket.things import decorate_body, glasses, hat

SKIN_RGB = {"light": (253, 219, 190), "tan": (222, 166, 116), "dark": (146, 94, 64)}
HAIR_RGB = {
    "black": (34, 31, 38),
    "brown": (98, 56, 26),
    "blond": (244, 206, 92),
    "red": (206, 84, 32),
    "white": (238, 238, 236),
}
FACE_Y, FACE_RX, FACE_RY = -0.52, 0.255, 0.3
EYE_X, EYE_Y = 0.115, -0.555
NOSE_Y = -0.455
SMILE = (0.14, -0.375)  # half the width of the mouth and the height of its corners
NEUTRAL = (0.075, -0.335)


def draw_person(canvas: Canvas, person: Person, label: int) -> None:
    """Paint the person from back to front: hair, body, face, hair over the forehead, extras."""
    pen = canvas.at(person.x, person.y, person.size, False, label, body=person.pattern is not None)
    skin, hair = SKIN_RGB[person.skin], HAIR_RGB[person.hair_colour]
    _back_hair(pen, person, hair)
    _body(pen, person, skin)
    if person.hair_length == "long":
        _locks(pen, hair)
    _head(pen, skin, ears=person.hair_length == "short")
    if "beard" in person.extras:
        _beard(pen, hair)
    _face(pen, person, skin, hair)
    _mouth(pen, person, skin)
    _front_hair(pen, person, hair)
    if "glasses" in person.extras:
        glasses(pen, -EYE_X, EYE_X, EYE_Y - 0.005, 0.1, rim=0.028)
    if "hat" in person.extras:
        if person.hair_length == "short":
            _sideburns(pen, hair)
        shirt = RGB[person.shirt]
        hat(pen, 0, -0.72, 0.8, shirt, dark(shirt, 0.55) if max(shirt) > 75 else light(shirt, 0.4))


def landmark_points(person: Person) -> np.ndarray:
    """Left eye, right eye, nose, left and right corner of the mouth as one sees them: (5, 2), picture units."""
    half, y = SMILE if "smile" in person.extras else NEUTRAL
    points = [(-EYE_X, EYE_Y), (EYE_X, EYE_Y), (0, NOSE_Y), (-half, y), (half, y)]
    return np.array(points) * person.size + (person.x, person.y)


def _back_hair(pen: Canvas, person: Person, hair) -> None:
    if person.hair_length == "long":
        pen.shape(curve((0, -0.9), (0.27, -0.8), (0.34, -0.5), (0.4, -0.1), (0.38, 0.1), (-0.38, 0.1), (-0.4, -0.1),
                        (-0.34, -0.5), (-0.27, -0.8)), dark(hair, 0.2))  # fmt: skip
    else:
        pen.ellipse(0, -0.61, 0.285, 0.27, hair)


def _body(pen: Canvas, person: Person, skin) -> None:
    shirt = RGB[person.shirt]
    shoulders = [(-0.44, 0.04), (-0.42, -0.06), (-0.33, -0.135), (-0.12, -0.18), (0.12, -0.18), (0.33, -0.135),
                 (0.42, -0.06), (0.44, 0.04)]  # fmt: skip
    pen.shape(shoulders, shirt, body=True)
    pen.shape([(0.2, -0.16), (0.32, -0.12), (0.4, -0.05), (0.42, 0.04), (0.24, 0.04)], dark(shirt, 0.16), ink=False,
              part=False)  # fmt: skip
    decorate_body(pen, person)
    pen.shape(curve((-0.11, -0.32), (0.11, -0.32), (0.13, -0.17), (0, -0.1), (-0.13, -0.17)), dark(skin, 0.14))


def _locks(pen: Canvas, hair) -> None:
    for side in (-1, 1):
        lock = [(0.2, -0.72), (0.32, -0.6), (0.36, -0.35), (0.41, -0.1), (0.4, 0.1), (0.24, 0.1), (0.25, -0.3)]
        pen.shape(curve(*((side * x, y) for x, y in lock)), hair if side < 0 else dark(hair, 0.1))


def _sideburns(pen: Canvas, hair) -> None:
    """What shows of short hair under a hat: without it nobody could tell its colour."""
    for side in (-1, 1):
        lock = [(0.19, -0.74), (0.295, -0.74), (0.3, -0.57), (0.27, -0.475), (0.23, -0.495), (0.222, -0.61)]
        pen.shape(curve(*((side * x, y) for x, y in lock)), hair)


def _head(pen: Canvas, skin, ears: bool) -> None:
    for side in (-1, 1) if ears else ():
        pen.ellipse(side * 0.262, -0.5, 0.045, 0.065, dark(skin, 0.06))
    jaw = curve((0, -0.82), (0.2, -0.74), (0.258, -0.56), (0.235, -0.37), (0.12, -0.235), (0, -0.212), (-0.12, -0.235),
                (-0.235, -0.37), (-0.258, -0.56), (-0.2, -0.74))  # fmt: skip
    pen.shape(jaw, skin)
    for side in (-1, 1):
        pen.ellipse(side * 0.165, -0.44, 0.055, 0.04, mix(skin, (232, 96, 90), 0.22), ink=False, part=False)


def _beard(pen: Canvas, hair) -> None:
    outer = [
        (0.262, -0.52),
        (0.25, -0.36),
        (0.14, -0.215),
        (0, -0.17),
        (-0.14, -0.215),
        (-0.25, -0.36),
        (-0.262, -0.52),
    ]
    inner = [(-0.215, -0.5), (-0.19, -0.42), (-0.1, -0.43), (0, -0.41), (0.1, -0.43), (0.19, -0.42), (0.215, -0.5)]
    pen.shape(outer + inner, hair)


def _face(pen: Canvas, person: Person, skin, hair) -> None:
    brow = dark(hair, 0.3) if person.hair_colour != "white" else (176, 172, 170)
    for side in (-1, 1):
        x = side * EYE_X
        pen.ellipse(x, EYE_Y, 0.06, 0.05, (255, 255, 252), ink=False)
        pen.ellipse(x, EYE_Y, 0.037, 0.043, BLACK, ink=False, part=False)
        pen.line(bow(x, EYE_Y, 0.066, 0.056, 190, 350, 8), dark(skin, 0.75), 0.022, part=False)
        pen.line([(x - 0.06, -0.645), (x, -0.66), (x + 0.06, -0.645)], brow, 0.03)
    pen.line([(0.0, -0.53), (0.035, -0.455), (-0.02, -0.445)], dark(skin, 0.34), 0.022)
    if person.variant == "freckles":
        for x, y in ((0.1, -0.47), (0.16, -0.44), (0.21, -0.475), (0.13, -0.405), (0.2, -0.415)):
            for side in (-1, 1):
                pen.ellipse(side * x, y, 0.014, 0.014, mix(skin, (150, 62, 24), 0.75), ink=False, part=False)


def _mouth(pen: Canvas, person: Person, skin) -> None:
    bearded = "beard" in person.extras
    if "smile" not in person.extras:
        half, y = NEUTRAL
        if bearded:
            pen.ellipse(0, y, half + 0.035, 0.045, skin, ink=False, part=False)
        pen.line([(-half, y), (half, y)], (128, 40, 44), 0.032)
        return
    half, y = SMILE
    grin = np.concatenate([bow(0, y, half, 0.125, 0, 180, 16), bow(0, y, half, 0.012, 180, 360, 6)])
    pen.shape(grin, (150, 22, 36))
    wide, narrow = half - 0.02, half - 0.045
    teeth = [(-wide, y - 0.004), (wide, y - 0.004), (narrow, y + 0.052), (-narrow, y + 0.052)]
    pen.shape(teeth, (255, 255, 255), ink=False, part=False)


def _front_hair(pen: Canvas, person: Person, hair) -> None:
    top = bow(0, -0.63, 0.283, 0.26, 180, 360, 20)
    if person.hair_length == "long":
        fringe = [
            (0.27, -0.56),
            (0.22, -0.64),
            (0.1, -0.74),
            (0.0, -0.79),
            (-0.1, -0.74),
            (-0.22, -0.64),
            (-0.27, -0.56),
        ]
    else:
        fringe = [(0.272, -0.54), (0.235, -0.6), (0.2, -0.69), (0.05, -0.7), (-0.1, -0.73), (-0.2, -0.69),
                  (-0.235, -0.6), (-0.272, -0.54)]  # fmt: skip
    pen.shape(np.concatenate([top, fringe]), hair)
    shine = np.concatenate([bow(-0.02, -0.65, 0.2, 0.19, 205, 265, 8), bow(-0.02, -0.65, 0.17, 0.14, 265, 205, 8)])
    pen.shape(shine, light(hair, 0.28), ink=False, part=False)
