"""The options of the model `adapted`, which is trained already."""

import json

from pydantic import ValidationError

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.options import describe_error
from postprior.pipelines.settings.params import ADAPTED, Adaptation, Params


def adaptation(params: Params) -> Adaptation:
    """Return the options of the model `adapted`; a UserError if one is unknown, missing or of another type."""
    options = params.vae.options[ADAPTED]
    try:
        return Adaptation.model_validate_json(json.dumps(options))
    except ValidationError as error:
        raise UserError(describe_error(error, Adaptation, options, prefix=f"vae.options.{ADAPTED}")) from None
