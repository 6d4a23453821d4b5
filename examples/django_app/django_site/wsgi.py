"""The project's entry: what `django-admin startproject` writes, and a database that is ready.

subpool serve django_site.wsgi:application --pythonpath examples/django_app
Then http://127.0.0.1:8000/admin/ as "admin" with the password "admin".
"""

import os

from django.core.wsgi import get_wsgi_application

from .database import prepare

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_site.settings")

application = get_wsgi_application()
prepare()
