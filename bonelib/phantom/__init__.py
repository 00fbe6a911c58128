"""The default data set: a seed -> CT series of made-up patients, as DICOM with bone labels.

::

    tissues     the tissues, their HU and random texture
    skeleton    the bones, each a signed distance in its own frame
    patient     a seed -> build, bones, organs and findings
    anatomy     a patient -> the tissues and bones of any axial slice
    projection  an image -> the beam hardening and noise that its X-rays add
    rendering   tissues -> HU with texture, blur and X-ray artefacts
    series      a patient -> a series in memory and on disk; the default data set

Other seeds draw a wider variety of patients and scanners.
"""
