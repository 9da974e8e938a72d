"""Self-supervised methods; importing the package registers every file of it."""

from data_pipelines.configuration import import_files_of

import_files_of(__name__, __path__)
