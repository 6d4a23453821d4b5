"""An app whose import ends its process, as a broken extension module does."""

import os

os.abort()
