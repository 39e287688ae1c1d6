"""The layout of a project: the paths of Project are those in dvc.yaml."""

from pathlib import Path

import pytest
import yaml
from support.project import REPOSITORY

from postprior.pipelines.artefacts.project import ArtefactFolders, Project, check_origin
from postprior.pipelines.data.dataset import SPLITS
from postprior.pipelines.errors import UserError

NAME, SIZE = "${item.density}", "${item.size}"


def test_every_output_of_the_pipeline_is_a_path_of_project() -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    outs = [out if isinstance(out, str) else next(iter(out)) for stage in stages.values() for out in stage["outs"]]
    folders, files = Project(Path()).artefacts, Project(Path()).results
    of_density = ("densities", "synthetic", "evaluation", "utility", "privacy")
    expected = [
        *(getattr(folders, kind) / split for kind in ("data", "codes") for split in SPLITS),
        *(
            folders.code,
            folders.autoencoder,
            folders.refiner,
            folders.evaluators,
            folders.baselines,
            folders.real_utility,
            folders.baseline_imputers,
        ),
        *(getattr(folders, kind) / NAME for kind in of_density),
        folders.augmentation / SIZE,
        *(
            files.training,
            files.comparison,
            files.summary,
            files.summary_table,
            files.page,
            files.plots,
            files.datasheets,
        ),
        *(files.scores("metrics", of) for of in ("evaluators", "autoencoder", "latent")),
        *(files.scores("metrics", of) for of in ("real", "reconstruction", "normal", "samplers")),
        *(files.scores(part, NAME) for part in ("metrics", "utility", "privacy", "imputation")),
        *(
            files.scores("utility", "real"),
            files.scores("imputation", "baselines"),
            files.scores("augmentation", SIZE),
        ),
    ]
    assert sorted(outs) == sorted(map(str, expected))


def test_the_artefacts_around_a_density_are_those_of_its_project(tmp_path: Path) -> None:
    folders = Project(tmp_path).artefacts
    assert ArtefactFolders.around(folders.densities / "gmm").autoencoder == folders.autoencoder


def test_artefacts_of_another_origin_are_refused() -> None:
    check_origin(Path("there"), "density", "a", "a", "generate")
    sentence = "there: found density aaaaaaaaaaaa, expected None; run postprior generate again"
    with pytest.raises(UserError, match=sentence):
        check_origin(Path("there"), "density", "a" * 64, None, "generate")
