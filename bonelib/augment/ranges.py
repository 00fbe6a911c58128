"""The ranges and shares of every augmentation.

They are the paper's (section 4), and those of the library it used (`aug_all`) where the paper
prints none.
"""

PAPER_SIZE = 512  # pixels of the slices for which ranges in pixels are given
OCCASIONAL_OPERATIONS = 12
MAX_OPERATIONS = 5  # "0 to 5 following operations were randomly performed per each image"
DRAWN_SHARE = MAX_OPERATIONS / 2 / OCCASIONAL_OPERATIONS  # of images that draw a given one

# "The following operations were applied most frequently": in which share of the images.
FREQUENT_SHARES = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.2,
    "crop_or_pad": 0.5,
    "scale_rotate_shear": 0.5,
}
# The others, of which none to five are drawn for an image: how often each acts once drawn.
OCCASIONAL_SHARES = {
    "blur": 1.0,
    "sharpen": 1.0,
    "edges": 1.0,
    "noise": 1.0,
    "pixel_removal": 1.0,
    # "In 5% of images", though it is drawn for 2.5 in 12 only. The library inverts 1 %.
    "inversion": 0.05 / DRAWN_SHARE,
    "brightness": 1.0,
    "contrast": 1.0,
    # The paper's overview names it, its list and `aug_all` do not; the library's
    # `aug_non_geometric` applies it to a tenth of the images, and so does this.
    "histogram_equalisation": 0.1 / DRAWN_SHARE,
    "local_moves": 0.5,
    "local_affine": 0.5,
    "perspective": 0.5,
}

CROP_OR_PAD = -0.05, 0.1  # shares of a side, drawn for each side, which also translates
SCALE = 0.8, 1.2  # drawn for each axis
ROTATION = -45, 45  # degrees
SHEAR = -16, 16  # degrees
SHARPENED_SHARE = 0.0, 1.0
SHARPENED_LIGHTNESS = 0.75, 1.5
EDGES_SHARE = 0.5, 1.0
NOISE_SIGMA = 0.0, 0.05 * 255  # grey levels
NOISE_PER_CHANNEL = 0.5
# The library's coarse patches take up to 15 % of the pixels; the paper says 10 %.
REMOVED = 0.01, 0.1
REMOVED_PER_CHANNEL = 0.5
REMOVED_COARSELY = 0.03, 0.1
COARSE_SIZE = 0.02, 0.05  # of the coarse image's sides to those of the image
MIN_COARSE_PIXELS = 3
COARSE_PER_CHANNEL = 0.2
# "By -10% to 10% of the original value". The library adds -10 to 10 grey levels.
BRIGHTNESS = 0.9, 1.1
BRIGHTNESS_PER_CHANNEL = 0.5
CONTRAST = 0.5, 2.0
CONTRAST_PER_CHANNEL = 0.5
LOCAL_AFFINE = 0.01, 0.05  # standard deviation of a point's move, as a share of the sides
LOCAL_AFFINE_POINTS = 2, 4  # rows and columns of points: imgaug's default
LOCAL_MOVE_BLUR = 0.25  # pixels
PERSPECTIVE = 0.01, 0.1  # standard deviation of a corner's move, as a share of the sides

# Blurs and local moves are printed in pixels of 512 x 512 slices; they shrink with the slice,
# so that they stay as large in millimetres.


def gaussian_sigma(image_size: int) -> tuple[float, float]:
    """Return the range of a Gaussian blur in pixels."""
    return 0.0, 3.0 * image_size / PAPER_SIZE


def average_kernel(image_size: int) -> tuple[int, int]:
    """Return the range of the kernel of an average blur in pixels."""
    part = image_size / PAPER_SIZE
    return max(1, round(2 * part)), max(1, round(7 * part))


def median_kernel(image_size: int) -> tuple[int, int]:
    """Return the range of the kernel of a median blur in pixels: both ends are odd."""
    low, high = average_kernel(image_size)
    largest = high - 1 | 1
    return min(low | 1, largest), largest


def local_moves(image_size: int) -> tuple[float, float]:
    """Return the range of the largest local move in pixels."""
    part = image_size / PAPER_SIZE
    return 0.5 * part, 3.5 * part
