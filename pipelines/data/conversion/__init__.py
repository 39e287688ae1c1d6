"""Convert values of files into numbers for models, and back; conversions are learned from the training rows.

They are stored as the entry `conversion` of a dataset's manifest:

    {"modalities": {"clinical": {"source": "tables", "file": "clinical.csv", "columns": [{"name": "age", …}, …]},
                    "scan": {"source": "images", "folder": "scan", "axes": "HW", "dtype": "uint8", …}},
     "tables": {"clinical.csv": ["patient", "age", "sex", "diagnosis"]},      headers, in the order of the file
     "types": {"clinical.parquet": {"sex": "large_string", …}},               Arrow types that import simplified
     "dialects": {"labs.csv": {"delimiter": ";", "decimal": ",", …}},         of text files with an unusual dialect
     "frames": {"labs.parquet": {"index": …, "columns": [{"header": "crp", "name": "crp", "dtype": …}, …]}},
                                                                              of data frames in memory: their dtypes
     "ids": {"name": "patient", "type": "string"}, "labels": …, "groups": …  each null if the data have none
     "targets": [{"name": "weight", …}, …]}                                   in the form of the columns of a table

Each modality has its own conversion. If the entry has the key `columns`, it is a table, otherwise one array. The key
`unmodelled` of a table lists columns that no model sees: constants, whose value is written into every exported row,
and free text. `labels` has the key `others` if rare classes were merged and `unlabelled` if rows of rare classes have
no label, and `ids` the key `headers` if files have different headers of ids.

Columns of numbers whose kind the user does not give are numeric, log, count or quantile: the kind under which held-out
training values are most probable (`marginals`). A quantile column holds normal scores (`quantiles`).

Values that a conversion cannot reproduce are stored next to the numbers (`lost`; see `data.source_values`). On export,
a stored value is written if it still corresponds to the current number; a number that was filled in or changed is
decoded. What a decoder of a model returns becomes data in `data.decoded`: within the range of the training rows
(`valid_range`), and with their `decimals`. Values of real rows are not changed. Far outliers (`outliers`) do not
contribute to a scale, and `bound` clips them in the input of a model.
"""

from contextlib import AbstractContextManager
from typing import Any

from postprior.pipelines.data.conversion.arrays import ArrayConversion
from postprior.pipelines.data.conversion.columns import ColumnConversion
from postprior.pipelines.data.conversion.tables import TableConversion
from postprior.pipelines.errors import as_user_error

Conversion = ArrayConversion | TableConversion

__all__ = [
    "ArrayConversion",
    "ColumnConversion",
    "Conversion",
    "TableConversion",
    "from_description",
    "intact",
]


def from_description(name: str, entry: dict[str, Any], title: str = "") -> Conversion:
    """Return the conversion of a modality that this entry describes; KeyError or TypeError if it is damaged."""
    return (TableConversion if "columns" in entry else ArrayConversion).from_description(name, entry, title)


def intact(title: str) -> AbstractContextManager[None]:
    """Turn the errors of a damaged entry of the modality with this title into a UserError."""
    damaged = KeyError, TypeError, ValueError, AttributeError
    return as_user_error(damaged, f"conversion of {title}: damaged", "import the data again")
