"""What the book draws and claims; nothing below imports it."""
