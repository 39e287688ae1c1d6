"""Text files of tables in every dialect: the same values come in, and the same bytes go out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.columns import IDS, ROWS, X, columns_of, lines, returned

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError

CITY = [("Zürich", "Genf", "Bern")[row % 3] for row in range(ROWS)]


def test_a_header_with_semicolons_does_not_decide_the_delimiter(tmp_path: Path) -> None:
    text = "\n".join(lines("id age;_years;_at_entry;_(all) city;_now", X, CITY))
    returned(tmp_path, "a.csv", text)
    assert list(columns_of(tmp_path)) == ["age;_years;_at_entry;_(all)", "city;_now"]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_delimiters_and_encodings(tmp_path: Path, mark: str, encoding: str) -> None:
    text = "\n".join(lines("id größe city", X, CITY, mark=mark))
    told, back = returned(tmp_path, "a.csv", text, encoding=encoding)
    assert back == text
    assert {name: entry["kind"] for name, entry in columns_of(tmp_path).items()} == {
        "größe": "numeric",
        "city": "categorical",
    }
    assert (f"read in the encoding {encoding}" in told) == (encoding != "utf-8")


def test_a_compressed_file_is_written_compressed(tmp_path: Path) -> None:
    text = "\n".join(lines("id x city", X, CITY))
    told, back = returned(tmp_path, "rna.csv.gz", text)
    assert back == text
    assert told.splitlines()[1].split()[0] == "rna"


@pytest.mark.parametrize("end", [("", ","), (",", ",")], ids=["rows alone", "header and rows"])
def test_a_delimiter_at_the_end_of_rows_is_no_column(tmp_path: Path, end: tuple[str, str]) -> None:
    header, *rows = lines("id x city", X, CITY)
    _, back = returned(tmp_path, "a.csv", "\n".join([header + end[0], *(row + end[1] for row in rows)]))
    assert back.splitlines() == [header, *rows]


def test_comment_lines_are_skipped_and_a_header_may_begin_with_their_mark(tmp_path: Path) -> None:
    header, *rows = lines("#id x city", X, CITY)
    text = "\n".join(["# made by a machine", "#", header, *rows[:9], "# a break", *rows[9:]])
    _, back = returned(tmp_path, "a.csv", text)
    assert back.splitlines() == [header, *rows]


def test_an_index_without_a_header_is_an_id_unless_it_counts_rows(tmp_path: Path) -> None:
    """`DataFrame.to_csv` writes the index of pandas in front, without a header; so does R, without its delimiter."""
    for head in (",x,city", "x,city"):
        told, back = returned(tmp_path, "a.csv", "\n".join([head, *lines("", X, CITY)[1:]]))
        assert "rows are identified by index" in told
        assert back.splitlines() == ["index,x,city", *lines("", X, CITY)[1:]]
    told, back = returned(tmp_path, "a.csv", "\n".join([",x", *(f"{row},{x}" for row, x in enumerate(X))]))
    assert "index, not modelled but written back: index" in told
    assert list(columns_of(tmp_path)) == ["x"]
    assert set(back.splitlines()[1:]) == {f"{row},{x}" for row, x in enumerate(X)}


def test_ids_have_usual_headers(tmp_path: Path) -> None:
    rows = lines("", X, CITY)[1:]
    for header in ("participant_id", "Subject_ID", "sample", "barcode"):
        told, back = returned(tmp_path, "a.csv", "\n".join([f"{header},x,city", *rows]))
        assert f"rows are identified by {header}" in told
        assert back.splitlines() == [f"{header},x,city", *rows]
    returned(tmp_path, "a.csv", "\n".join(["id,x,sample", *rows]))  # not a different value per row
    assert columns_of(tmp_path)["sample"]["values"] == ["Bern", "Genf", "Zürich"]


@pytest.mark.parametrize(
    ("one", "other"), [("{:04}", "{:04}.png"), ("{}", "{}.0"), ("p{}", "p{} ")], ids=["suffix", "float", "blank"]
)
def test_ids_match_in_another_form(tmp_path: Path, one: str, other: str) -> None:
    order = np.random.default_rng(1).permutation(ROWS)
    (tmp_path / "a.csv").write_text("\n".join(["id,x", *(f"{one.format(row)},{X[row]}" for row in range(ROWS))]))
    (tmp_path / "b.csv").write_text("\n".join(["sample_id,y", *(f"{other.format(row)},{X[row] + 1}" for row in order)]))
    told = "\n".join(import_data([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "data", Roles()))
    assert "b.csv: 60 ids matched in another form: '" in told
    assert "60 of 60" in told
    train = Dataset.load(tmp_path / "data/train")
    np.testing.assert_allclose(train.data["a"], train.data["b"], atol=1e-5)  # y = x + 1, standardised


def test_repeated_ids_are_visits_or_the_first_counts(tmp_path: Path) -> None:
    rows = [f"{IDS[row - row % 2 * (row < 20)]},{x}" for row, x in enumerate(X)]  # ten patients came twice
    text = "\n".join(["id,x", *rows])
    with pytest.raises(UserError, match="keep all rows with --repeated visits, or the first with --repeated first"):
        returned(tmp_path, "a.csv", text)
    told, back = returned(tmp_path, "a.csv", text, Roles(repeated="visits"))
    assert "subjects (id): 50" in told
    assert back.splitlines()[1:] == sorted(rows)
    told, back = returned(tmp_path, "a.csv", text, Roles(repeated="first"))
    assert "rows with the id of an earlier row, left out: 10" in told
    assert back.splitlines()[1:] == [*rows[:20:2], *rows[20:]]


def test_txt_files_are_tables_delimited_by_tabs_or_as_r_writes(tmp_path: Path) -> None:
    """Rows come back with their delimiter; texts with blanks do not make the blank a delimiter."""
    tabs = ["id\tage\tname of ward", *(f"p{n}\t{20 + n}\tward {'ab'[n % 2]}" for n in range(60))]
    blanks = ['"age" "sex"', *(f'"{n}" {20 + n} "{"mf"[n % 2]}"' for n in range(60))]
    for name, texts in (("tabs.txt", tabs), ("blanks.txt", blanks)):
        (tmp_path / name).write_text("\n".join(texts) + "\n")
        import_data([tmp_path / name], tmp_path / "data", Roles())
        dataset = Dataset.load(tmp_path / "data/test")
        assert [len(m.columns) for m in dataset.modalities] == [2]
        export(tmp_path / "data/test", tmp_path / f"back {name}")
        _, *rows = (tmp_path / f"back {name}" / name).read_text().splitlines()
        assert {row.replace('"', "") for row in rows} <= {line.replace('"', "") for line in texts}


def test_a_table_of_free_text_alone_is_told_and_a_spreadsheet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,x\n" + "".join(f"p{n},{n / 7}\n" for n in range(60)))
    (tmp_path / "notes.csv").write_text("id,note\n" + "".join(f"p{n},a long note on number {n}\n" for n in range(60)))
    told = import_data([tmp_path / "a.csv", tmp_path / "notes.csv"], tmp_path / "data", Roles())
    assert any(
        line.startswith("notes.csv: constant or free text, left out") and line.endswith(": note") for line in told
    )
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(UserError, match=r"a.xlsx: a spreadsheet found, expected a .csv.*; save the sheet as CSV"):
        import_data([tmp_path / "a.xlsx"], tmp_path / "other", Roles())
