"""Benchmark results (the JSON of launch.benchmark) as Markdown."""

import numpy as np

STEPS_NOTE = (
  "Medians over {rounds} rounds, in brackets the 10th and 90th percentile. tokens/s counts training "
  "tokens. of matmul: counted arithmetic (negint/flops.py, rematerialised passes included; for the "
  "peers that of negint's step without them) over the measured rate of a large matrix product: "
  "{rates}. over plain: time over that of the plain step in the same round, at equal batch sizes and "
  "two languages; counted: the ratio of counted arithmetic; compiler: that of the compiler's own "
  "count, which takes a scan's body once. MiB, a device: {memory}."
)
GPU_MEMORY = "the highest mark of the allocator for a run of this step alone"
CPU_MEMORY = "the compiler's temporaries, beside the state"


def markdown(results: dict) -> str:
  parts = [steps_table(size, group) for size, group in results.get("steps", {}).items()]
  if "memory" in results:
    parts.append(memory_table(results["memory"]))
  if "feed" in results:
    parts.append(feed_table(results["feed"]))
  return "\n\n".join(parts)


def table(header: list[str], rows: list[list[str]], texts: int) -> str:
  """A Markdown table whose columns after the first `texts` are numbers."""
  rule = ["---"] * texts + ["---:"] * (len(header) - texts)
  return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def environment_line(environment: dict) -> str:
  skipped = ("device", "devices", "cores", "load", "torch_threads")
  versions = ", ".join(
    f"{name} {value}" for name, value in environment.items() if name not in skipped
  )
  threads = environment.get("torch_threads")
  torch = f", torch on {threads} thread(s)" if threads else ""
  return f"{environment['device']}; {versions}{torch}; load {environment['load']} at the start."


def steps_table(size: str, group: dict) -> str:
  rows, environment = group["rows"], group["environment"]
  rates = matmul_rates(rows)
  steps = [row for row in rows if row["step"] != "matmul"]
  plain = {
    (r["dtype"], r["remat"]): r for r in steps if r["step"] == "plain" and r["by"] == "negint"
  }
  first = steps[0]
  title = f"### {size}: {first['shape']}, {first['batch_size']} x {first['sequence_length']} tokens a step"
  header = [
    "step", "dtype", "by", "remat", "ms a step", "tokens/s", "of matmul", "over plain", "counted",
    "compiler", "MiB", "compile s", "host ms",
  ]  # fmt: skip
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


def matmul_rates(rows) -> dict[str, float]:
  """dtype -> FLOP/s of the fastest library's large matrix product."""
  rates = {}
  for row in rows:
    if row["step"] == "matmul":
      rate = row["flops"] / np.median(row["seconds"])
      rates[row["dtype"]] = max(rate, rates.get(row["dtype"], 0.0))
  return rates


def spread(values, scale=1.0) -> str:
  low, median, high = np.percentile(values, (10, 50, 90)) * scale
  return f"{number(median)} ({number(low, median)}-{number(high, median)})"


def number(value: float, beside: float | None = None) -> str:
  """Three digits or so, as many decimals as the number beside it has."""
  size = value if beside is None else beside
  return f"{value:,.{0 if size >= 1000 else 1 if size >= 20 else 2}f}"


def cells_of_step(row, rate: float) -> list[str]:
  seconds = float(np.median(row["seconds"]))
  return [
    row["step"], row["dtype"], row["by"], row["remat"], spread(row["seconds"], 1e3),
    f"{row['tokens'] / seconds:,.0f}", f"{row['flops'] / seconds / rate:.0%}",
    spread(row["over_plain"]) if "over_plain" in row else "",
  ]  # fmt: skip


def cells_of_counts(row, plain) -> list[str]:
  if row["by"] != "negint" or plain is None or row is plain:
    return ["", ""]
  compilers = row["compiler_flops"] and plain["compiler_flops"]
  return [
    f"{row['flops'] / plain['flops']:.2f}",
    f"{row['compiler_flops'] / plain['compiler_flops']:.2f}" if compilers else "",
  ]


def cells_of_costs(row) -> list[str]:
  memory = row.get("memory", {})
  used = memory.get("peak", memory.get("temporaries"))
  host = row.get("host_seconds")
  return [
    "" if used is None else number(used / 2**20),
    f"{row['compile_seconds']:.1f}",
    "" if host is None else f"{host * 1e3:.2f}",
  ]


def memory_table(group: dict) -> str:
  rows = group["rows"]
  plain = {(r["dtype"], r["remat"]): r for r in rows if r["step"] == "plain"}
  first = rows[0]
  title = (
    f"### Memory by the compiler: {first['shape']}, {first['batch_size']} x "
    f"{first['sequence_length']} tokens a step"
  )
  header = [
    "step", "dtype", "remat", "temporaries MiB", "over plain", "with state MiB", "over plain",
    "compile s",
  ]  # fmt: skip
  body = []
  for row in rows:
    memory, base = row["memory"], plain[row["dtype"], row["remat"]]["memory"]
    cells = [row["step"], row["dtype"], row["remat"]]
    for kind in ("temporaries", "total"):
      cells += [number(memory[kind] / 2**20), f"{memory[kind] / base[kind]:.2f}"]
    body.append([*cells, f"{row['compile_seconds']:.0f}"])
  note = (
    "Compiled for this device, on a CPU with the order of instructions that saves memory, and not "
    'run; "over plain" is under the same rematerialisation.'
  )
  return "\n\n".join([title, environment_line(group["environment"]), table(header, body, 3), note])


def feed_table(group: dict) -> str:
  body = [[row["what"], number(row["value"]), row["unit"]] for row in group["rows"]]
  title = "### The host's side"
  lines = table(["what", "value", "unit"], body, 1)
  return "\n\n".join([title, environment_line(group["environment"]), lines])
