"""What `model.remat=auto` means in a run: chosen by the device when it begins, kept when it resumes."""

from collections.abc import Callable

from negint.method.memory import Choice
from negint.options import AUTO, REMATS, ModelOptions
from negint.run import workdir as workdirs
from negint.run.runner import Place


def chosen(model: ModelOptions, place: Place, choice: Callable[[], Choice]) -> ModelOptions:
  """Returns the options with one of REMATS in the place of `auto`, and says why.

  The choice stands in `chosen.json` of the run's folder, so that a run that resumes on another device
  takes the same steps.

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
  if not made:
    place.say(f"model.remat=auto stays {value}, as this run has begun.")
  return model.replace(remat=value)
