"""The share of near copies that is expected without a leak."""

NEAR = 0.01  # the threshold of near copies is this quantile of the distances of fresh rows to their closest records


def expected_near_copies(fresh: int) -> float:
    """Return the expected share of samples below the quantile `NEAR` of the distances of m ≥ 1 fresh rows.

    Of m distances in increasing order, number k is above an expected share k / (m + 1) of their distribution. The
    quantile has the place k = 1 + NEAR (m − 1). The share tends to `NEAR`, but is larger if there are few fresh rows.

    >>> [round(expected_near_copies(m), 3) for m in (10, 100, 1000, 10000)]
    [0.099, 0.02, 0.011, 0.01]
    """
    return (1 + NEAR * (fresh - 1)) / (fresh + 1)
