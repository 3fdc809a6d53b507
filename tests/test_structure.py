"""The house's rules: imports go down, public functions have types, words that a newcomer knows."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# A room may import from itself and from those before it. What stands in one line knows nothing of
# its neighbours.
LAYERS = [
  ("errors", "special_tokens"),
  ("out_of_memory",),
  ("options", "command_line", "config_file", "language_codes"),
  ("method",),
  ("run",),
  ("data", "perplexity"),
  ("tasks",),
  ("pretrained",),
  ("finetuning", "analysis", "report"),
  ("inference",),
  ("pretrain", "prepare", "predict", "export"),
  ("plan",),
  ("main",),
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
FILES = sorted((ROOT / "negint").rglob("*.py"))


def module_of(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path, modules):
  """Modules of the project that a file imports, inside functions, too."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: a relative import"
      for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        found.add(whole if whole in modules else node.module)
  return found & modules


GRAPH = {module_of(path): imports_of(path, {module_of(other) for other in FILES}) for path in FILES}


def room_of(module):
  return module.split(".")[1] if "." in module else ""


def upward(graph):
  """Imports that go from a lower room to a higher one, or between rooms of one layer."""
  return [
    (module, imported)
    for module, those in graph.items()
    for imported in those
    if room_of(module)
    and room_of(imported)
    and room_of(module) != room_of(imported)
    and RANK[room_of(imported)] >= RANK[room_of(module)]
  ]


def circles(graph):
  """Modules that reach themselves."""
  reach = {module: set(those) for module, those in graph.items()}
  for middle in reach:
    for those in reach.values():
      if middle in those:
        those |= reach[middle]
  return sorted(module for module, those in reach.items() if module in those)


def test_every_room_has_a_layer():
  assert {room_of(module) for module in GRAPH} - {""} == set(RANK)


def test_imports_go_down_and_form_no_circle():
  assert upward(GRAPH) == []
  assert circles(GRAPH) == []


def test_an_arrow_upwards_and_a_circle_would_be_seen():
  wrong = {**GRAPH, "negint.errors": {"negint.options"}}
  assert ("negint.errors", "negint.options") in upward(wrong)
  assert "negint.errors" in circles(wrong)


def test_the_method_opens_no_file_and_reads_no_flag():
  for path in (ROOT / "negint" / "method").glob("*.py"):
    text = path.read_text(encoding="utf-8")
    for word in ("open(", "pathlib", "absl", "ml_collections", "import json", "logging"):
      assert word not in text, f"{path.name} has {word}"


def public_functions(tree):
  """Public functions of a module and public methods of its public classes."""
  for node in tree.body:
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
      yield node
    elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
      for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
          yield method


def unannotated(tree):
  """Names of public functions that lack a type of an argument or of what they return."""
  names = []
  for function in public_functions(tree):
    arguments = [
      *function.args.posonlyargs,
      *function.args.args,
      *function.args.kwonlyargs,
      *filter(None, (function.args.vararg, function.args.kwarg)),
    ]
    typed = [a for a in arguments if a.annotation or a.arg in ("self", "cls")]
    if len(typed) < len(arguments) or function.returns is None:
      names.append(function.name)
  return names


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_public_functions_have_complete_types(path):
  assert unannotated(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_a_missing_type_would_be_seen():
  for text in ("def f(x: int): pass", "def f(x) -> int: pass", "def f(*, x) -> int: pass"):
    assert unannotated(ast.parse(text)) == ["f"]
  assert unannotated(ast.parse("class A:\n  def f(self, x) -> int: pass")) == ["f"]
  assert unannotated(ast.parse("def _f(x): pass\ndef g(x: int) -> int: pass")) == []
