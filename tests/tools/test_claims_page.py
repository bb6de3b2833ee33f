import claims
import nbformat
import pytest

RECORD = {
    "id": "energy",
    "text": "a | b",
    "paper": "Qiu et al. 2023",
    "measured": "0.1 ± 0.02",
    "verdict": "contradicted",
    "seeds": [0, 1],
    "results": None,
}


def _put(root, name, *records):
    outputs = [
        nbformat.v4.new_output("execute_result", data={"text/plain": "x"}, metadata={"course": {"claim": record}})
        for record in records
    ]
    cell = nbformat.v4.new_code_cell("claim(...)", outputs=outputs, id="the-claim")
    (root / "notebooks" / "solutions").mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), root / "notebooks" / "solutions" / name)


def test_the_page_is_made_from_executed_notebooks(course):
    text = (course.root / "CLAIMS.md").read_text(encoding="utf-8")
    link = "[07, the-claim](notebooks/solutions/07_small.ipynb)"
    row = rf"| Grey \| is grey. | Nobody 2020 | 90 | reproduced | 0 | {link} |"
    assert row in text and "1 claims: 1 reproduced." in text


def test_several_notebooks_and_a_results_table(tmp_path):
    _put(tmp_path, "01_a.ipynb", RECORD)
    _put(tmp_path, "02_b.ipynb", RECORD | {"id": "other", "results": "results/other.csv", "verdict": "reproduced"})
    with pytest.raises(claims.ClaimError, match="results/other.csv, which does not exist"):
        claims.page(claims.collect(tmp_path / "notebooks" / "solutions"), tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "other.csv").write_text("seed\n0\n")
    assert claims.main([], tmp_path) == 0
    lines = (tmp_path / "CLAIMS.md").read_text(encoding="utf-8").splitlines()
    assert "2 claims: 1 contradicted, 1 reproduced." in lines
    assert lines[-1].endswith(
        "[02, the-claim](notebooks/solutions/02_b.ipynb), [results/other.csv](results/other.csv) |"
    )


def test_check_notices_a_stale_page(tmp_path):
    _put(tmp_path, "01_a.ipynb", RECORD)
    assert claims.main(["--check"], tmp_path) == 1
    claims.main([], tmp_path)
    assert claims.main(["--check"], tmp_path) == 0
    _put(tmp_path, "01_a.ipynb", RECORD | {"measured": "0.2"})
    assert claims.main(["--check"], tmp_path) == 1


def test_a_claim_recorded_twice_is_an_error(tmp_path, capsys):
    _put(tmp_path, "01_a.ipynb", RECORD, RECORD)
    assert claims.main([], tmp_path) == 1
    assert "energy" in capsys.readouterr().err
