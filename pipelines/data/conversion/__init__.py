"""Values as files have them, as models learn them, and back: learned on training rows, kept in the manifest.

The entry `conversion` of a dataset's manifest is

    {"modalities": {"clinical": {"source": "tables", "file": "clinical.csv", "columns": [{"name": "age", …}, …]},
                    "scan": {"source": "images", "folder": "scan", "axes": "HW", "dtype": "uint8", …}},
     "tables": {"clinical.csv": ["patient", "age", "sex", "diagnosis"]},      headers, in the order of the file
     "types": {"clinical.parquet": {"sex": "large_string", …}},               Arrow's, where a plainer one was read
     "dialects": {"labs.csv": {"delimiter": ";", "decimal": ","}},            of text files that have not the usual one
     "ids": {"name": "patient", "type": "string"}, "labels": …, "groups": …  each null where nothing is known
     "targets": [{"name": "weight", …}, …]}                                   as the columns of a table

Every modality has a conversion of its own, told apart by its keys: columns or one array.

What a conversion cannot give back of a file is kept beside the numbers (`lost`; see `data.source_values`). On the
way back a kept value is written where it still means the number that stands there; what was filled in or changed since
is decoded. Far outliers (`outliers`) have no part in a scale, and `bound` limits what a model is shown of them.
"""

from typing import Any

from postprior.pipelines.data.conversion.arrays import ArrayConversion
from postprior.pipelines.data.conversion.columns import ColumnConversion
from postprior.pipelines.data.conversion.tables import TableConversion

Conversion = ArrayConversion | TableConversion

__all__ = ["ArrayConversion", "ColumnConversion", "Conversion", "TableConversion", "from_description"]


def from_description(name: str, entry: dict[str, Any]) -> Conversion:
    """The conversion of modality `name` that gave this entry; KeyError or TypeError where it is damaged."""
    return (TableConversion if "columns" in entry else ArrayConversion).from_description(name, entry)
