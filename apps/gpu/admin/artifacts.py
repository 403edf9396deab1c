"""Stored inputs and outputs, and who may read them."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.pages import ReadOnlyAdmin, ReadOnlyInline
from apps.gpu.models import Artifact, ArtifactGrant


class GrantsOfArtifact(ReadOnlyInline):
    model = ArtifactGrant
    fields = readonly_fields = ("user_shown", "job_shown", "created_at")
    verbose_name_plural = "Who may read it"
    ordering = ("-id",)
    per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[ArtifactGrant]:
        grants: QuerySet[ArtifactGrant] = super().get_queryset(request)
        return grants.select_related("user")

    @display(description="User")
    def user_shown(self, grant: ArtifactGrant) -> str:
        return show.link("accounts_user", grant.user_id, grant.user)

    @display(description="Through")
    def job_shown(self, grant: ArtifactGrant) -> str:
        return show.link("gpu_job", grant.job) if grant.job else "its own upload"


@admin.register(Artifact)
class ArtifactAdmin(ReadOnlyAdmin):
    icon = "inventory_2"
    list_display = ("sha256_short", "size_shown", "created_at")
    search_fields = ("sha256",)
    search_help_text = "SHA-256"
    ordering = ("-created_at",)
    fields = ("sha256_shown", ("size_shown", "created_at"))
    inlines = (GrantsOfArtifact,)

    @display(description="SHA-256")
    def sha256_short(self, artifact: Artifact) -> str:
        return show.short(artifact.sha256)

    @display(description="SHA-256")
    def sha256_shown(self, artifact: Artifact) -> str:
        return show.code(artifact.sha256)

    @display(description="Size", ordering="size")
    def size_shown(self, artifact: Artifact) -> str:
        return show.size(artifact.size)


@admin.register(ArtifactGrant)
class ArtifactGrantAdmin(ReadOnlyAdmin):
    icon = "lock_open"
    list_display = ("id", "artifact_shown", "user_shown", "job_shown", "created_at")
    list_select_related = ("user",)
    search_fields = ("id", "artifact__sha256", "user__email")
    search_help_text = "Number, SHA-256, or the user's e-mail"
    ordering = ("-id",)
    fields = ("artifact_shown", ("user_shown", "job_shown"), "created_at")

    @display(description="Artifact")
    def artifact_shown(self, grant: ArtifactGrant) -> str:
        return show.link("gpu_artifact", grant.artifact_id, show.short(grant.artifact_id))

    @display(description="User")
    def user_shown(self, grant: ArtifactGrant) -> str:
        return show.link("accounts_user", grant.user_id, grant.user)

    @display(description="Through")
    def job_shown(self, grant: ArtifactGrant) -> str:
        return show.link("gpu_job", grant.job) if grant.job else "its own upload"
