"""What is where."""

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import path, re_path

from . import views

urlpatterns = [
    path("json/<str:name>", views.greet),
    path("upload", views.upload),
    path("page", views.page),
    path("notes", views.notes),
    path("stream", views.stream),
    path("missing", views.missing),
    path("error", views.error),
    path("admin/", admin.site.urls),
    # From the apps' own folders. A larger site runs `collectstatic`, and has a web server for its static files.
    re_path(r"^static/(?P<path>.+)$", serve, {"insecure": True}),
]
