"""Labelled data of the downstream tasks (Section 3.2): NER, POS, QA and NLI.

A task is one record, `task.Task`, in one file; `table.TASKS` lists them all. To add a task, write its
file, add it to the table, and give it a config next to configs/ner.py.
"""
