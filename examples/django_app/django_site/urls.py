"""What is where."""

from django.urls import path

from . import views

urlpatterns = [
    path("json/<str:name>", views.greet),
    path("upload", views.upload),
    path("page", views.page),
    path("stream", views.stream),
    path("missing", views.missing),
    path("error", views.error),
]
