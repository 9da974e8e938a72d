"""Networks: architectures by name, each with its five depths and its own encoding of pixels."""

from data_pipelines.configuration import import_files_of

import_files_of(__name__, __path__)
