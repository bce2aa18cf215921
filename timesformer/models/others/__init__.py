"""Models of other papers to compare with. A new file here registers its models."""

from timesformer.utils.discover import import_modules

import_modules(__name__, __path__)
