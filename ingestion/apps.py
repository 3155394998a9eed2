from django.apps import AppConfig


class IngestionConfig(AppConfig):
    name = "ingestion"

    def ready(self) -> None:
        from catalog.metrics import metrics_wanted
        from catalog.pages.concerns import concerns_wanted
        from catalog.stores import history_wanted
        from ingestion import drain, metrics
        from ingestion.pages.concerns import on_concerns_wanted

        concerns_wanted.connect(on_concerns_wanted, dispatch_uid="ingestion.concerns")
        metrics_wanted.connect(metrics.on_metrics_wanted, dispatch_uid="ingestion.metrics")
        history_wanted.connect(drain.on_history_wanted, dispatch_uid="ingestion.drain")
