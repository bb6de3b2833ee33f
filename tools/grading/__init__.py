"""Grading of handed-in notebooks, file by file in the order in which they work.

submissions.py   finds and reads what was handed in        exercises.py   the teacher's side: checks and solutions
answers.py       the code of a notebook that is an answer  process.py     one process with limits for each answer
integrity.py     replaced functions, answers by the library
referee.py       the verdict on one answer                 records.py     what is graded already
page.py          grades.csv and grades.html
"""
