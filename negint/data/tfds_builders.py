"""TensorFlow Datasets by the names of their builders, without TensorFlow."""

import contextlib
import importlib
import importlib.util
import inspect
import io
import logging
import re
import socket
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from negint.errors import UserError

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

_CONNECT_SECONDS = 8  # after which a host counts as not reachable; TFDS itself tries for 3 minutes
_READ_SECONDS = 60  # without any data, after which a download counts as broken

# TFDS lists a builder of the old style only after the import of its module.
_OLD_STYLE_PACKAGES = ("text", "question_answering")


def find_builder(
  name: str, data_dir: str | None, *, otherwise: str, file_format: str | None = None
) -> "tfds.core.DatasetBuilder":
  """Returns the TFDS builder of a name; its data may be prepared or not.

  Args:
    name: the builder, with its config if it has several: 'wiki40b/ar'.
    data_dir: the folder of prepared builders; None for TFDS's own default.
    otherwise: what the user can do without TFDS, as the end of a sentence: "or use ...".
    file_format: the format to prepare it in; None for the format that lies on disk.

  Raises:
    UserError: there is no such builder or config, or a package that it needs is not installed.
  """
  try:
    import tensorflow_datasets as tfds  # half a second, and few commands need it
  except ImportError as error:
    raise UserError(
      f"'{name}' needs the package tensorflow-datasets, which cannot be imported ({error}): "
      f"pip install tensorflow-datasets, {otherwise}."
    ) from error

  chosen = {"file_format": file_format} if file_format else {}

  def find() -> tfds.core.DatasetBuilder:
    return tfds.builder(name, data_dir=data_dir, **chosen)

  try:
    try:
      return find()
    except tfds.core.DatasetNotFoundError:
      _import_old_style(re.split("[/:]", name)[0])
      return find()
  except tfds.core.DatasetNotFoundError:
    raise UserError(
      f"TFDS has no builder '{name}', neither in its catalogue nor prepared in "
      f"{data_dir or tfds.core.constants.DATA_DIR}. Choose one from "
      f"https://www.tensorflow.org/datasets/catalog, {otherwise}."
    ) from None
  except ImportError as error:
    raise UserError(
      f"The TFDS builder '{name}' needs the package {error.name}, which cannot be imported. Install "
      "it, or prepare the builder as array_record on a machine that has the package and copy the "
      f"files here, {otherwise}."
    ) from error
  except ValueError as error:
    raise UserError(
      f"TFDS has no builder '{name}' that it can load: {first_line(error)} Check the name and the "
      f"config after the slash, {otherwise}."
    ) from error


def prepare_builder(builder: "tfds.core.DatasetBuilder", name: str, *, otherwise: str) -> None:
  """Downloads the data of a builder and prepares it in the builder's format, unless it is on disk.

  Args:
    builder: of `find_builder`, with a file format.
    name: as the user wrote it.
    otherwise: what the user can do without TFDS, as the end of a sentence: "or use ...".

  Raises:
    UserError: packages are missing, the network does not answer, or TFDS refuses.
  """
  if builder.data_path.exists():
    return
  copy = f"copy the files of '{name}', prepared as array_record, from another machine to"
  others = f"or {copy} {builder.data_path}, {otherwise}."
  missing = _missing_packages(builder)
  if missing:
    raise UserError(
      f"The TFDS builder '{name}' is not prepared. To prepare it once, install what it needs (pip "
      f"install {' '.join(missing)}) and start the same command again, {others}"
    )
  try:
    if _is_on_google(builder):
      check_reachable("https://storage.googleapis.com")
    with _soon_refused():
      builder.download_and_prepare(download_config=_download_config(builder))
  except ImportError as error:
    package = (error.name or str(error)).split(".")[0]
    raise UserError(
      f"TFDS needs the package '{package}' to prepare '{name}', and it is not installed. Install it "
      f"(pip install {_requirement(package)}) and start the same command again, {others}"
    ) from error
  except Exception as error:  # TFDS lets all causes through: network, disk, a changed address
    raise UserError(
      f"TFDS could not prepare '{name}': {type(error).__name__}: {first_line(error)} Check the "
      f"network, {others}"
    ) from error


def _missing_packages(builder: "tfds.core.DatasetBuilder") -> list[str]:
  """Returns what pip must install before a builder can be prepared.

  TFDS imports such packages late, some of them after a download of hours.
  """
  source = _source(builder)
  names = set(re.findall(r"lazy_imports\.(\w+)", source))
  if re.search(r"^[^#\n]*\btf\.(io|data|train|compat)\b", source, re.MULTILINE):
    names.add("tensorflow")
  return [
    _requirement(name, "[gcp]" if name == "apache_beam" and _is_on_google(builder) else "")
    for name in sorted(names)
    if importlib.util.find_spec(name) is None
  ]


def _is_on_google(builder: "tfds.core.DatasetBuilder") -> bool:
  """Whether a builder reads from Google's storage by Beam, and not by TFDS's downloads."""
  return "gcs_path(" in _source(builder)


def _source(builder: "tfds.core.DatasetBuilder") -> str:
  """Returns the code of a builder's modules in TFDS, without what all builders share."""
  modules = {each.__module__ for each in type(builder).__mro__}
  return "".join(
    inspect.getsource(sys.modules[module])
    for module in sorted(modules)
    if module.startswith("tensorflow_datasets.") and not module.endswith(".dataset_builder")
  )


def _requirement(module: str, extra: str = "") -> str:
  """Returns what pip installs for a module's name.

  Without a version: the Beam that TFDS asks for needs an older protobuf than TFDS's own files.
  """
  name = {"bs4": "beautifulsoup4", "cv2": "opencv-python"}.get(module, module.replace("_", "-"))
  return f"'{name}{extra}'" if extra else name


def _download_config(builder: "tfds.core.DatasetBuilder") -> "tfds.download.DownloadConfig | None":
  """Returns the settings of a builder that runs on Beam: in this process, without its flags."""
  import tensorflow_datasets as tfds

  if not isinstance(builder, tfds.core.BeamBasedBuilder):
    return None
  beam = tfds.core.lazy_imports.apache_beam
  return tfds.download.DownloadConfig(
    beam_runner="DirectRunner", beam_options=beam.options.pipeline_options.PipelineOptions([])
  )


@contextlib.contextmanager
def _soon_refused() -> Iterator[None]:
  """Lets the downloads of TFDS fail within seconds where a host does not answer.

  TFDS itself tries ten times with growing pauses, and logs each try. Its progress bars are shown on a
  terminal only, so that an error is one sentence elsewhere.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import downloader

  download, retries = downloader._open_with_requests, downloader.MAX_RETRIES

  def impatient(url: str, **options: Any) -> Any:
    check_reachable(url)
    return download(url, timeout=(_CONNECT_SECONDS, _READ_SECONDS), **options)

  quiet = logging.getLogger("urllib3.connectionpool")
  level = quiet.level
  shown = sys.stderr.isatty()
  downloader._open_with_requests, downloader.MAX_RETRIES = impatient, 1
  quiet.setLevel(logging.ERROR)
  if not shown:
    tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(sys.stderr if shown else io.StringIO()):
      yield
  finally:
    downloader._open_with_requests, downloader.MAX_RETRIES = download, retries
    quiet.setLevel(level)
    if not shown:
      tfds.enable_progress_bar()


def check_reachable(url: str) -> None:
  """ConnectionError if the host of a URL does not answer within _CONNECT_SECONDS.

  Where the environment names a proxy, nothing is checked.
  """
  address = urllib.parse.urlsplit(url)
  if urllib.request.getproxies() or not address.hostname:
    return
  place = address.hostname, address.port or (443 if address.scheme == "https" else 80)
  errors: list[OSError] = [TimeoutError("no answer")]

  def connect() -> None:
    try:
      socket.create_connection(place, timeout=_CONNECT_SECONDS).close()
      errors.clear()
    except OSError as error:
      errors[:] = [error]

  # A look-up of a name cannot be stopped. A thread can be left alone.
  thread = threading.Thread(target=connect, daemon=True)
  thread.start()
  thread.join(_CONNECT_SECONDS)
  if errors:
    raise ConnectionError(f"{address.hostname} does not answer ({errors[0]})")


def first_line(error: Exception) -> str:
  """Returns the beginning of an error's text as a sentence; TFDS's errors can fill a page."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:300].rstrip(".") + "."


def _import_old_style(base: str) -> None:
  """Imports the module of the builder `base` where TFDS keeps one."""
  for package in _OLD_STYLE_PACKAGES:
    for module in (f"{package}.{base}", f"{package}.{base}.{base}"):
      _import_if_there(f"tensorflow_datasets.{module}")


def _import_if_there(module: str) -> None:
  """Imports `module` if it exists.

  Raises:
    ImportError: the module exists and imports something that does not.
  """
  try:
    importlib.import_module(module)
  except ModuleNotFoundError as error:
    if not module.startswith(error.name or module + "."):
      raise
