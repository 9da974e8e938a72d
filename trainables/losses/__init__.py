"""Losses: what training minimizes besides the classification loss, one family a file."""

from data_pipelines.configuration import import_files_of

import_files_of(__name__, __path__)
