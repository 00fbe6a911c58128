"""The default data set: a seed -> CT series of made-up patients, as DICOM with bone labels.

::

    tissues     the tissues and their HU
    shapes      signed distances of ellipsoids, rods and their blends
    skeleton    the bones, each a signed distance in its own frame
    patient     a seed -> build, bones, organs and findings
    anatomy     a patient -> the tissues and bones of any axial slice
    texture     the random texture of tissues
    projection  an image -> the beam hardening and noise that its X-rays add
    rendering   tissues -> HU with texture, blur and X-ray artefacts
    series      a patient -> a series in memory and on disk
    visits      the default data set: patients planned in visits.yaml

Other seeds draw a wider variety of patients and scanners.
"""
