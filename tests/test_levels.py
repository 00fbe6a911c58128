import numpy as np
import pandas as pd
import pytest

from bonelib.evaluation.error_analysis import LEVELS, levels_of


def table(*rows):
    """The table of slices of {series: names}, 10 mm apart from feet to head."""
    frame = pd.DataFrame(rows, columns=["series", "structures"])
    return frame.assign(position_mm=10.0 * np.arange(len(frame)) - 500)


@pytest.mark.parametrize(
    ("structures", "level"),
    [
        ("femur_left femur_right arm_left", "femur shaft"),
        ("hip_left hip_right sacrum femur_left", "femur and hip bone"),
        ("left hip right hip Femur", "femur and hip bone"),
        ("hip_left hip_right sacrum", "hip bone and sacrum"),
        ("sacrum", "hip bone and sacrum"),
        ("hip_left vertebra_L5", "hip bone and vertebra"),
        ("vertebra_S1 vertebra_L5", "hip bone and vertebra"),
        ("L4", "vertebra"),
    ],
)
def test_the_bones_of_a_slice_tell_its_level(structures, level):
    assert levels_of(table(("a", structures))).tolist() == [level]


def test_a_slice_without_bone_is_at_its_neighbours_level():
    rows = table(("a", ""), ("a", "femur_left"), ("a", "arm_left"), ("a", "hip_left femur_left"))
    found = levels_of(rows.iloc[[3, 1, 0, 2]])
    assert found.loc[[0, 1, 2, 3]].tolist() == ["femur shaft"] * 3 + ["femur and hip bone"]


def test_heights_tell_where_bones_have_no_names():
    rows = table(*[("a", "bone")] * 9, ("b", ""), ("c", "L5"))
    thirds = [level for level in LEVELS if level.endswith("third")]
    found = levels_of(rows)
    assert found[:9].tolist() == np.repeat(thirds, 3).tolist()
    assert found[9] in thirds and found[10] == "vertebra"


def test_levels_ascend_from_feet_to_head_in_the_order_of_their_list():
    rows = table(*[("a", names) for names in ("femur", "femur hip", "hip sacrum", "hip L5", "L4")])
    assert [LEVELS.index(level) for level in levels_of(rows)] == sorted(range(5))
