"""The permissions of a turn, and the secrets that it signs with."""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    TimeoutError,  # noqa: A004 - redis's own name
)

from service.domain.access.grants import NOTHING, Grant
from service.domain.access.redaction import Redactor
from service.domain.errors import LeaseLostError, NotFoundError
from service.domain.signatures.signing import Signer, SigningSecret
from service.storage.delivery.outboxes import OpenedOutbox
from service.storage.registry.subscriptions import SubscriptionStore
from service.storage.scheduling.pause import Control
from service.storage.security.api_keys import ApiKeys

REFRESH_SECONDS = 1.0  # after which everything that can be revoked is read again within a turn


class SendPermissions:
    """The secrets and headers of a subscription, the grant of its owner (None: everything), and
    whether all deliveries are paused. A revoked secret or grant is noticed within a second."""

    def __init__(
        self,
        opened: OpenedOutbox,
        subscriptions: SubscriptionStore,
        control: Control,
        api_keys: ApiKeys,
    ) -> None:
        """Raises DecryptionError."""
        self.paused = False
        self.grant: Grant | None = NOTHING
        self.signer: Signer
        self.redactor: Redactor
        self.headers = subscriptions.decrypted_headers(opened.subscription.id, opened.headers)
        self.certificate = subscriptions.decrypted_certificate(
            opened.subscription.id, opened.client_certificate
        )
        self._subscription = opened.subscription
        self._encrypted_secrets = opened.secrets
        self._subscriptions = subscriptions
        self._control = control
        self._api_keys = api_keys
        self._read_at = 0.0

    async def open(self) -> None:
        """Uses the secrets that were read with the outbox. Raises DecryptionError."""
        secrets = self._subscriptions.decrypted_secrets(
            self._subscription.id, self._encrypted_secrets
        )
        await self._use(secrets)

    async def refresh(self) -> bool:
        """Reads everything again if it is a second old; returns whether it was read. Raises
        LeaseLostError if the subscription was deleted."""
        if time.monotonic() - self._read_at < REFRESH_SECONDS:
            return False
        try:
            await self._use(await self._subscriptions.secrets(self._subscription.id))
        except NotFoundError:
            raise LeaseLostError("the subscription was deleted") from None
        # if Redis is unreachable, nothing can be revoked either
        except (ConnectionError, TimeoutError):
            self._read_at = time.monotonic()
            return False
        return True

    async def _use(self, secrets: Sequence[SigningSecret]) -> None:
        self.paused = await self._control.is_paused("delivery")
        self.signer = Signer(secrets)
        self.redactor = Redactor([*(one.secret for one in secrets), *self.headers.values()])
        self.grant = await self._api_keys.grant_of(self._subscription.owner)
        self._read_at = time.monotonic()
