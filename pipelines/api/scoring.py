"""Score the densities of a project: all scores and the report of one, or the samples of several for a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from postprior.pipelines.api.beside import beside, cores
from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.baselines import Baselines
from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.evaluators import load_evaluators, save_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.imputation import ImputationBenchmark
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.generation.row_factors import RowFactors
from postprior.pipelines.generation.writing import write_samples
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.metrics.features.fitting import evaluator_scores, fit_evaluators
from postprior.pipelines.progress import progress
from postprior.pipelines.report.leaderboard import leaderboard
from postprior.pipelines.report.results import read_results
from postprior.pipelines.report.writing import write_report
from postprior.pipelines.scoring.baselines import score_baselines
from postprior.pipelines.scoring.evaluation import evaluate
from postprior.pipelines.scoring.imputation import baseline_imputer_scores, imputation_scores
from postprior.pipelines.scoring.latent import latent_scores
from postprior.pipelines.scoring.privacy import privacy
from postprior.pipelines.scoring.utility import REAL, utility, utility_of_real
from postprior.pipelines.settings.params import ADAPTED, Params
from postprior.pipelines.storage import MANIFEST, folder_hash, read_json, write_json

Step = Callable[[str], None]


def score(name: str, params: Params, project: Project) -> None:
    """Score density `name` of a trained project and write results/report.html, without the augmentation test."""
    params = params.model_copy(
        update={"densities": (name,), "augment": params.augment.model_copy(update={"sizes": ()})}
    )
    folders, scores = project.artefacts, project.results.scores
    with progress("report", 10) as step:
        judged = JudgedProject.of(params, project, step)
        train, test, splits = judged.train, judged.test, project.splits()
        benchmark = ImputationBenchmark.from_splits(splits, params)
        baseline_imputer_scores(benchmark, params.seed).save(project)
        step("baseline imputers")

        def score_imputation() -> None:
            generator = Generator.load(folders.densities / name)
            found = imputation_scores(name, generator, judged.evaluators, benchmark, project, params.seed)
            write_json(scores("imputation", name), found)

        def score_samples() -> None:
            judged.score_baselines()
            step("baselines")
            write_json(scores("metrics", "latent"), latent_scores(judged.codes, test, params.evaluate))
            step("diagnostics")
            generator, synthetic = judged.evaluate(name)
            step("scores")
            utility_of_real(train, test, params).save(project, REAL)
            step("utility of real rows")
            found = utility(
                name, lambda: generator, lambda: judged.evaluators, folders.real_utility, train, test, params
            )
            found.save(project, name)
            step("utility")
            privacy(name, generator, synthetic, splits, judged.codes, params).save(project, name)
            step("privacy")

        in_memory = params.vae.model == ADAPTED and "build" not in params.vae.chosen  # of this process alone
        if cores() > 1 and not in_memory:
            with beside(project.root, "evaluate-imputation", name):
                score_samples()
        else:
            score_samples()
            score_imputation()
        step("imputation")
        write_report(params, project.root)
        step("report")


def compared(names: Sequence[str], params: Params, project: Project) -> tuple[list[str], list[list[Any]]]:
    """Score samples of fitted densities of a project; return header and lines of the leaderboard (`leaderboard`)."""
    params = params.model_copy(update={"densities": tuple(names)})
    with progress("scores", 2 + len(names)) as step:
        judged = JudgedProject.of(params, project, step)
        judged.score_baselines()
        step("baselines")
        for name in names:
            judged.evaluate(name)
            step(name)
    header, lines = leaderboard(read_results(params, project.root))
    return header, list(lines)


@dataclass(frozen=True)
class JudgedProject:
    """A trained project with evaluators, and the rows that scores need."""

    params: Params
    project: Project
    train: Dataset
    test: Dataset
    evaluators: Evaluators

    @classmethod
    def of(cls, params: Params, project: Project, step: Step) -> JudgedProject:
        """Fit the evaluators of a trained project, in one step."""
        folders, scores = project.artefacts, project.results.scores
        train, test = project.train_and_test()
        save_evaluators(folders.evaluators, fit_evaluators(train, params, project.root), train.hash)
        evaluators = load_evaluators(folders.evaluators)  # with the bytes that the stages read
        write_json(scores("metrics", "evaluators"), evaluator_scores(evaluators, test, params.seed))
        step("evaluators")
        return cls(params, project, train, test, evaluators)

    def score_baselines(self) -> None:
        """Score the baselines and the autoencoder, and save the baselines."""
        folders = self.project.artefacts
        model, trained = load_autoencoder(folders.autoencoder)
        hashes = {"autoencoder": trained.hash, "judges": folder_hash(folders.evaluators), "data": self.test.hash}
        codes, factors = self.codes["test"], RowFactors.from_description(trained.manifest)
        baselines = score_baselines(
            model, self.evaluators, codes, self.train, self.test, hashes, self.params, folders.refiner, factors
        )
        baselines.save(self.project)

    @cached_property
    def codes(self) -> dict[str, Any]:
        """The codes of every split."""
        return {split: load_codes(self.project.artefacts.codes / split) for split in SPLITS}

    def evaluate(self, name: str) -> tuple[Generator, Dataset]:
        """Draw the samples of a density and score them; return its generator and the samples."""
        folders = self.project.artefacts
        generator = Generator.load(folders.densities / name)
        labelling = None if self.train.labels is None else lambda: self.evaluators
        request = SampleRequest.from_settings(self.params.generate)
        write_samples(generator, request, folders.synthetic / name, labelling)
        synthetic = self.project.synthetic(name)
        baselines, fitted = Baselines.load(folders.baselines), read_json(folders.densities / name / MANIFEST)
        found = evaluate(
            name, generator, synthetic, self.test, self.codes, baselines, self.evaluators, fitted, self.params
        )
        found.save(self.project, name)
        return generator, synthetic
