"""Stored inputs and outputs, and who may read them."""

from django.contrib import admin

from aitbc.core import show
from aitbc.core.columns import column
from aitbc.core.pages import ReadOnlyAdmin, ReadOnlyInline
from apps.gpu.models import Artifact, ArtifactGrant


class GrantColumns:
    """What the list of grants and the page of an artifact show alike."""

    user_shown = column("User", "user", show.to)
    job_shown = column("Through", lambda row: show.link("gpu_job", row.job) if row.job else "its own upload")


class GrantsOfArtifact(GrantColumns, ReadOnlyInline):
    model = ArtifactGrant
    fields = readonly_fields = ("user_shown", "job_shown", "created_at")
    verbose_name_plural = "Who may read it"
    ordering = ("-id",)
    per_page = 50
    select_related = ("user",)


@admin.register(Artifact)
class ArtifactAdmin(ReadOnlyAdmin):
    icon = "inventory_2"
    list_display = ("sha256_short", "size_shown", "created_at")
    search_fields = ("sha256",)
    search_help_text = "SHA-256"
    ordering = ("-created_at",)
    fields = ("sha256_shown", ("size_shown", "created_at"))
    inlines = (GrantsOfArtifact,)

    sha256_short = column("SHA-256", "sha256", show.short)
    sha256_shown = column("SHA-256", "sha256", show.code)
    size_shown = column("Size", "size", show.size, ordering="size")


@admin.register(ArtifactGrant)
class ArtifactGrantAdmin(GrantColumns, ReadOnlyAdmin):
    icon = "lock_open"
    list_display = ("id", "artifact_shown", "user_shown", "job_shown", "created_at")
    list_select_related = ("user",)
    search_fields = ("id", "artifact__sha256", "user__email")
    search_help_text = "Number, SHA-256, or the user's e-mail"
    ordering = ("-id",)
    fields = ("artifact_shown", ("user_shown", "job_shown"), "created_at")

    artifact_shown = column(
        "Artifact", "artifact_id", lambda sha256: show.link("gpu_artifact", sha256, show.short(sha256))
    )
