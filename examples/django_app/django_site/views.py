"""JSON, an upload, a template, rows of the database, a streamed answer, an error."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt

from .models import Note


def greet(request: HttpRequest, name: str) -> JsonResponse:
    """A JSON answer from the path and the query string."""
    return JsonResponse({"hello": name, "times": int(request.GET.get("times", 1))})


@csrf_exempt
def upload(request: HttpRequest) -> JsonResponse:
    """A file of a multipart form, which is not one of this site: so it has no token."""
    file = request.FILES["file"]
    data = file.read()
    answer = {"name": file.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return JsonResponse(answer, status=201)


def page(request: HttpRequest) -> HttpResponse:
    """A template."""
    return render(request, "django_page.html", {"items": ["one", "<two>"]})


def notes(request: HttpRequest) -> JsonResponse:
    """The notes, which are written in the admin."""
    return JsonResponse({"notes": list(Note.objects.values_list("text", flat=True))})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """An answer made while it is sent."""

    def lines() -> Iterator[str]:
        for number in range(5):
            yield f"line {number}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


def missing(request: HttpRequest) -> HttpResponse:
    """An HTTP error."""
    raise Http404("no such thing")


def error(request: HttpRequest) -> HttpResponse:
    """A bug: Django answers 500 and logs it."""
    raise LookupError("a bug in the app")
