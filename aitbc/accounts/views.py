"""People's view of their own account: profile, API keys, and the governed parameters."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, status
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import AllowAny, BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aitbc.accounts import keys
from aitbc.accounts.models import ApiKey, Parameter, User
from aitbc.accounts.serializers import ApiKeySerializer, NewApiKeySerializer, ParameterSerializer, UserSerializer
from aitbc.core.pagination import DrfCursorPagination


class SessionOnly(BasePermission):
    """A key must not make keys: a stolen one would outlive its own revocation."""

    message = "sign in with a session to manage API keys"

    def has_permission(self, request: Request, view: APIView) -> bool:
        return request.auth is None or request.method in ("GET", "HEAD", "OPTIONS")


def _user(request: Request) -> User:
    user = request.user
    assert isinstance(user, User)  # IsAuthenticated ran before
    return user


@extend_schema_view(get=extend_schema(summary="Who you are"), patch=extend_schema(summary="Change your name"))
class Me(generics.RetrieveUpdateAPIView[User]):
    """The signed-in user."""

    serializer_class = UserSerializer
    http_method_names = ["get", "patch", "head", "options"]

    def get_object(self) -> User:
        return User.objects.get(pk=_user(self.request).pk)


@extend_schema_view(
    get=extend_schema(summary="Your API keys"),
    post=extend_schema(summary="Make an API key", responses={201: NewApiKeySerializer}),
)
class Keys(generics.ListCreateAPIView[ApiKey]):
    """Your API keys; a new one is shown in full this once."""

    serializer_class = ApiKeySerializer
    permission_classes = [*APIView.permission_classes, SessionOnly]

    def get_queryset(self) -> QuerySet[ApiKey]:
        if getattr(self, "swagger_fake_view", False):
            return ApiKey.objects.none()
        return ApiKey.objects.filter(user=_user(self.request))

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        data = serializer.validated_data
        with transaction.atomic():
            key, token = keys.create_key(
                user=_user(request), name=data["name"], scopes=data["scopes"], expires_at=data.get("expires_at")
            )
        body = ApiKeySerializer(key).data | {"key": token}
        return Response(body, status=status.HTTP_201_CREATED)


class KeyDetail(APIView):
    permission_classes = [*APIView.permission_classes, SessionOnly]

    @extend_schema(request=None, responses={200: ApiKeySerializer}, summary="Revoke one of your keys")
    def delete(self, request: Request, pk: UUID) -> Response:
        key = keys.revoke_key(key_id=pk, user=_user(request))
        return Response(ApiKeySerializer(key).data)


class ByName(DrfCursorPagination):
    ordering = "name"


@extend_schema_view(get=extend_schema(summary="Governed parameters"))
class Parameters(generics.ListAPIView[Parameter]):
    """The governed parameters, open to all."""

    serializer_class = ParameterSerializer
    permission_classes = [AllowAny]
    pagination_class: type[CursorPagination] = ByName
    queryset = Parameter.objects.all()
