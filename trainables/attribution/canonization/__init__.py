"""Canonical forms: a network rewritten, for a while, so that LRP's rules find every operation.

One file a family of blocks. A network that only chains layers (VGG) needs no form of its own.
"""

from data_pipelines.configuration import import_files_of

import_files_of(__name__, __path__)
