"""Report: the data of one or several runs on one page."""
