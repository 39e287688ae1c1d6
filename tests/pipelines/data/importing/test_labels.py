"""Labels that some rows lack, that several files have, that few rows have, or that are a quantity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.rows import import_rows
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError

N = 60
ROLES = Roles(id="id", label="dx")


def table(dx: object, rows: object = None, seed: int = 0) -> pd.DataFrame:
    """Ids, a number and labels."""
    ids = np.arange(N) if rows is None else np.asarray(rows)
    return pd.DataFrame({"id": ids, f"x{seed}": np.random.default_rng(seed).normal(size=N).round(3)[ids], "dx": dx})


def labels_of(folder: Path) -> dict[int, str | None]:
    """The name of the label of each row by id, of all splits."""
    found: dict[int, str | None] = {}
    for split in SPLITS:
        data = Dataset.load(folder / split)
        assert data.labels is not None
        assert data.ids is not None
        assert data.label_names is not None
        found |= {int(i): None if k < 0 else data.label_names[k] for i, k in zip(data.ids, data.labels, strict=True)}
    return found


def written_back(folder: Path, file: str, out: Path) -> list[str]:
    """The lines of a file as export writes them, sorted."""
    lines: set[str] = set()
    for split in SPLITS:
        export(folder / split, out / split)
        lines |= set((out / split / file).read_text().splitlines())
    return sorted(lines)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_rows_without_a_label_are_kept_and_come_back(suffix: str, tmp_path: Path) -> None:
    dx = np.where(np.arange(N) % 3 == 0, "", np.where(np.arange(N) % 2, "ill", "well"))
    frame, path, roles = table(dx).replace("", None), tmp_path / f"a.{suffix}", ROLES
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        coded = {"": -1, "ill": 0, "well": 1}
        codes, names = np.array([coded[text] for text in dx], np.int8), np.array(["ill", "well"])
        np.savez(path, x=frame["x0"].to_numpy()[:, None], ids=np.arange(N), labels=codes, label_names=names)
        roles = Roles()
    lines = import_data([path], tmp_path / "data", roles)
    assert any(line.startswith("without a label: 20 of 60 rows") for line in lines)
    assert labels_of(tmp_path / "data") == {i: text or None for i, text in enumerate(dx.tolist())}
    assert [int((~Dataset.load(tmp_path / "data" / split).labelled).sum()) for split in SPLITS] == [14, 2, 4]
    for split in SPLITS:
        export(tmp_path / "data" / split, tmp_path / split)
        import_rows([tmp_path / split / path.name], tmp_path / f"{split} again", roles, tmp_path / "data")
        first, again = (Dataset.load(tmp_path / place).labels for place in (f"data/{split}", f"{split} again"))
        np.testing.assert_array_equal(first, again)
    if suffix == "csv":
        assert written_back(tmp_path / "data", path.name, tmp_path / "out") == sorted(path.read_text().splitlines())


def test_a_label_of_one_file_is_that_of_the_row_and_two_files_must_agree(tmp_path: Path) -> None:
    dx = np.where(np.arange(N) % 2, "ill", "well").astype(object)
    first, second = table(dx).iloc[:40], table(dx, seed=1).iloc[20:]
    first.loc[first.index % 4 == 0, "dx"] = None
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for frame, path in zip((first, second), paths, strict=True):
        frame.to_csv(path, index=False)
    import_data(paths, tmp_path / "data", ROLES)
    expected = {i: None if i < 20 and i % 4 == 0 else dx[i] for i in range(N)}
    assert labels_of(tmp_path / "data") == expected
    second.loc[[21, 22, 23, 25], "dx"] = "other"
    second.to_csv(paths[1], index=False)
    sentence = (
        r"dx: 4 samples have different values in a.csv and b.csv found: 21 has 'ill' and 'other', 22 has .*, 23 has"
    )
    with pytest.raises(UserError, match=sentence):
        import_data(paths, tmp_path / "new", ROLES)
    assert not (tmp_path / "new").exists()
    first.drop(columns="dx").to_csv(paths[0], index=False)
    import_data(paths, tmp_path / "one", ROLES)
    assert labels_of(tmp_path / "one") == {i: None if i < 20 or i in (21, 22, 23, 25) else dx[i] for i in range(N)}


A, B = ["a"] * 30, ["b"] * 20
RARE = {
    "merged if five rows have them": ([*A, *B, *"cccc", *"eeeffz"], None, {"a": 30, "b": 20, "other": 10}),
    "not merged into a rare class": ([*A, *B, *"fffff", *"fff", "g", "h"], None, {"a": 30, "b": 20, "f": 8, None: 2}),
    "unlabelled": ([*A, *B, *"cccc", *"eeeffz"], "unlabelled", {"a": 30, "b": 20, None: 10}),
    "kept": ([*A, *B, *"cccccccc", "g", "h"], "keep", {"a": 30, "b": 20, "c": 8, "g": 1, "h": 1}),
    "numbers": ([0] * 30 + [1] * 28 + [7] * 2, None, {"0": 30, "1": 28, None: 2}),
    "whole numbers of pandas": ([0.0] * 30 + [1.0] * 28 + [np.nan] * 2, None, {"0": 30, "1": 28, None: 2}),
}


@pytest.mark.parametrize("case", RARE)
def test_rare_classes_are_treated_once_for_all_rows(case: str, tmp_path: Path) -> None:
    dx, option, expected = RARE[case]
    path, roles = tmp_path / "a.csv", Roles(id="id", label="dx", rare_labels=option)
    table(dx).to_csv(path, index=False)
    treated = []
    for seed in range(2):
        lines = import_data([path], tmp_path / str(seed), roles, seed=seed)
        treated.append(labels_of(tmp_path / str(seed)))
    assert treated[0] == treated[1]
    assert pd.Series(list(treated[0].values()), dtype=object).value_counts(dropna=False).to_dict() == expected
    if case == "whole numbers of pandas":
        return
    told = [line for line in lines if line.startswith("label dx")]
    assert len(told) == (case != "kept")
    assert all("--rare-labels keep" in line for line in told)
    assert written_back(tmp_path / "0", "a.csv", tmp_path / "out") == sorted(path.read_text().splitlines())
    new = tmp_path / "new.csv"
    table([*dx[:-1], 8 if case == "numbers" else "new"]).to_csv(new, index=False)
    if case == "kept":
        with pytest.raises(UserError, match="label dx: 'new' found, which no training row has"):
            import_rows([new], tmp_path / "rows", ROLES, tmp_path / "0")
    else:
        import_rows([new], tmp_path / "rows", ROLES, tmp_path / "0")


REFUSED = {
    "ages": (
        np.arange(N) % 41,
        "41 different numbers found, most of them in fewer than 5 rows, .* --target dx, .* keep",
    ),
    "one common class": (
        [*"a" * 57, "b", "c", "d"],
        "1 of 4 classes found in 5 rows or more, expected two; add --rare-labels keep",
    ),
    "few labels": ([*"aaaaabbbbb", *[None] * 50], "train: 7 rows with a label found, expected 10 or more"),
    "no labels": ([None] * N, "label dx: no label found, expected two classes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_no_density_could_use_are_refused(case: str, tmp_path: Path) -> None:
    dx, sentence = REFUSED[case]
    table(dx).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match=sentence):
        import_data([tmp_path / "a.csv"], tmp_path / "data", ROLES)


@pytest.mark.parametrize("seed", range(5))
def test_few_rows_of_which_two_have_a_rare_label_are_enough_to_train(seed: int, tmp_path: Path) -> None:
    table(["flu"] * 12 + ["cold"] * 6 + ["gout"] * 2, range(20), seed).to_csv(tmp_path / "a.csv", index=False)
    import_data([tmp_path / "a.csv"], tmp_path / "data", Roles(id="id", label="dx"), seed=seed)
    labels = {split: Dataset.load(tmp_path / "data" / split).labels for split in SPLITS}
    assert (labels["train"] >= 0).sum() >= 10
    assert len(labels["validation"]) >= 2
    assert len(labels["test"]) >= 3
