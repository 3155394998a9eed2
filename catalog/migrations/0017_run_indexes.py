"""Indexes that the list of runs is cut from."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalog", '0016_statistics_psi')]

    operations = [
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["-created_at"], name="run_newest"),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["state", "-created_at"], name="run_newest_of_state"),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["kind", "-created_at"], name="run_newest_of_kind"),
        ),
    ]
