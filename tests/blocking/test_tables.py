"""Tables from files and mappings."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

import vecdb
from vecdb.blocking import read_pairs, read_table, table_of


def test_a_table_is_read_from_csv_tsv_and_json_lines_alike(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id,name,price\nx,"red, large",3\ny,blue,\n', encoding="utf-8-sig")
    (tmp_path / "t.tsv").write_text("id\tname\tprice\nx\tred, large\t3\ny\tblue\t\n")
    lines = '{"id": "x", "name": "red, large", "price": 3}\n\n{"id": "y", "name": " blue ", "price": null}\n'
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    tables = [read_table(tmp_path / name) for name in ("t.csv", "t.tsv", "t.jsonl.gz")]
    assert tables[0] == tables[1] == tables[2]
    assert tables[0].ids == ("x", "y")
    assert tables[0].texts() == ["name: red, large price: 3", "name: blue"]
    assert tables[0].texts(["price", "absent"]) == ["price: 3", ""]
    assert tables[0].taken([1]).column("name") == ["blue"]


def test_ids_are_a_column_or_numbers() -> None:
    rows = [{"sku": "p", "name": "one", "tags": ["a", "b"]}, {"sku": 7, "name": float("nan")}]
    assert table_of(rows).ids == ("0", "1")
    table = table_of(rows, id_field="sku")
    assert table.ids == ("p", "7")
    assert table.column("tags") == ["a, b", ""]
    assert table.column("name") == ["one", ""]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([], {}, "no records"),
        ([{"id": "1", "n": "x"}, {"id": "1", "n": "y"}], {}, "twice"),
        ([{"id": "1", "n": "x"}, {"n": "y"}], {}, "record 1"),
        ([{"n": "x"}], {"id_field": "sku"}, "'sku'"),
        ([{"id": "x"}], {}, "no field beside"),
        (["text"], {}, "is a str"),
    ],
)
def test_rows_that_are_no_table_are_refused(rows: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(vecdb.InvalidInput, match=said):
        table_of(rows, **options)


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    for name, content, said in (
        ("t.csv", b"id,name\n1,x,y\n", "line 2"),
        ("t.csv", b'id,name\n1,"x\n', "no readable table"),
        ("t.csv", b"\xff\xfe\x00", "UTF-8"),
        ("t.jsonl", b'{"id": 1}\nno\n', "line 2"),
        ("t.jsonl", b"[1]\n", "holds a list"),
        ("t.xlsx", b"", "no kind"),
        ("t.csv.gz", b"id,name\n", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(vecdb.InvalidInput, match=said):
            read_table(tmp_path / name)
    with pytest.raises(vecdb.NotFound, match="no file"):
        read_table(tmp_path / "absent.csv")


def test_pairs_are_two_columns_of_ids_and_perhaps_labels(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("ltable_id,rtable_id,label\n1,2,1\n3,4,0\n5,6,true\n")
    assert read_pairs(path) == [("1", "2"), ("5", "6")]
    path.write_text("x,y\n1,2\n")
    assert read_pairs(path) == [("1", "2")]
    path.write_text("x,y,label\n1,2,maybe\n")
    with pytest.raises(vecdb.InvalidInput, match="maybe"):
        read_pairs(path)
    path.write_text("x,label\n1,1\n")
    with pytest.raises(vecdb.InvalidInput, match="two columns"):
        read_pairs(path)
