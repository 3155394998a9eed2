"""The records of the way in, one noun a file."""

from ingestion.models.cursor import OnlineCursor
from ingestion.models.idempotency import IdempotencyKey
from ingestion.models.ledger import SourceFile
from ingestion.models.push_log import Drain, PushBatch
from ingestion.models.quarantine import QuarantinedRow, QuarantinedRule, QuarantineState
from ingestion.models.schedule_tick import ScheduleTick

__all__ = [
    "Drain",
    "IdempotencyKey",
    "OnlineCursor",
    "PushBatch",
    "QuarantineState",
    "QuarantinedRow",
    "QuarantinedRule",
    "ScheduleTick",
    "SourceFile",
]
