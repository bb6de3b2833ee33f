"""Grades a folder of handed-in notebooks.

    python tools/grade.py submissions/                 writes submissions_grades/grades.csv and grades.html
    python tools/grade.py submissions/ --out graded    somewhere else
    python tools/grade.py submissions/ --variants      with each student's own numbers (see student_pack.py)

Notebooks are named by their student (`amara.ipynb`, `amara_01_hyperspherical_energy.ipynb`) or lie in a folder that is
(`amara/...`, also the folders that a learning platform makes). Several lessons may lie side by side.

A right answer earns the exercise's difficulty in points. The checks are those of this checkout. Of a notebook only the
exercises' own cells run, after the lesson's imports, with the functions of the student that they need: a class of
forty takes minutes. Stop it when you like: what is graded is kept, and graded again only when the notebook, the checks
or the limits change.

Each exercise of each notebook runs in a process of its own, with limits on time and memory, its output discarded. That
protects the grading from accidents: a loop for ever costs the points of that exercise and no others. It is NOT a
sandbox. A student's code runs on this machine with your rights; it could read your files. Grade the work of people
whom you do not know in a container or under an account that owns nothing. A replaced check, a patched library or a
printed "right" earn nothing, but someone who sets out to deceive the interpreter itself can. What notebooks show is
not read.

Submissions are only read. Each is copied to `copies/` in the output folder first; afterwards all are compared with
what they were, and one that is gone is put back. Linux, macOS or WSL.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import own_numbers
from build_lessons import Course
from grading import answers, page, process, submissions
from grading.exercises import Exercise, exercises_of, fingerprint
from grading.integrity import Seal
from grading.records import Records
from grading.referee import judge
from grading.submissions import Submission, Unreadable
from lesson_format import LessonError, read

# Set before torch is imported: its threads would not survive a fork, and nothing here needs a GPU or the network.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ENVIRONMENT |= {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}


class Grader:
    """Grades notebooks by the lessons of one course; a lesson is imported when its first notebook comes."""

    def __init__(self, course: Course, limits: process.Limits, variants: bool):
        self.limits, self.variants = limits, variants
        self.masters = {path.name[:2]: path for path in course.masters()}
        self.names = [path.stem for path in self.masters.values()]
        self.fingerprints = {number: fingerprint(path) for number, path in self.masters.items()}
        self._exercises: dict[str, list[Exercise]] = {}
        self._seal: Seal | None = None  # of everything imported so far

    def basis(self, lesson: str) -> str:
        """What a record must agree with to be kept."""
        return f"{self.fingerprints[lesson]} {self.limits} {self.variants}"

    def exercises(self, lesson: str) -> list[Exercise]:
        """The exercises of a lesson, the library functions that its solutions call allowed."""
        if lesson not in self._exercises:
            found = exercises_of(read(self.masters[lesson]))
            self._seal = Seal()  # here and not in each process: it takes longer than most checks
            self._exercises[lesson] = [self._with_allowed(exercise) for exercise in found]
        return self._exercises[lesson]

    def _with_allowed(self, exercise: Exercise) -> Exercise:
        verdict = self._judged(exercise, answers.Answer(exercise.solution))
        if verdict["state"] not in ("right", "library"):
            raise LessonError(
                f"the check of {exercise.name!r} does not accept the course's own solution: {verdict['message']}"
            )
        return exercise.allowing(frozenset(verdict["used"]))

    def _judged(self, exercise: Exercise, answer: answers.Answer) -> dict:
        return process.run(lambda: judge(exercise, answer, self._seal), self.limits)

    def results(self, lesson: str, notebook) -> list[dict]:
        """One result for each exercise, and with variants for each student's own numbers."""
        found = [self._result(exercise, notebook) for exercise in self.exercises(lesson)]
        if self.variants:
            student = submissions.packed_for(notebook)
            having = [exercise for exercise in self.exercises(lesson) if exercise.name in own_numbers.DATA]
            found += [self._own_numbers(exercise, notebook, student) for exercise in having]
        return found

    def _result(self, exercise: Exercise, notebook) -> dict:
        answer = answers.find(exercise, notebook)
        if answer is None:
            verdict = {"state": "missing", "message": "The notebook has no cell for this exercise."}
        else:
            verdict = self._judged(exercise, answer)
        return _result(exercise.name, exercise.points, verdict)

    def _own_numbers(self, exercise: Exercise, notebook, student: str | None) -> dict:
        sources = [cell.source for cell in submissions.code_cells(notebook)]
        verdict = process.run(lambda: own_numbers.judge(exercise, sources, student), self.limits)
        return _result(own_numbers.title(exercise.name), own_numbers.POINTS, verdict)


def _result(exercise: str, of: int, verdict: dict) -> dict:
    state = verdict["state"]
    points = of if state == "right" else 0
    return {"exercise": exercise, "points": points, "of": of, "state": state, "diagnosis": verdict["message"]}


# ------------------------------------------------------------------ one folder


def grade(folder: Path, out: Path, grader: Grader) -> int:
    """Grades what is new or changed in a folder and writes the tables; how many notebooks were graded now."""
    found, skipped = submissions.collect(folder, grader.names)
    out.mkdir(parents=True, exist_ok=True)
    records, table, new = Records(out / "records.jsonl"), [], 0
    for submission in found:
        _copy(submission, out / "copies")
    for submission in found:
        record, is_new = _record(submission, out / "copies" / submission.file, grader, records)
        new += is_new
        table.append(record)
        print(_line(record, is_new), flush=True)
    remarks = _remarks(table) + _compare(found, out / "copies")
    page.write(out, table, remarks, skipped)
    for line in [*remarks, *(f"skipped {file}: {why}" for file, why in skipped)]:
        print(line)
    return new


def _copy(submission: Submission, copies: Path) -> None:
    copy = copies / submission.file
    if submissions.digest(copy) != submission.sha256:
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(submission.path, copy)


def _record(submission: Submission, copy: Path, grader: Grader, records: Records) -> tuple[dict, bool]:
    """The record of a submission, and whether it had to be made."""
    shared = {"file": submission.file, "sha256": submission.sha256, "student": submission.student}
    try:
        notebook = submissions.read(copy)
        lesson = submissions.lesson_of(notebook, submission.file, list(grader.masters))
        if lesson is None:
            raise Unreadable("The notebook does not say which lesson it is: its set-up cell and its name are gone.")
    except Unreadable as error:
        result = _result("", 0, {"state": "unreadable", "message": str(error)})
        return shared | {"lesson": "", "packed_for": None, "basis": "", "results": [result]}, True
    basis = grader.basis(lesson)
    if record := records.get(submission.file, submission.sha256, basis):
        return record, False
    packed_for = submissions.packed_for(notebook)
    record = shared | {"lesson": lesson, "packed_for": packed_for, "basis": basis}
    record["results"] = grader.results(lesson, notebook)
    records.add(record)
    return record, True


def _line(record: dict, is_new: bool) -> str:
    results = record["results"]
    what = f"{sum(r['points'] for r in results)} of {sum(r['of'] for r in results)} points"
    if results and results[0]["state"] == "unreadable":
        what = results[0]["diagnosis"]
    return f"{record['file']}: {what}{'' if is_new else ' (graded before)'}"


def _remarks(records: list[dict]) -> list[str]:
    """What a teacher should look at: several notebooks of one student, equal files, another student's pack."""
    told = []
    by_student, by_bytes = {}, {}
    for record in records:
        by_student.setdefault((record["student"], record["lesson"]), []).append(record["file"])
        if any(result["points"] for result in record["results"]):  # empty and untouched ones are often alike
            by_bytes.setdefault(record["sha256"], []).append(record)
        if record["packed_for"] not in (None, record["student"]):
            told.append(f"{record['file']}: made from the pack of {record['packed_for']}")
    for (student, lesson), files in by_student.items():
        if len(files) > 1:
            told.append(f"{student}, lesson {lesson or 'unknown'}: {len(files)} files, each graded: {', '.join(files)}")
    for same in by_bytes.values():
        if len({record["student"] for record in same}) > 1:
            told.append(f"the same bytes from several students: {', '.join(record['file'] for record in same)}")
    return told


def _compare(found: list[Submission], copies: Path) -> list[str]:
    """What became of the submissions while they were graded; one that is gone is put back from its copy."""
    told = []
    for submission in found:
        now = submissions.digest(submission.path)
        if not now:
            submission.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(copies / submission.file, submission.path)
            told.append(f"{submission.file}: was deleted while the folder was graded, and is put back")
        elif now != submission.sha256:
            told.append(f"{submission.file}: changed while the folder was graded; what was graded is in {copies}")
    return told


# ------------------------------------------------------------------ command line


def main(arguments: list[str] | None = None, root: Path = Path(__file__).parents[1]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the submissions")
    parser.add_argument("--out", type=Path, help="where the tables go; beside the folder if not given")
    parser.add_argument("--seconds", type=float, default=process.Limits.seconds, help="for one exercise; default 60")
    parser.add_argument("--memory-mb", type=int, default=process.Limits.memory_mb, help="for one; default 4000")
    parser.add_argument("--variants", action="store_true", help="grade each student's own numbers too")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    out = (options.out or folder.with_name(folder.name + "_grades")).resolve()
    if problem := _problem(folder, out):
        print(problem, file=sys.stderr)
        return 1
    os.environ.update(ENVIRONMENT)
    sys.stdout.reconfigure(errors="replace")  # file names may be no Unicode
    limits = process.Limits(seconds=options.seconds, memory_mb=options.memory_mb)
    try:
        new = grade(folder, out, Grader(Course(root), limits, options.variants))
    except LessonError as error:
        print(
            f"{error}\nThis checkout of the course cannot grade. Nothing that was graded before is lost.",
            file=sys.stderr,
        )
        return 1
    print(f"{new} notebooks graded now. Tables: {out / 'grades.html'}, {out / 'grades.csv'}")
    return 0


def _problem(folder: Path, out: Path) -> str | None:
    if not hasattr(os, "fork"):
        return "Grading needs fork, which this system does not have. On Windows, run it in WSL."
    if not folder.is_dir():
        return f"{folder} is not a folder. Name the folder that holds the notebooks."
    if out == folder or folder in out.parents:
        return f"The tables would lie among the submissions ({out}). Name a folder elsewhere with --out."
    return None


if __name__ == "__main__":
    sys.exit(main())
