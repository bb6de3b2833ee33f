"""What a lesson's notebook works with: the session, pictures and curves, widgets, checks, claims.

Everything here returns a value that a notebook shows when it stands on the last line of a cell.
"""
