"""`/v1/subscriptions/{id}/secret`: the secrets that sign pushes."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, ClassVar

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import JSONBody
from msgspec import UnsetType

from service.api.access.audit_trail import ACTION
from service.api.access.route_guards import SUBSCRIBERS
from service.api.fields.kinds import means
from service.api.fields.refusals import Refusals
from service.api.fields.views import Timestamp, View
from service.api.http.etags import tagged
from service.api.http.problem_types import CONFLICT
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenRefusals, GivenServices, PathId
from service.api.resources.subscriptions.subscription_bodies import SecretRotation
from service.api.resources.subscriptions.subscription_views import secret_to_show
from service.clock import now_ms
from service.domain.delivery.subscription import Subscription
from service.domain.errors import ConflictError
from service.domain.events.event import rfc3339
from service.domain.signatures.signing import (
    MAX_IN_FORCE,
    Signature,
    SigningSecret,
    in_force,
    read_secret,
    rotated,
    signature_of,
)
from service.storage.registry.subscriptions import new_secret

_NO_BODY = SecretRotation()


class KeyView(View, frozen=True, kw_only=True):
    """The key that verifies one signature."""

    signature: Annotated[str, means("hmac or ed25519")]
    secret: Annotated[str | None, means("whsec_ and base64; null: an ed25519 key")]
    public_key: Annotated[str | None, means("whpk_ and base64; null: an hmac secret")]


class EndingSecretView(KeyView, frozen=True, kw_only=True):
    """A rotated secret that still signs beside the new one."""

    example: ClassVar = {
        "signature": "hmac",
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "public_key": None,
        "expires_at": "2026-11-24T09:30:00.000Z",
    }
    expires_at: Annotated[Timestamp, means("when it stops signing")]


class SecretView(KeyView, frozen=True, kw_only=True):
    """The key that verifies pushes: the secret of hmac, or the public key of ed25519."""

    example: ClassVar = {
        "signature": "hmac",
        "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "public_key": None,
        "previous": [EndingSecretView.example],
    }
    previous: Annotated[
        list[EndingSecretView], means("rotated secrets that still sign, the newest first")
    ]

    @classmethod
    def of(cls, secrets: Sequence[SigningSecret]) -> SecretView:
        """The secrets in force, the newest first."""
        newest, *ending = secrets
        return cls(
            **_shown(newest.secret),
            previous=[
                EndingSecretView(**_shown(one.secret), expires_at=rfc3339(one.expires_at))
                for one in ending
                if one.expires_at is not None
            ],
        )


class SecretController(Controller):
    """Calls the store of subscriptions."""

    path = "/subscriptions/{subscription_id:str}/secret"
    tags = ["Subscriptions"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        guards=[SUBSCRIBERS],
        operation_id="showSubscriptionSecret",
        summary="Show a subscription's secret",
        response_description="The secret, or the public key",
    )
    async def secret(self, subscription_id: PathId, services: GivenServices) -> SecretView:
        """The keys that verify signatures, including those of rotated secrets while they overlap.
        The private keys of ed25519 are never returned."""
        secrets = await services.subscriptions.secrets(subscription_id)
        return SecretView.of(in_force(secrets, now_ms()))

    @post(
        "/rotate",
        status_code=HTTPStatus.OK,
        guards=[SUBSCRIBERS],
        operation_id="rotateSubscriptionSecret",
        summary="Rotate a subscription's secret",
        opt={ACTION: "subscription.secret_rotated", PROBLEMS: (CONFLICT,)},
        response_description="The new secret, or its public key",
    )
    async def rotate(
        self,
        subscription_id: PathId,
        refusals: GivenRefusals,
        services: GivenServices,
        data: JSONBody[SecretRotation] = _NO_BODY,
    ) -> Response[SecretView]:
        """While the old secret overlaps, every push has a signature of each secret, the newest
        first. The body is optional."""
        check_secret(data.secret, data.signature, refusals)
        refusals.settle()
        overlap_ms = data.overlap_seconds * 1000

        def change(
            before: Subscription, secrets: list[SigningSecret]
        ) -> tuple[Subscription, list[SigningSecret]]:
            now = now_ms()
            new = take_secret(data.secret, data.signature or before.signature)
            if any(one.secret == new for one in in_force(secrets, now)):
                refusals.refuse(
                    "secret", "is already in force", "leave it out to have another one generated"
                )
                refusals.settle()
            after = rotated(secrets, new, overlap_ms, now)
            if len(after) > MAX_IN_FORCE:
                raise ConflictError(
                    f"{MAX_IN_FORCE} secrets are in force; wait until one has ended, or send "
                    "overlap_seconds 0 to end them all"
                )
            subscription = msgspec.structs.replace(
                before,
                public_key=read_secret(new).public_key,
                updated_at=max(now, before.updated_at + 1),
            )
            return subscription, after

        subscription, secrets = await services.subscriptions.rotate(subscription_id, change)
        return Response(SecretView.of(secrets), headers=tagged(subscription))


def check_secret(
    secret: str | UnsetType, signature: Signature | UnsetType, refusals: Refusals
) -> None:
    """Requires a secret that fits the requested signature."""
    if secret and signature and signature_of(secret) != signature:
        refusals.refuse(
            "secret",
            f"is one for {signature_of(secret)}",
            f"leave it out to have one for {signature} generated, or leave out signature",
        )


def take_secret(given: str | UnsetType, signature: Signature) -> str:
    """The given secret, or a new one for the signature."""
    return given or new_secret(signature)


def _shown(secret: str) -> dict[str, Any]:
    key = read_secret(secret)
    return {
        "signature": key.signature,
        "secret": secret_to_show(secret),
        "public_key": key.public_key,
    }
