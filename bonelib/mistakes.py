"""Reference + prediction + slice -> why bone is false, and how sure a network was."""

CAUSES = (
    "outside the patient",
    "metal or marker",
    "contrast or calcification",
    "beside bone",
    "soft tissue",
)
