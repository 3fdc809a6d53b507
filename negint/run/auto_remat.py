"""What `model.remat=auto` means in a run: chosen by the device when it begins, kept while it fits."""

from collections.abc import Callable

from negint.method.memory import Choice
from negint.options import AUTO, REMATS, ModelOptions
from negint.run import workdir as workdirs
from negint.run.runner import Place


def chosen(model: ModelOptions, place: Place, choice: Callable[[], Choice]) -> ModelOptions:
  """Returns the options with one of REMATS in the place of `auto`, and says why.

  The choice stands in `chosen.json` of the run's folder, so that a run that resumes on another device
  takes the same steps. Where `none` no longer fits, the run resumes with `layer`: the arithmetic is the
  same, but the noise of dropout differs.

  Args:
    model: of the run.
    place: where it works.
    choice: returns the choice on this device; UserError where no choice fits.
  """
  if model.remat != AUTO:
    return model
  made: list[Choice] = []

  def choose() -> str:
    made.append(choice())
    place.say(f"{made[0]}")
    return made[0].remat

  value = workdirs.chosen(place.workdir, "model.remat", REMATS, choose)
  if made:
    return model.replace(remat=value)
  found = choice() if value == REMATS[0] else None
  if found is None or found.limit is None or found.remat == value:
    place.say(f"model.remat=auto stays {value}, as this run has begun.")
    return model.replace(remat=value)
  workdirs.choose_anew(place.workdir, "model.remat", found.remat)
  place.say(
    f"{found} This run began with {value}, which does not fit here. It resumes with {found.remat}: "
    "only the noise of dropout differs."
  )
  return model.replace(remat=found.remat)
