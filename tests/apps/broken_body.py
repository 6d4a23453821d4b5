"""A module that raises while it is imported."""


def configure():
    raise LookupError("SETTINGS is not set")


configure()
