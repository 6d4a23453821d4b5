"""A runner that cannot be imported."""

raise LookupError("a broken runner")
