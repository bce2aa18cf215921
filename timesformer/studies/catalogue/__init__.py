"""The figures and tables, a file each. A new file here adds one; nothing else names it."""

from timesformer.utils.discover import import_modules

import_modules(__name__, __path__)
