"""A page of Django: 20 rows from SQLite through the ORM, and a template. `PERF_DB` is the file, see
`perf.servers.database`."""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="perf",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": os.environ["PERF_DB"],
                "CONN_MAX_AGE": None,
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()

from django.core.wsgi import get_wsgi_application
from django.db import models
from django.http import HttpResponse
from django.template import Context, Engine
from django.urls import path

PAGE = Engine().from_string(
    "<!doctype html><title>Items</title><ul>"
    "{% for item in items %}<li>{{ item.name }}: {{ item.price|floatformat:2 }}{% endfor %}</ul>"
)


class Item(models.Model):
    """A row."""

    name: Any = models.CharField(max_length=80)
    price: Any = models.FloatField()

    class Meta:
        app_label = "pages"
        db_table = "item"


def page(request: Any) -> Any:
    return HttpResponse(PAGE.render(Context({"items": Item.objects.filter(price__gt=1)[:20]})))


def hello(request: Any) -> Any:
    return HttpResponse("Hello, World!")


urlpatterns = [path("page", page), path("hello", hello)]
app = get_wsgi_application()
