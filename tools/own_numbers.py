"""Data of one's own for some exercises: drawn from the student's name, so that results differ from desk to desk.

In a pack made with variants, an exercise that has an entry in DATA is followed by a cell with data drawn for that
student. The student runs the answer on them and writes the numbers down. The grader reads the numbers, without running
anything of the notebook, and compares them with what the course's solution makes of the same data. That shows a copied
number; it does not show copied code.

Exercises with data of their own: those in DATA, and no others. An exercise whose data is a model, or whose answer is a
picture or a training, has none.
"""

from __future__ import annotations

import ast
import hashlib

POINTS = 1
TOLERANCE = 0.01  # relative; three digits are enough

# exercise: (code that draws its data from `seed`, the call whose result is asked for)
DATA = {
    "mean_colour": (
        "import numpy as np\n\n"
        "rng = np.random.default_rng({seed})\n"
        "picture = rng.integers(0, 256, size=(64, 64, 3), dtype=np.uint8)\n"
        "mask = rng.random((64, 64)) < picture[..., 0] / 512",
        "mean_colour(picture, mask)",
    ),
    "mean_energy": (
        "import numpy as np\nimport torch\n\n"
        "u = torch.from_numpy(np.random.default_rng({seed}).normal(size=(6, 4)))\n"
        "u = u / u.norm(dim=1, keepdim=True)",
        "mean_energy(u)",
    ),
    "add_noise": (
        "import numpy as np\nimport torch\n\n"
        "rng = np.random.default_rng({seed})\n"
        "x0, eps = torch.from_numpy(rng.normal(size=(2, 4)))\n"
        "alpha = torch.tensor(rng.uniform(0.2, 0.8))",
        "add_noise(x0, eps, alpha)",
    ),
    "ddim_step": (
        "import numpy as np\nimport torch\n\n"
        "rng = np.random.default_rng({seed})\n"
        "x, eps = torch.from_numpy(rng.normal(size=(2, 4)))\n"
        "alpha, alpha_prev = torch.tensor(rng.uniform([0.2, 0.6], [0.5, 0.9]))",
        "ddim_step(x, eps, alpha, alpha_prev)",
    ),
    "slerp": (
        "import numpy as np\nimport torch\n\n"
        "a, b = torch.from_numpy(np.random.default_rng({seed}).normal(size=(2, 4)))",
        "slerp(a, b, 0.3)",
    ),
}


def title(exercise: str) -> str:
    """How the row of an exercise's own numbers is called."""
    return f"{exercise}, own numbers"


def seed(student: str, exercise: str) -> int:
    """The seed of a student's data: the same for ever for the same name."""
    return int.from_bytes(hashlib.sha256(f"{student}/{exercise}".encode()).digest()[:4], "big")


def cell_source(exercise: str, student: str) -> str:
    """The cell of a pack: the data, what to run on them, and where to write the result."""
    data, call = DATA[exercise]
    return (
        f"# Your own numbers · {exercise} · {POINTS} point. These data are drawn for {student} alone.\n"
        f"{data.format(seed=seed(student, exercise))}\n\n"
        f"# When your function is right, run {call} and write the result here as plain numbers, three digits or more,\n"
        "# as in 0.123 or [0.123, 0.456].\n"
        f"own_{exercise} = None"
    )


def judge(exercise, sources: list[str], student: str | None) -> dict:
    """{"state", "message"} for the numbers written in a notebook's cells; meant for a process of its own."""
    import numpy as np

    if student is None:
        return {"state": "missing", "message": "The notebook is not from a pack, so it has no data of its own."}
    given = _written(f"own_{exercise.name}", sources)
    if given is None:
        return {"state": "to do", "message": f"own_{exercise.name} is not written."}
    right = np.asarray(_solve(exercise, student), dtype=float)
    try:
        given = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        return {"state": "wrong", "message": "Write plain numbers, as in 0.123 or [0.123, 0.456]."}
    if given.shape != right.shape:
        return {"state": "wrong", "message": f"Expected numbers of the shape {right.shape}, got {given.shape}."}
    if np.allclose(given, right, rtol=TOLERANCE, atol=TOLERANCE * np.abs(right).mean()):
        return {"state": "right", "message": "The numbers that the solution makes of these data."}
    return {"state": "wrong", "message": "Not what the solution makes of the data drawn for this student."}


def _written(name: str, sources: list[str]):
    """The literal that a cell sets a name to; None if there is none."""
    for source in sources:
        try:
            body = ast.parse(source).body
        except (SyntaxError, ValueError):
            continue
        for statement in body:
            if isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == [name]:
                try:
                    return ast.literal_eval(statement.value)
                except ValueError:
                    return "not a literal"
    return None


def _solve(exercise, student: str):
    """What the course's solution makes of a student's data."""
    data, call = DATA[exercise.name]
    names = dict(exercise.names)
    tree = ast.parse(exercise.solution)
    exec(compile(ast.Module(tree.body[:-1], []), "solution", "exec"), names)
    exec(data.format(seed=seed(student, exercise.name)), names)
    return eval(call, names)
