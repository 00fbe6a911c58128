"""Weights and test slices -> scores on disk; scores -> intervals and comparisons.

::

    evaluate        weights + test slices -> confusion counts, distances, errors on disk
    error_analysis  level of a slice, cause of false bone, reliability of probabilities
    scoring         the files of an evaluation -> frames, pooled scores
    statistics      scores -> intervals and paired comparisons
    variants        trainings that answer what the paper leaves open
"""
