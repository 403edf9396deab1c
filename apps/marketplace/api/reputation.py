"""`/v1/reputation`: what people say of each other after a deal, and the scores. Reading scores is public."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import Field

from aitbc.core.auth import PartyKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.ids import uuid7
from aitbc.core.schema import PageIn, Strict, errors, list_of, shape
from apps.trading.services.escrow import call

router = Router(tags=["reputation"])
read, write = PartyKey("jobs:read"), PartyKey("jobs:write")
Words = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]
Tags = Annotated[list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]], Field(max_length=10)]
Stars = Annotated[int, Field(ge=1, le=5)]
Ratings = dict[Literal["overall", "performance", "communication", "reliability", "value"], Stars]
ReviewOut = shape(
    "ReviewOut", id=UUID, deal=UUID, author=UUID, subject=UUID, state=Literal["pending", "approved", "rejected"],
    ratings=Ratings, text=str, tags=list[str], created_at=datetime, edited_at=datetime | None,
)  # fmt: skip
Counts = dict[str, int]
ReputationOut = shape(
    "ReputationOut", user=UUID, score=int, level=str, benefits=Counts, parts=Counts, deals=Counts,
    reviews=dict[str, float | None], computed_at=datetime | None,
)  # fmt: skip
RankOut = shape("RankOut", user=UUID, score=int, level=str, completed=int)
EventOut = shape("ReputationEventOut", number=int, cause=str, score=int, at=datetime)
CHANGED: dict[Any, Any] = {200: ReviewOut} | errors(403, 404)


class ReviewPatch(Strict):
    """What is left out, or null, stays as it is."""

    ratings: Ratings | None = None
    text: Words | None = None
    tags: Tags | None = None


class ReviewIn(ReviewPatch):
    deal: UUID = Field(description="A completed job of yours, as its client or its provider.")
    ratings: Annotated[Ratings, Field(min_length=5, description="All five.")]


class RankIn(Strict):
    by: Literal["score", "performance", "reliability", "community", "security", "economic"] = "score"
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,4}:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


@router.post("/reviews", auth=write, response={201: ReviewOut} | errors(403, 409), summary="Review a deal")
@idempotent("reviews.write")
def write_review(request: HttpRequest, body: ReviewIn) -> tuple[int, str]:
    """Once a deal of yours is completed, and once per deal. It counts when it is approved."""
    return 201, call("review_write", caller(request).user_id, uuid7(), body.deal, body.model_dump_json())


@router.get("/reviews", auth=read, response={200: list_of(ReviewOut, UUID)} | errors(403), summary="Reviews")
def list_reviews(request: HttpRequest, page: Query[PageIn], subject: UUID | None = None) -> HttpResponse:
    """The approved ones about `subject`; without one, all that you wrote."""
    return json_response(call("reviews_of", caller(request).user_id, subject, page.cursor, page.limit))


@router.patch("/reviews/{uuid:review_id}", auth=write, response=CHANGED, summary="Change a review")
def edit_review(request: HttpRequest, review_id: UUID, body: ReviewPatch) -> HttpResponse:
    return json_response(call("review_edit", caller(request).user_id, review_id, body.model_dump_json()))


@router.delete("/reviews/{uuid:review_id}", auth=write, response=CHANGED, summary="Delete a review")
def delete_review(request: HttpRequest, review_id: UUID) -> HttpResponse:
    return json_response(call("review_delete", caller(request).user_id, review_id))


@router.get("/leaderboard", auth=None, response={200: list_of(RankOut)} | errors(), summary="The best")
def leaderboard(request: HttpRequest, wanted: Query[RankIn]) -> HttpResponse:
    """Each with the part of the score that `by` names."""
    return json_response(call("reputation_leaderboard", wanted.by, wanted.cursor, wanted.limit))


@router.get("/{uuid:user_id}", auth=None, response={200: ReputationOut} | errors(404), summary="A user's score")
def get_reputation(request: HttpRequest, user_id: UUID) -> HttpResponse:
    """Levels begin at 400, 600, 750 and 900; docs/reputation.md has the formulas."""
    return json_response(call("reputation_document", user_id))


@router.get("/{uuid:user_id}/events", auth=None, response={200: list_of(EventOut, int)} | errors(404), summary="Events")
def list_events(request: HttpRequest, user_id: UUID, cursor: int | None = None, limit: int = 50) -> HttpResponse:
    return json_response(call("reputation_history", user_id, cursor, min(max(limit, 1), 200)))
