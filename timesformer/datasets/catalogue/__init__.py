"""The data sets, one file each. A new file here registers a new one; nothing else names it."""

from timesformer.utils.discover import import_modules

import_modules(__name__, __path__)
