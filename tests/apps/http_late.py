"""A WSGI app whose import waits for the test: the pipes come through the environment."""

import os

import gates
import http_wsgi

gates.signal(os.environ["HTTP_LATE_STARTED"])
gates.block(os.environ["HTTP_LATE_GATE"])

app = http_wsgi.app
