"""What is measured of the tests' bundle."""

from service.metrics import Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the sample ``interlinear_{name}`` with these labels and no others but the model; 0 where there is none."""
    return metrics.registry.get_sample_value(f"interlinear_{name}", {"model": "tiny@1", **labels}) or 0.0
