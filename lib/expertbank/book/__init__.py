"""What the book draws and claims; nothing below imports it."""

import warnings

from expertbank.rate_distortion import LongSearchWarning

# the book's own searches are known to end; on a slow machine their warning would stand on a page
warnings.filterwarnings("ignore", category=LongSearchWarning)
