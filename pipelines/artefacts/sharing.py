"""How the ranks of a command share the blocks of rows of a project."""

from collections.abc import Iterable
from pathlib import Path

from postprior.pipelines import ranks
from postprior.pipelines.artefacts.code import custom_code, fingerprint
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.blocks import ALONE, Sharing
from postprior.pipelines.settings.adaptation import adaptation
from postprior.pipelines.settings.params import ADAPTED, Params
from postprior.pipelines.storage import folder_hash


def sharing_of(project: Project, params: Params, module: str, read: Iterable[Path] = ()) -> Sharing:
    """Meet the other ranks, and return how they share blocks of rows.

    Blocks of an earlier job are used again if it had the same settings, code of the module, such as "stages.encode",
    and folders that are `read`.
    """
    job = ranks.meet()
    if job.size == 1:
        return ALONE
    adapted = [adaptation(params).build] if params.vae.model == ADAPTED else []
    code = fingerprint(module, custom_code([*params.vae.networks.values(), *adapted]))
    hashes = [folder_hash(folder) for folder in read if folder.exists()]
    return Sharing(job, project.blocks, (params.model_dump_json(), code, *hashes))
