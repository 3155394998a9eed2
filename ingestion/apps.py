from django.apps import AppConfig


class IngestionConfig(AppConfig):
    name = "ingestion"

    def ready(self) -> None:
        from catalog.metrics import metrics_wanted
        from catalog.stores import history_wanted
        from ingestion import drain, metrics

        metrics_wanted.connect(metrics.on_metrics_wanted, dispatch_uid="ingestion.metrics")
        history_wanted.connect(drain.on_history_wanted, dispatch_uid="ingestion.drain")
