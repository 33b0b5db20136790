"""Anyone's loss table in the same pictures as the book: `scenes` computes, `page` writes a file,
`session` answers the page *Your own experts*."""

from expertbank.book.your_table.page import write_bounds as write_bounds
from expertbank.book.your_table.page import write_curve as write_curve
from expertbank.book.your_table.scenes import explore_choice as explore_choice
from expertbank.book.your_table.scenes import explore_curve as explore_curve
from expertbank.book.your_table.scenes import facts as facts
from expertbank.book.your_table.selection import TableLadder as TableLadder
