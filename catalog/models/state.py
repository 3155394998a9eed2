"""The one row that says which catalog and which contents of the online store are the current ones."""

from __future__ import annotations

import secrets

from django.db import connection, models
from django.db.models import F, Q


def new_epoch() -> str:
    return secrets.token_hex(8)


class CatalogState(models.Model):
    """`version` rises with every change that a reader could notice; `epoch` names one filling of the online store.

    `definitions` is drawn anew by every change that a writer could notice. It is no number: one that a transaction had
    raised before it was rolled back would come again and mean something else. So is `erasures`, empty without any, by
    which a writer knows whether its list of erased entities (catalog/suppression.py) is the current one.
    """

    version = models.PositiveBigIntegerField(default=1)
    epoch = models.CharField(max_length=32, default=new_epoch)
    definitions = models.CharField(max_length=32, default=new_epoch)
    erasures = models.CharField(max_length=32, default="", blank=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(pk=1), name="catalogstate_is_one_row")]

    def __str__(self) -> str:
        return f"{self.version}:{self.epoch}"

    @classmethod
    def current(cls) -> CatalogState:
        return cls.objects.get_or_create(pk=1)[0]

    @classmethod
    def read(cls) -> CatalogState:
        """The row as `current` gives it, by a query that costs a tenth: every push asks several times."""
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT id, version, epoch, definitions, erasures FROM {cls._meta.db_table} WHERE id = 1")
            row = cursor.fetchone()
        return cls.current() if row is None else cls(*row)

    @classmethod
    def bump(cls) -> None:
        """Raise the version inside the caller's transaction."""
        cls.current()
        cls.objects.filter(pk=1).update(version=F("version") + 1)

    @classmethod
    def redefine(cls) -> None:
        """Tell writers, inside the caller's transaction, that a definition is another one now."""
        cls.current()
        cls.objects.filter(pk=1).update(definitions=new_epoch())
