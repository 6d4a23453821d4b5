"""What the admin shows."""

from __future__ import annotations

from django.contrib import admin

from .models import Note


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):
    """The notes, with their dates."""

    list_display = ("text", "created")
    search_fields = ("text",)
