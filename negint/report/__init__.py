"""The report of a study: tables beside the paper's, intervals, figures, and what is missing."""
