"""Score one density of a project with all scores, and write its report."""

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.baselines import Baselines
from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.evaluators import load_evaluators, save_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import SPLITS
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.imputation import ImputationBenchmark
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.generation.writing import write_samples
from postprior.pipelines.metrics.features.fitting import evaluator_scores, fit_evaluators
from postprior.pipelines.progress import progress
from postprior.pipelines.report.writing import write_report
from postprior.pipelines.scoring.baselines import score_baselines
from postprior.pipelines.scoring.evaluation import evaluate
from postprior.pipelines.scoring.imputation import baseline_imputer_scores, imputation_scores
from postprior.pipelines.scoring.latent import latent_scores
from postprior.pipelines.scoring.privacy import privacy
from postprior.pipelines.scoring.utility import REAL, utility, utility_of_real
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import MANIFEST, folder_hash, read_json, write_json


def score(name: str, params: Params, project: Project) -> None:
    """Score density `name` of a trained project and write results/report.html, without the augmentation test."""
    params = params.model_copy(
        update={"densities": (name,), "augment": params.augment.model_copy(update={"sizes": ()})}
    )
    folders, scores = project.artefacts, project.results.scores
    train, test = project.train_and_test()
    splits = project.splits()
    codes = {split: load_codes(folders.codes / split) for split in SPLITS}
    model, trained = load_autoencoder(folders.autoencoder)
    generator = Generator.load(folders.densities / name)
    with progress("report", 11) as step:
        evaluators = fit_evaluators(train, params, project.root)
        save_evaluators(folders.evaluators, evaluators, train.hash)
        evaluators = load_evaluators(folders.evaluators)  # with the bytes that the stages read
        write_json(scores("metrics", "evaluators"), evaluator_scores(evaluators, test, params.seed))
        step("evaluators")
        write_json(scores("metrics", "latent"), latent_scores(codes, test, params.evaluate))
        step("diagnostics")
        judges = folder_hash(folders.evaluators)
        hashes = {"autoencoder": trained.hash, "judges": judges, "data": test.hash}
        score_baselines(model, evaluators, codes["test"], train, test, hashes, params, folders.refiner).save(project)
        step("baselines")
        labelling = None if train.labels is None else lambda: evaluators
        write_samples(generator, SampleRequest.from_settings(params.generate), folders.synthetic / name, labelling)
        synthetic = project.synthetic(name)
        step("samples")
        baselines, fitted = Baselines.load(folders.baselines), read_json(folders.densities / name / MANIFEST)
        found = evaluate(name, generator, synthetic, test, codes, baselines, evaluators, fitted, params)
        found.save(project, name)
        step("scores")
        utility_of_real(train, test, params).save(project, REAL)
        step("utility of real rows")
        utility(name, lambda: generator, lambda: evaluators, folders.real_utility, train, test, params).save(
            project, name
        )
        step("utility")
        privacy(name, generator, synthetic, splits, codes, params).save(project, name)
        step("privacy")
        benchmark = ImputationBenchmark.from_splits(splits, params)
        baseline_imputer_scores(benchmark, params.seed).save(project)
        step("baseline imputers")
        imputations = imputation_scores(name, generator, evaluators, benchmark, project, params.seed)
        write_json(scores("imputation", name), imputations)
        step("imputation")
        write_report(params, project.root)
        step("report")
