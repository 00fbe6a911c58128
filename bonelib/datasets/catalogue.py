"""The name of a public data set -> what it is, its licence, its files and how to get them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """One file of a release; what is None, the record at Zenodo says."""

    name: str
    checksum: str | None = None  # algorithm and hexadecimal digits, as the owner or a user has it
    size_bytes: int | None = None


@dataclass(frozen=True)
class Release:
    """The files of one record at Zenodo that belong together."""

    record: str
    files: tuple[File, ...]


@dataclass(frozen=True)
class Entry:
    """A public data set; a release that cannot be fetched by a program is told in words."""

    title: str
    licence: str
    doi: str
    note: str  # for captions of tables
    releases: dict[str, Release | str]  # by variant, the first where none is named


CATALOGUE = {
    "totalsegmentator": Entry(
        title="TotalSegmentator CT data set",
        licence="CC BY 4.0",
        doi="10.5281/zenodo.6802613",
        note=(
            "TotalSegmentator (CC BY 4.0): scans that hold both hip bones, from 100 mm below to "
            "100 mm above them, in the owner's split; where that has no validation, an eighth of "
            "its training scans is. Every bone there is labelled."
        ),
        releases={
            "v2": Release(
                "10047292",
                (
                    File(
                        "Totalsegmentator_dataset_v201.zip",
                        "sha256:741dbc911a768e2ac2671c66d55332f7302ad624c915a57d08b142d8bdf0ca26",
                        23_581_218_285,
                    ),
                ),
            ),
            "small": Release(
                "10047263",
                (
                    File(
                        "Totalsegmentator_dataset_small_v201.zip",
                        "md5:6b5524af4b15e6ba06ef2d700c0c73e0",
                        3_244_617_817,
                    ),
                ),
            ),
            "v3": Release(
                "22688904",
                (
                    File(
                        "Totalsegmentator_dataset_v300.zip",
                        "sha256:b56ae18553853ff256fb0eef3a02e322fbc6c862d9015238c8c46b1b76fa027b",
                        37_415_622_057,
                    ),
                ),
            ),
        },
    ),
    "ctpelvic1k": Entry(
        title="CTPelvic1K",
        licence="CC BY 4.0 (masks); the scans of subsets 1 to 5 keep their owners' licences",
        doi="10.5281/zenodo.4588402",
        note=(
            "CTPelvic1K (masks CC BY 4.0): scans that hold both hip bones, from 100 mm below to "
            "100 mm above them, without three known duplicates. Nobody drew the femur, so bright "
            "voxels outside of the masks are ignored."
        ),
        releases={
            "clinic": Release(
                "4588403",
                (
                    File(
                        "CTPelvic1K_dataset6_data.tar.gz",
                        "sha256:9b8f4747d256483062aa937eb990890e59954d8be74966edd982a6dcf3f4394e",
                    ),
                    File(
                        "CTPelvic1K_dataset6_Anonymized_mask.tar.gz",
                        "sha256:382b0780bcbf68536631b14e9d2a42a0bccb6fc3c30c9598078ddfa0e574bf95",
                    ),
                    File(
                        "CTPelvic1K_dataset7_data.tar.gz",
                        "sha256:9b71fdf37c9bbb7bf99b95ea577f4bac24f9c393644e44287f59aad0b52a9cbc",
                    ),
                    File(
                        "CTPelvic1K_dataset7_mask.tar.gz",
                        "sha256:4b85e4eb7300e77ce094329933d032a88183f4f0ec65cde95e4162074bb7cca3",
                    ),
                ),
            ),
            "masks": Release(
                "4588403",
                tuple(
                    File(f"CTPelvic1K_dataset{number}_mask_mappingback.tar.gz")
                    for number in range(1, 6)
                ),
            ),
            "scans": (
                "the scans of subsets 1 to 5 come from their owners, who want an account or a "
                "licence accepted: 1 BTCV abdomen and 5 BTCV cervix (Synapse, syn3193805), 2 CT "
                "Colonography (TCIA, doi 10.7937/K9/TCIA.2015.NWTESAY1), 3 Medical Segmentation "
                "Decathlon Task10_Colon, 4 KiTS19; fetch the variant 'masks', and put each scan "
                "as one .nii.gz beside it, under its mask's name without '_mask_4label'"
            ),
        },
    ),
    "ct_org": Entry(
        title="CT-ORG",
        licence="CC BY 3.0",
        doi="10.7937/TCIA.2019.TT7F4V7O",
        note=(
            "CT-ORG (CC BY 3.0): scans that hold the bladder, from 150 mm below to 200 mm above "
            "it; bone was drawn by hand in the test scans 0 to 20 only, by grey value and shape "
            "in the others. Every bone there is labelled, without names."
        ),
        releases={
            "": (
                "The Cancer Imaging Archive hands it out by its own client: open "
                "https://doi.org/10.7937/TCIA.2019.TT7F4V7O, install the IBM Aspera Connect "
                "plug-in that the page names, download 'OrganSegmentations' and give the folder "
                "with volume-0.nii.gz, labels-0.nii.gz … as --data"
            )
        },
    ),
    "pengwin": Entry(
        title="PENGWIN 2024, CT task",
        licence="CC BY 4.0",
        doi="10.5281/zenodo.10927452",
        note=(
            "PENGWIN 2024, CT (CC BY 4.0): fractured pelves, from 100 mm below to 100 mm above "
            "the hip bones. Nobody drew femur and lumbar spine, so bright voxels outside of the "
            "masks are ignored."
        ),
        releases={
            "ct": Release(
                "10927452",
                (
                    File(
                        "PENGWIN_CT_train_images_part1.zip",
                        "sha256:e2e9f99798960607ffced1fbdeee75a626c41bf859eaf4125029a38fac6b7609",
                    ),
                    File(
                        "PENGWIN_CT_train_images_part2.zip",
                        "sha256:19f3cdc5edd1daf9324c70f8ba683eed054f6ed8f2b1cc59dbd80724f8f0bbb2",
                    ),
                    File(
                        "PENGWIN_CT_train_labels.zip",
                        "sha256:c4d3857e02d3ee5d0df6c8c918dd3cf5a7c9419135f1ec089b78215f37c6665c",
                    ),
                ),
            )
        },
    ),
    "ctpel": Entry(
        title="CTPEL, AIDA data hub",
        licence="AIDA's licence, on request",
        doi="10.23698/aida/ctpel",
        note=(
            "CTPEL (AIDA's licence): from 100 mm below to 100 mm above the hip bones. Nobody "
            "drew the lumbar spine and the femur's lower part, so bright voxels outside of the "
            "masks are ignored."
        ),
        releases={
            "": (
                "the AIDA data hub hands it out on request only: open "
                "https://doi.org/10.23698/aida/ctpel, apply for access for research or teaching, "
                "sign the agreement, download by the link that comes and give the folder that "
                "holds a folder with im_1 and im_3 for each patient as --data"
            )
        },
    ),
}


def note(dataset: str) -> str:
    """Return what a table's caption says of a data set; nothing for one's own and made-up ones."""
    return CATALOGUE[dataset].note if dataset in CATALOGUE else ""
