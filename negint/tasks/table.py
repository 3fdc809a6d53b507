"""The table of all tasks."""

from typing import Any

from negint.tasks.ner import NER
from negint.tasks.nli import NLI
from negint.tasks.pos import POS
from negint.tasks.qa import QA
from negint.tasks.task import Task

# Any: each task has its own types of examples and predictions.
TASKS: dict[str, Task[Any, Any]] = {task.name: task for task in (NER, POS, QA, NLI)}
