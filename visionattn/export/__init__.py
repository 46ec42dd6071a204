"""Models handed over to other libraries and formats."""
