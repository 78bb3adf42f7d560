"""Report on one batch: receipts of its hosts in, one page for people out (text, or one HTML file).

`receipts` reads documents, `judge` decides, `timeline` computes the picture, `text` and `html` print. Only `html`
needs Jinja2, so it is imported only where a page is written.
"""

from .judge import judge
from .receipts import ReceiptFile, ReceiptsUnusable, receipt_file
from .text import as_text
from .values import BatchReport

__all__ = ["BatchReport", "ReceiptFile", "ReceiptsUnusable", "as_text", "judge", "receipt_file"]
