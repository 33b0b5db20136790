"""What the chapters draw, one file a part of the book. Functions take results and return a
matplotlib Figure."""

# what a part defines is what it shows, so its names are not listed a second time
from expertbank.book.figures.banks import *  # noqa: F403
from expertbank.book.figures.channel import *  # noqa: F403
from expertbank.book.figures.priced_gates import *  # noqa: F403
from expertbank.book.figures.routers import *  # noqa: F403
from expertbank.book.figures.second_look import *  # noqa: F403
from expertbank.book.figures.style import *  # noqa: F403
