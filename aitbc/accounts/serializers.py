from rest_framework import serializers

from aitbc.accounts.keys import SCOPES
from aitbc.accounts.models import ApiKey, Parameter, User


class UserSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ("id", "email", "name", "role", "created_at")
        read_only_fields = ("id", "email", "role", "created_at")


class ApiKeySerializer(serializers.ModelSerializer[ApiKey]):
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES), min_length=1)

    class Meta:
        model = ApiKey
        fields = ("id", "name", "prefix", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")
        read_only_fields = ("id", "prefix", "created_at", "revoked_at", "last_used_at")


class NewApiKeySerializer(ApiKeySerializer):
    """The only answer that ever holds the key itself."""

    key = serializers.CharField(read_only=True)

    class Meta(ApiKeySerializer.Meta):
        fields = (*ApiKeySerializer.Meta.fields, "key")  # type: ignore[assignment]


class ParameterSerializer(serializers.ModelSerializer[Parameter]):
    class Meta:
        model = Parameter
        fields = ("name", "value", "minimum", "maximum", "unit", "description", "updated_at")
