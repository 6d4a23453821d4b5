"""A module that cannot be imported, because of something deeper."""

import module_that_is_nowhere  # noqa: F401
