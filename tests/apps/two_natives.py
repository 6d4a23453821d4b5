"""An app with two extension modules that refuse sub-interpreters; an import stops at the first."""

import native_layer  # noqa: F401
import yaml._yaml


def app(environ, start_response):
    start_response("200 OK", [])
    return [yaml._yaml.get_version_string().encode()]
