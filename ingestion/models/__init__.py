"""The records of the way in, one noun a file."""

from ingestion.models.cursor import OnlineCursor
from ingestion.models.ledger import SourceFile
from ingestion.models.push_log import Drain, PushBatch
from ingestion.models.quarantine import QuarantinedRule

__all__ = ["Drain", "OnlineCursor", "PushBatch", "QuarantinedRule", "SourceFile"]
