"""Report: what is known of one run or of several, on one page."""
