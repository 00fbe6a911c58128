"""A patient's name -> the split that is always theirs, whichever others are there."""

import hashlib

SHARES = (("train", 0.7), ("validation", 0.1), ("test", 0.2))  # of patients, near the paper's


def share_of(dataset: str, patient: str) -> float:
    """Return a number from 0 to 1, spread evenly over patients and always the same for one."""
    digest = hashlib.sha256(f"{dataset}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def split_of(dataset: str, patient: str) -> str:
    """Return the split of a patient of whom the data set's owner says nothing."""
    place, limit = share_of(dataset, patient), 0.0
    for split, share in SHARES[:-1]:
        limit += share
        if place < limit:
            return split
    return SHARES[-1][0]


def validates(dataset: str, patient: str) -> bool:
    """Tell whether a patient from a train split without validation is taken to validate."""
    train, validation = SHARES[0][1], SHARES[1][1]
    return share_of(dataset, patient) < validation / (train + validation)
