"""Benchmark results (the JSON of launch.benchmark) as Markdown."""

import numpy as np

STEPS_NOTE = (
  "Medians over {rounds} rounds, in brackets the 10th and 90th percentile. tokens/s: training tokens, "
  "without held-out ones. of matmul: the rate of the step's counted FLOPs (negint/method/flops.py) as a "
  "share of the measured rate of a large matrix product, {rates}; the count has the rematerialised "
  "passes of negint's steps, and none for PyTorch's. over plain: time over that of the plain step in the "
  "same round, at equal batch sizes and two languages. counted: the same ratio of counted FLOPs. "
  "compiler: the same ratio of the compiler's count, which has a scan's body only once. MiB per device: "
  "{memory}."
)
GPU_MEMORY = "the highest mark of the allocator for a run of this step alone"
CPU_MEMORY = "the compiler's temporaries; the state comes on top"


def markdown(results: dict) -> str:
  """Returns all results of a JSON file as Markdown."""
  parts = [steps_table(size, group) for size, group in results.get("steps", {}).items()]
  if "memory" in results:
    parts.append(memory_table(results["memory"]))
  if "host" in results:
    parts.append(host_table(results["host"]))
  return "\n\n".join(parts)


def table(header: list[str], rows: list[list[str]], texts: int) -> str:
  """Returns a Markdown table whose columns after the first `texts` are numbers."""
  rule = ["---"] * texts + ["---:"] * (len(header) - texts)
  return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def environment_line(environment: dict) -> str:
  """Returns the machine, the versions and the load in one line."""
  skipped = ("device", "devices", "cores", "load", "torch_threads")
  versions = ", ".join(
    f"{name} {value}" for name, value in environment.items() if name not in skipped
  )
  threads = environment.get("torch_threads")
  torch = f", torch on {threads} thread(s)" if threads else ""
  return f"{environment['device']}; {versions}{torch}; load {environment['load']} at the start."


def steps_table(size: str, group: dict) -> str:
  """Returns the table of the timed steps of a size."""
  rows, environment = group["rows"], group["environment"]
  rates = matmul_rates(rows)
  steps = [row for row in rows if row["step"] != "matmul"]
  plain = {
    (r["dtype"], r["remat"]): r for r in steps if r["step"] == "plain" and r["by"] == "negint"
  }
  first = steps[0]
  title = f"### {size}: {first['shape']}, {first['batch_size']} x {first['sequence_length']} tokens per step"
  header = ["step", "dtype", "by", "remat", "ms per step", "tokens/s", "of matmul", "over plain"]
  header += ["counted", "compiler", "MiB", "compile s", "host ms"]
  body = []
  for row in sorted(steps, key=lambda row: (row["dtype"] != "float32", row["by"] != "negint")):
    rate = rates[row["dtype"]] * environment["devices"]
    base = plain.get((row["dtype"], row["remat"]))
    body.append([*cells_of_step(row, rate), *cells_of_counts(row, base), *cells_of_costs(row)])
  note = STEPS_NOTE.format(
    rounds=len(first["seconds"]),
    rates=", ".join(f"{dtype} ({rate / 1e9:,.0f} GFLOP/s)" for dtype, rate in rates.items()),
    memory=GPU_MEMORY if any("peak" in row.get("memory", {}) for row in steps) else CPU_MEMORY,
  )
  return "\n\n".join([title, environment_line(environment), table(header, body, 4), note])


def matmul_rates(rows: list[dict]) -> dict[str, float]:
  """Returns {dtype: FLOP/s of a large matrix product by the fastest library}."""
  rates: dict[str, float] = {}
  for row in rows:
    if row["step"] == "matmul":
      rate = row["flops"] / np.median(row["seconds"])
      rates[row["dtype"]] = max(rate, rates.get(row["dtype"], 0.0))
  return rates


def spread(values: list[float], scale: float = 1.0) -> str:
  """Returns "58.2 (46.0-77.3)": median, 10th and 90th percentile, times `scale`."""
  low, median, high = np.percentile(values, (10, 50, 90)) * scale
  return f"{number(median)} ({number(low, median)}-{number(high, median)})"


def number(value: float, beside: float | None = None) -> str:
  """Returns about three digits, with as many decimals as `beside` would have."""
  size = value if beside is None else beside
  return f"{value:,.{0 if size >= 1000 else 1 if size >= 20 else 2}f}"


def cells_of_step(row: dict, rate: float) -> list[str]:
  """Returns the cells up to "over plain"; `rate` is that of a matrix product, in FLOP/s."""
  seconds = float(np.median(row["seconds"]))
  return [
    *(row["step"], row["dtype"], row["by"], row["remat"], spread(row["seconds"], 1e3)),
    f"{row['tokens'] / seconds:,.0f}",
    f"{row['flops'] / seconds / rate:.0%}",
    spread(row["over_plain"]) if "over_plain" in row else "",
  ]


def cells_of_counts(row: dict, plain: dict | None) -> list[str]:
  """Returns the cells "counted" and "compiler": FLOPs over those of the plain step."""
  if row["by"] != "negint" or plain is None or row is plain:
    return ["", ""]
  compilers = row["compiler_flops"] and plain["compiler_flops"]
  return [
    f"{row['flops'] / plain['flops']:.2f}",
    f"{row['compiler_flops'] / plain['compiler_flops']:.2f}" if compilers else "",
  ]


def cells_of_costs(row: dict) -> list[str]:
  """Returns the cells of memory, compilation and the host's time."""
  memory = row.get("memory", {})
  used = memory.get("peak", memory.get("temporaries"))
  host = row.get("host_seconds")
  return [
    "" if used is None else number(used / 2**20),
    f"{row['compile_seconds']:.1f}",
    "" if host is None else f"{host * 1e3:.2f}",
  ]


def memory_table(group: dict) -> str:
  """Returns the table of the memory that compiled steps take."""
  rows = group["rows"]
  plain = {(r["dtype"], r["remat"]): r for r in rows if r["step"] == "plain"}
  first = rows[0]
  title = (
    f"### Memory by the compiler: {first['shape']}, {first['batch_size']} x "
    f"{first['sequence_length']} tokens per step"
  )
  header = ["step", "dtype", "remat", "temporaries MiB", "over plain", "with state MiB"]
  header += ["over plain", "compile s"]
  body = []
  for row in rows:
    memory, base = row["memory"], plain[row["dtype"], row["remat"]]["memory"]
    cells = [row["step"], row["dtype"], row["remat"]]
    for kind in ("temporaries", "total"):
      cells += [number(memory[kind] / 2**20), f"{memory[kind] / base[kind]:.2f}"]
    body.append([*cells, f"{row['compile_seconds']:.0f}"])
  note = (
    "Compiled for this device and not run; on a CPU the compiler orders instructions to save memory. "
    "over plain: memory over that of the plain step with the same rematerialisation."
  )
  return "\n\n".join([title, environment_line(group["environment"]), table(header, body, 3), note])


def host_table(group: dict) -> str:
  """Returns the table of the host's work."""
  body = [[row["what"], number(row["value"]), row["unit"]] for row in group["rows"]]
  title = "### The host's work"
  lines = table(["what", "value", "unit"], body, 1)
  return "\n\n".join([title, environment_line(group["environment"]), lines])
