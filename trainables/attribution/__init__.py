"""Attributions: methods that map (model, image, target) to importance, one family a file."""

from data_pipelines.configuration import import_files_of

import_files_of(__name__, __path__)
