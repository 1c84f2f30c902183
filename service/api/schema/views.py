"""Shows what the stores hold in the form in which the API answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from service.api.resources import upstream_check as checks
from service.api.schema import schemas
from service.domain.access.grants import NOTHING
from service.domain.access.signing import Signature, SigningSecret, read_secret, signature_of
from service.domain.delivery import subscription as matching
from service.domain.delivery.subscription import Subscription
from service.domain.egress.certificates import CertificateFacts
from service.domain.events.event import rfc3339
from service.domain.events.identifiers import position_ms
from service.domain.polling import integration as polling
from service.domain.polling.integration import (
    Credential,
    Integration,
    PollingState,
    PollRecord,
    Problem,
)
from service.domain.polling.notices import Notice, notices
from service.domain.replay.replay import Replay, ReplayProgress
from service.storage.delivery.attempts import Attempt, Delivery
from service.storage.delivery.outboxes import OutboxDepth
from service.storage.polling.catalogue import CourseRow
from service.storage.polling.reviews import HeldChange, Review
from service.storage.registry.api_keys import StoredKey, token_prefix
from service.storage.security.audit import AuditEntry


def moment(milliseconds: int | None) -> schemas.Timestamp | None:
    """Epoch ms as it is shown."""
    return None if milliseconds is None else rfc3339(milliseconds)


def credential(one: Credential) -> schemas.CredentialView:
    """A credential."""
    return schemas.CredentialView(
        id=one.id,
        name=one.name,
        base_url=one.base_url,
        created_at=rfc3339(one.created_at),
        updated_at=rfc3339(one.updated_at),
    )


def integration(
    one: Integration,
    state: PollingState,
    last_poll: PollRecord | None,
    next_poll_at: int | None,
) -> schemas.IntegrationView:
    """An integration."""
    return schemas.IntegrationView(
        id=one.id,
        name=one.name,
        upstream_id=one.upstream_id,
        credential_id=one.credential_id,
        external_id=one.external_id,
        labels=one.labels,
        delta_interval_seconds=one.delta_interval_seconds,
        full_interval_seconds=one.full_interval_seconds,
        baseline=one.baseline,
        ignore_paths=one.ignore_paths,
        track_remote_data=one.track_remote_data,
        guards=msgspec.structs.asdict(one.guards),
        paused=one.paused,
        created_at=rfc3339(one.created_at),
        updated_at=rfc3339(one.updated_at),
        state=polling.state_of(one, state),
        epoch=state.epoch,
        held=state.held,
        course_count=state.course_count,
        quarantined=state.quarantined,
        clock_skew_seconds=None if state.clock_skew_ms is None else state.clock_skew_ms / 1000,
        last_poll=None if last_poll is None else poll(last_poll),
        next_poll_at=moment(next_poll_at),
        error=None if state.problem is None else _problem(state.problem),
        notices=[_notice(found) for found in notices(one, state)],
    )


def _notice(notice: Notice) -> schemas.IntegrationNotice:
    return schemas.IntegrationNotice(
        code=notice.code, message=notice.message, since=rfc3339(notice.since)
    )


def _problem(problem: Problem) -> schemas.IntegrationProblem:
    return schemas.IntegrationProblem(
        code=problem.code,
        message=problem.message,
        remedy=checks.remedy(problem.code, problem.status, elsewhere=problem.elsewhere),
        since=rfc3339(problem.since),
        attention=problem.attention,
        status=problem.status,
        log_url=problem.log_url,
    )


def poll(one: PollRecord) -> schemas.PollView:
    """A poll."""
    duration = None
    if one.started_at is not None and one.finished_at is not None:
        duration = (one.finished_at - one.started_at) / 1000
    return schemas.PollView(
        id=one.id,
        kind=one.kind,
        state=one.state,
        requested_at=moment(one.requested_at),
        started_at=moment(one.started_at),
        finished_at=moment(one.finished_at),
        duration_seconds=duration,
        pages=one.pages,
        records=one.records,
        verdicts=one.verdicts,
        changes=one.changes,
        error=one.error,
    )


def review(
    integration_id: str,
    state: PollingState,
    found: Review,
    changes: Sequence[HeldChange],
    following: str | None,
) -> schemas.ReviewView:
    """What is held of an integration."""
    being_done = {"apply": "applying", "discard": "discarding"}
    return schemas.ReviewView(
        integration_id=integration_id,
        state="open"
        if found.since is not None
        else being_done[state.decision]
        if state.decision is not None
        else "none",
        since=moment(found.since),
        deleted=found.held.deleted,
        changed=dict(found.held.changed),
        items=[
            schemas.HeldChangeView(
                course_id=one.id,
                kind="updated" if one.withheld.kind == "update" else "deleted",
                evidence=None if one.withheld.kind == "update" else one.withheld.kind,
                changed=tuple(one.withheld.paths),
            )
            for one in changes
        ],
        next=following,
    )


def course(row: CourseRow) -> schemas.CourseView:
    """A course."""
    return schemas.CourseView(
        course_id=row.id,
        remote_id=row.remote_id,
        origin_id=row.origin_id,
        state=row.state,
        reason=row.quarantine_reason,
        sequence=row.sequence,
        last_event_id=row.last_event_id,
    )


def subscription(
    one: Subscription, depth: OutboxDepth, secret: str | None = None
) -> schemas.SubscriptionView:
    """A subscription; with `secret`, if it is one that may be shown, only in the answer to its
    creation."""
    shown = None if secret is None else _secret_to_show(secret)
    return schemas.SubscriptionView(
        id=one.id,
        url=one.url,
        description=one.description,
        event_types=one.event_types,
        integration_ids=one.integration_ids,
        labels=one.labels,
        changed=one.changed,
        payload=one.payload,
        format=one.format,
        signature=one.signature,
        public_key=one.public_key,
        headers=dict.fromkeys(one.header_names),
        client_certificate=_client_certificate(one.client_certificate),
        max_concurrency=one.max_concurrency,
        rate_per_second=one.rate_per_second,
        timeout_seconds=one.timeout_seconds,
        retry_schedule_seconds=one.retry_schedule_seconds,
        paused=one.paused,
        created_at=rfc3339(one.created_at),
        updated_at=rfc3339(one.updated_at),
        owner=one.owner,
        state=matching.state_of(one, parked=depth.parked),
        disabled_reason=one.disabled_reason,
        pending=depth.pending,
        dead=depth.dead,
        oldest_pending_at=moment(depth.oldest_pending_at),
        secret=msgspec.UNSET if shown is None else shown,
    )


def _client_certificate(one: CertificateFacts | None) -> schemas.ClientCertificateView | None:
    if one is None:
        return None
    return schemas.ClientCertificateView(
        subject=one.subject,
        issuer=one.issuer,
        serial=one.serial,
        fingerprint_sha256=one.fingerprint,
        not_after=rfc3339(one.not_after),
    )


def secret(secrets: Sequence[SigningSecret]) -> schemas.SecretView:
    """The secrets in force, the newest first."""
    newest, *ending = secrets
    key = read_secret(newest.secret)
    return schemas.SecretView(
        signature=key.signature,
        secret=_secret_to_show(newest.secret),
        public_key=key.public_key,
        previous=[
            _ending_secret(one.secret, one.expires_at)
            for one in ending
            if one.expires_at is not None
        ],
    )


def _ending_secret(secret: str, expires_at: int) -> schemas.EndingSecretView:
    key = read_secret(secret)
    return schemas.EndingSecretView(
        signature=key.signature,
        secret=_secret_to_show(secret),
        public_key=key.public_key,
        expires_at=rfc3339(expires_at),
    )


def _secret_to_show(secret: str) -> str | None:
    """None instead of a private key, which only the service needs."""
    return secret if signature_of(secret) is Signature.HMAC else None


def api_key(stored: StoredKey, token: str | None = None) -> schemas.ApiKeyView:
    """An API key; with its `token` only in the answer that makes it."""
    one = stored.key
    grant = one.grant or NOTHING
    return schemas.ApiKeyView(
        id=one.id,
        name=one.name,
        prefix=token_prefix(one.id),
        scope=one.scope,
        integration_ids=grant.integration_ids or None,
        labels=grant.labels,
        created_at=rfc3339(one.created_at),
        updated_at=rfc3339(one.updated_at),
        expires_at=moment(one.expires_at),
        last_used_at=moment(stored.last_used_at),
        token=msgspec.UNSET if token is None else token,
    )


def audit(one: AuditEntry) -> schemas.AuditView:
    """An entry of the audit trail."""
    record = one.record
    return schemas.AuditView(
        at=rfc3339(one.at),
        actor=record.actor,
        action=record.action,
        object_id=record.object_id,
        fields=record.fields,
        request_id=record.request_id,
        address=record.address,
    )


def attempt(one: Attempt) -> schemas.AttemptView:
    """An attempt."""
    return schemas.AttemptView(
        event_id=one.event_id,
        number=one.number,
        at=rfc3339(one.at),
        outcome=one.outcome,
        duration_ms=one.duration_ms,
        status=one.status,
        dns_ms=one.dns_ms,
        connect_ms=one.connect_ms,
        first_byte_ms=one.first_byte_ms,
        error=one.error,
        excerpt=one.excerpt,
        next_attempt_at=moment(one.next_attempt_at),
        counted=one.counted,
        replay=one.replay,
    )


def replay(one: Replay, progress: ReplayProgress) -> schemas.ReplayView:
    """A replay."""
    return schemas.ReplayView(
        id=one.id,
        subscription_id=one.subscription_id,
        which=one.which,
        since=moment(one.since),
        until=moment(one.until),
        event_types=one.event_types,
        event_id=one.event_id,
        state=progress.state,
        scanned=progress.scanned,
        queued=progress.queued,
        delivered=progress.delivered,
        dead=progress.dead,
        left_out=progress.left_out,
        reached_at=moment(position_ms(progress.position))
        if progress.position and one.which != "backfill"
        else None,
        created_at=rfc3339(progress.created_at),
        started_at=moment(progress.started_at),
        finished_at=moment(progress.finished_at),
        error=progress.error,
    )


def delivery(one: Delivery) -> schemas.DeliveryView:
    """A delivery."""
    return schemas.DeliveryView(
        subscription_id=one.subscription_id,
        event_id=one.event_id,
        state=one.state,
        reason=one.reason,
        attempts=[attempt(made) for made in one.attempts],
    )
