"""Labelled data of the four downstream tasks (Section 3.2): NER, POS, QA, NLI."""
