"""One scan -> label map, bones, surfaces, DICOM SEG, page."""
