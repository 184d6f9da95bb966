"""What was published about Stanford Dogs."""

from __future__ import annotations

PUBLISHED_IMAGE_MEANS = (0.4761, 0.4518, 0.3910)
"""RGB, published as the mean of image means over all the images of Stanford Dogs."""
PUBLISHED_IMAGES, PUBLISHED_CLASSES = 20_580, 120
