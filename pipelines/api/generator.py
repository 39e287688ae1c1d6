"""The generator on objects in memory: sample, impute, detect, report and save."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from postprior.pipelines.api.detect import as_table
from postprior.pipelines.api.objects import given_rows, in_python, python_words
from postprior.pipelines.api.repository import Repository
from postprior.pipelines.api.synthetic import SyntheticDataset
from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats import samples_of
from postprior.pipelines.data.formats.memory import filling, frames
from postprior.pipelines.data.manifest import SUMMARY, labelled_in
from postprior.pipelines.detection.detector import Detector
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation import generator as drawing
from postprior.pipelines.generation.request import Labels, SampleRequest
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.progress import hidden
from postprior.pipelines.publishing import check_file, publish, write_bytes
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.params import Params
from postprior.pipelines.settings.round_trip import TEMPLATES
from postprior.pipelines.storage import MANIFEST
from postprior.pipelines.texts import enumerated
from postprior.stage1_vae.adapted import Adapted
from postprior.stage1_vae.randomness import generator_for

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = TEMPLATES[0]


class Generator(drawing.Generator):
    """Draw, impute and score rows in memory; the project that the generator was made in comes with it.

    Attributes:
        root: The folder of the project; None if the density lies outside of one.
        name: The name of the density in the project.
        home: The temporary folder of the project, which lives as long as this object; None if the project is kept.

    Example:
        generator = Generator.load("project")
        generator.sample(1000, seed=0).to_pandas()
    """

    root: Path | None = None
    name: str = ""
    home: TemporaryDirectory[str] | None = None
    _detector: Detector | None = None

    @classmethod
    def load(cls, folder: Path | str, autoencoder: Path | str | None = None, density: str | None = None) -> Self:
        """Load a generator from the folder of a project, or from that of a fitted density and its autoencoder.

        Args:
            folder: A project, as `save` or `postprior init` made it, or a density such as artefacts/densities/gmm.
            autoencoder: The folder of the autoencoder of a density; None: that of the project it lies in.
            density: Of a project, the name of the density; None: the first one in `densities` of params.yaml.

        Raises:
            UserError: A folder is missing or damaged, or the density was fitted to codes of another autoencoder.
        """
        folder = Path(folder)
        is_project = (folder / SETTINGS).is_file() and not (folder / MANIFEST).exists()
        if is_project:
            root, name = folder, density or load_params(folder / SETTINGS).densities[0]
            folder = Project(root).artefacts.densities / name
        elif density is not None:
            raise UserError(f"{folder}: found no {SETTINGS}, expected a project to choose density {density} from")
        else:
            parents = folder.resolve().parents
            root, name = parents[min(2, len(parents) - 1)], folder.resolve().name
        generator = super().load(folder, autoencoder)
        if (root / SETTINGS).is_file() and Project(root).artefacts.densities.resolve() == folder.resolve().parent:
            generator.root, generator.name = root, name
        return generator

    def sample(
        self,
        n: int | None = None,
        seed: int = 0,
        labels: Labels | None = None,
        values: str = "auto",
        temperature: float = 1.0,
        truncation: float = 0.0,
        complete: bool = False,
        label: Any = None,
    ) -> SyntheticDataset:
        """Draw a synthetic dataset in memory; see `SampleRequest` for the other arguments.

        The bytes are those of `postprior generate` with the same seed.

        Args:
            n: The number of rows N.
            label: The label of all rows, as the data have it; instead of `labels`.

        Raises:
            UserError: No rows are requested, a label is unknown, labels are requested from a density without labels,
                or truncation is requested from a density without an exact score.
        """
        if label is not None:
            if labels is not None or n is None:
                raise UserError("label: found without n or together with labels, expected the number n of rows alone")
            labels = {str(label): n}
        request = SampleRequest(n, seed, labels, values, temperature, truncation, complete)
        return SyntheticDataset.of(self.draw(request))

    def blocks(self, request: SampleRequest, numbers: Iterable[int] | None = None) -> Iterator[drawing.Block]:
        """Draw blocks of rows; if the density has no labels, the label classifiers of the project label them."""
        evaluators = self._evaluators
        for start, block in super().blocks(request, numbers):
            if evaluators is not None:
                block = replace(block, labels=evaluators.label(block), label_names=evaluators.label_names)
            yield start, block

    def describe(self, request: SampleRequest) -> dict[str, Any]:
        """Return the provenance of a dataset drawn with this request."""
        return super().describe(request) | ({} if self._evaluators is None else {"labels_from": "judges"})

    @cached_property
    def _evaluators(self) -> Evaluators | None:
        """The label classifiers of the project, if the data have labels and the density has none."""
        if self.root is None or self.label_names is not None or not labelled_in(self._project.artefacts.data / "train"):
            return None
        folder = self._project.artefacts.evaluators
        evaluators = load_evaluators(folder) if (folder / MANIFEST).exists() else None
        return None if evaluators is None or evaluators.label_names is None else evaluators

    def impute(
        self,
        data: Any,
        draws: int = 1,
        seed: int = 0,
        values: str | None = None,
        held_out: Dataset | None = None,
        ids: Any = None,
        given: Sequence[str] | None = None,
    ) -> Any:
        """Fill the missing values of rows, once or `draws` times (multiple imputation).

        Observed values are untouched, bit for bit. Of data frames, a row that one lacks and another has is added to it;
        columns that the model does not know stay as they are.

        Args:
            data: Objects as `synthesise` takes them, with the columns and names of the training data; some may be
                absent. Or a `Dataset`.
            draws: The number of imputations; their variation reflects the uncertainty of an imputed value.
            seed: The seed of the draws.
            values: As in `SampleRequest`; None: `mean`, the best guess, for one draw, and `auto` for several.
            held_out: Rows on which several draws are calibrated; None: the validation rows of the project.
            ids: Ids of the rows of arrays, as in `synthesise`.
            given: Of a `Dataset`, the modalities that are kept; all others are generated from them. None: those that
                rows have.

        Returns:
            Objects of the same types; a list of them if `draws` is above 1. For a `Dataset`, always a list.

        Raises:
            UserError: `draws` is below 1, the columns, categories or shapes are not those of the training data, or
                `given` names an unknown modality.
        """
        if isinstance(data, Dataset):
            data = data if given is None else _with_only(data, given)
            imputed = super().impute(data, draws, seed, values or "mean", held_out)
            return [SyntheticDataset.of(each) for each in imputed]
        if given is not None:
            raise UserError("given: found data that are no Dataset, expected one; leave other modalities out of data")
        with in_python():
            rows = given_rows(data, self._trained, ids)
            train = self._project.dataset("train") if draws > 1 else None
            if held_out is None and draws > 1:
                held_out = self._project.dataset("validation")
            how = values or ("mean" if draws == 1 else "auto")
            imputed = super().impute(rows.dataset, draws, seed, how, held_out if draws > 1 else None, train)
            filled = [filling.filled(rows.objects, rows.contents, each) for each in imputed]
        results = filled if isinstance(data, dict) else [next(iter(each.values())) for each in filled]
        return results if draws > 1 else results[0]

    def detect(
        self, data: Any, alpha: float = 0.05, calibration: Dataset | None = None, ids: Any = None
    ) -> pd.DataFrame:
        """Score how unusual rows are, compared with the training rows, which must be normal; see `Detector`.

        Args:
            data: Objects as `synthesise` takes them, or a `Dataset`; rows may lack modalities and values.
            alpha: Rows with a p-value of at most alpha are flagged.
            calibration: Normal rows that were not used in training; None: the test rows of the project.
            ids: Ids of the rows of arrays, as in `synthesise`.

        Returns:
            A row for each id: score (larger is more unusual), p_value, flagged, the statistics by modality, the
            contribution of each modality to the score, and the feature with the largest surprisal, in nats.

        Raises:
            UserError: the generator belongs to no project, or the columns are not those of the training data.
        """
        frames.pandas("detect")
        if self._detector is None or calibration is not None:
            held_out = self._project.dataset("test") if calibration is None else calibration
            detector = Detector.fit(self, self._trained, held_out, self._params.seed)
            self._detector = detector if calibration is None else self._detector
        else:
            detector = self._detector
        with in_python():
            rows = data if isinstance(data, Dataset) else given_rows(data, self._trained, ids).dataset
            detection = detector.score(rows)
        table = as_table(detector.normal.modalities, rows, detection, detection.flagged(alpha))
        frame = frames.frame_of(table, None).iloc[:, 1:]
        return frame.set_axis(samples_of(rows).ids.to_pandas(), axis=0).rename_axis(None)

    def reconstruct(self, data: Dataset) -> SyntheticDataset:
        """Encode and decode rows: the means of the decoders at the mean of the posterior of each row.

        No density is used. Modalities that a row lacks are generated too.

        Args:
            data: N rows of some or all modalities.

        Returns:
            The rows with decoded values, complete.

        Raises:
            UserError: the modalities are not those of the model.
        """
        codes = self.represent(data)
        labels = None if (numbers := self.labels_of(data)) is None else torch.from_numpy(numbers)
        values = self.decode_all(codes.mean.nan_to_num(), "mean", generator_for("cpu", 0), labels)
        rows = Dataset(self.modalities, values, label_names=data.label_names, conversion=self.conversion)
        return SyntheticDataset.of(replace(rows, labels=data.labels, groups=data.groups, ids=data.ids))

    def with_density(self, name: str, **options: Any) -> Self:
        """Fit another density to the codes of the same autoencoder, and return its generator.

        The project keeps all densities: `scores` compares them, `save` saves them, and `load` takes their names. To fit
        an entry again replaces its density in the project; this generator keeps the one that it has.

        Args:
            name: An entry of `density` in params.yaml, such as "flow"; "normal" is the prior of the autoencoder itself.
            options: Options of the density that differ from those in params.yaml, such as `steps=500`.

        Raises:
            UserError: the generator belongs to no project, there is no such density, or it has no such option.

        Example:
            generator.with_density("flow", steps=300).sample(1000)
        """
        from postprior.pipelines.api.fitting import add_density

        with in_python():
            add_density(self._project, name, options)
            generator = type(self).load(self._project.root, density=name)
        generator.home = self.home
        return generator

    def scores(self, progress: bool = True) -> pd.DataFrame:
        """Score samples of all fitted densities of the project against held-out rows: fidelity and coherence.

        The scores are those of `report`, without utility, privacy and imputation. They are written to the project.

        Args:
            progress: Whether the progress is shown on stderr.

        Returns:
            The leaderboard, as results/comparison.csv: a row for real rows, reconstructions, samples of the prior
            (`normal`) and of each density; for each score a column, and its 95 % interval in `_low` and `_high`.

        Raises:
            UserError: the generator belongs to no project.
        """
        from postprior.pipelines.api.scoring import compared

        pd, folders = frames.pandas("scores"), self._project.artefacts.densities
        names = [name for name in self._params.densities if (folders / name / MANIFEST).exists()]
        with in_python(), nullcontext() if progress else hidden():
            header, lines = compared(names, self._params, self._project)
        return pd.DataFrame(lines, columns=header).set_index("row")

    def report(self, path: Path | str, force: bool = False, progress: bool = True) -> Path:
        """Score synthetic rows against held-out rows and write the report, one HTML page, to `path`; return the path.

        The scores are those of the stages from `train-evaluators` to `compare`, without the augmentation test; they are
        written to the project as well. On two cores or more, a second process scores the imputation meanwhile.

        Args:
            path: The file of the page.
            force: Whether an existing file is replaced.
            progress: Whether the progress is shown on stderr.

        Raises:
            UserError: the generator belongs to no project, or the file exists.
        """
        from postprior.pipelines.api.scoring import score

        path = Path(path)
        check_file(path, force)
        with in_python(), nullcontext() if progress else hidden():
            score(self.name, self._params, self._project)
        write_bytes(path, self._project.results.page.read_bytes())
        return path

    def save(self, folder: Path | str) -> Path:
        """Save the project: data, settings, artefacts, and results if there are any; return its folder.

        `Generator.load` loads it, and the commands run in it: `postprior generate`, `dvc repro`. It has no git
        repository; the guide "Data in memory" says how to add one.

        Raises:
            UserError: the folder has files, the generator belongs to no project, or its autoencoder was adapted without
                an import path.
        """
        if isinstance(self.model, Adapted) and not self.model.own_code:
            expected = "expected an import path to build it again: adapt(…, build='package.module:function')"
            raise UserError(f"generator: found an autoencoder that only this process has, {expected}")
        folder, root = Path(folder), self._project.root
        with publish(folder, inputs=[root]) as temporary:
            shutil.copytree(root, temporary, dirs_exist_ok=True)
        Repository(folder, None).set_up()
        return folder

    @property
    def summary(self) -> str:
        """How the data were read, column by column; empty if they were not imported."""
        path = self._project.root / str(self._params.data.options.get("path", "")) / SUMMARY
        return python_words(path.read_text(encoding="utf-8")) if path.is_file() else ""

    @property
    def _project(self) -> Project:
        if self.root is None:
            expected = "expected one in a project, which has the data; load it from the folder of its project"
            raise UserError(f"generator: found a density outside of a project, {expected}")
        return Project(self.root)

    @property
    def _params(self) -> Params:
        return load_params(self._project.root / SETTINGS)

    @property
    def _trained(self) -> Dataset:
        return self._project.dataset("train")

    def __repr__(self) -> str:
        parts = ", ".join(f"{m.title} ({m.kind} {' × '.join(map(str, m.shape))})" for m in self.modalities)
        labels = f"; labels {', '.join(self.label_names)}" if self.label_names else ""
        return f"Generator of {parts}{labels}; density {self.density.name}"


def _with_only(data: Dataset, names: Sequence[str]) -> Dataset:
    """Return rows that have no modalities but these, by name or title."""
    titles = [m.title for m in data.modalities]
    if unknown := set(names) - {*titles, *(m.name for m in data.modalities)}:
        raise UserError(f"given: found {enumerated(sorted(unknown))}, expected some of {', '.join(titles)}")
    kept = np.array([m.name in names or m.title in names for m in data.modalities])
    return replace(data, mask=data.observed & kept)
